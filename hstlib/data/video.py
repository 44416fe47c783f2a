"""Decode a video file with OpenCV and resample it in time.

Frame counts in headers are often wrong and seeking by frame number is inexact, so a file is always
decoded from its first frame to its last, and the frames are counted.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

# Headers of intact HMDB51 and UT-Interaction files announce up to 2 frames too many, and containers
# without an index announce duration x rate. A file that lacks more frames than this is damaged.
MISSING_FRAMES_ALLOWED = 3
MISSING_SHARE_ALLOWED = 0.05


class VideoError(ValueError):
    """A video that cannot be used; the message names the file and the fault."""


class MissingVideoError(VideoError):
    """A video file that does not exist."""


@dataclass(frozen=True)
class Video:
    """A decoded and resampled video.

    Attributes:
        frames: RGB frames, uint8, shape (N, H, W, 3).
        fps: Frame rate of ``frames``, in Hz.
        source_fps: Frame rate of the file, in Hz.
        source_frames: Number of frames decoded from the file.
        source_size: Width and height of the file's frames, in pixels.
    """

    frames: np.ndarray
    fps: float
    source_fps: float
    source_frames: int
    source_size: tuple[int, int]


@dataclass(frozen=True)
class VideoFile:
    """Header and decoded content of a video file.

    Attributes:
        frames: Number of frames decoded from the file.
        header_frames: Number of frames that the header announces.
        width: Frame width, in pixels.
        height: Frame height, in pixels.
        fps: Frame rate in the header, in Hz; 0 if the header has no finite number.
        codec: Four-character code of the codec.
    """

    frames: int
    header_frames: int
    width: int
    height: int
    fps: float
    codec: str

    @property
    def fault(self) -> str | None:
        """Reason why the file cannot be used; None if it can."""
        return _rate_fault(self.fps) or _count_fault(self.frames, self.header_frames)


def _rate_fault(fps: float) -> str | None:
    if 0 < fps <= 1000:
        return None
    return f"the header gives a frame rate of {fps:g} Hz; re-encode the file with a valid rate"


def _count_fault(num_decoded: int, header_frames: int) -> str | None:
    allowed = max(MISSING_FRAMES_ALLOWED, MISSING_SHARE_ALLOWED * header_frames)
    if num_decoded > 0 and num_decoded >= header_frames - allowed:
        return None
    return f"damaged, {num_decoded} of {header_frames} expected frames decode; fetch the file again"


def resize_frame(frame: np.ndarray, size: int, fit: str = "stretch") -> np.ndarray:
    """Resize one frame to a square.

    Args:
        frame: uint8, shape (H, W, 3).
        size: Height and width of the result, in pixels.
        fit: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads with black.

    Returns:
        uint8, shape (size, size, 3).

    Raises:
        ValueError: If ``fit`` is unknown.
    """
    if fit == "stretch":
        return _resize(frame, size, size)
    if fit != "letterbox":
        raise ValueError(f"fit {fit!r} is unknown; use 'stretch' or 'letterbox'")
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    inner_h, inner_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner_h) // 2, (size - inner_w) // 2
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[top : top + inner_h, left : left + inner_w] = _resize(frame, inner_w, inner_h)
    return canvas


def _resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    interpolation = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=interpolation)


def read_video(path: str | Path, *, size: int, fps: float = 16.0, fit: str = "stretch") -> Video:
    """Decode a whole file and keep the frame nearest to each of the times 0, 1/fps, 2/fps, ...

    Paper: section 4, "decode the short videos with a frame rate of 16fps, and resize all frames".

    Args:
        path: Video file.
        size: Height and width of the frames, in pixels.
        fps: Frame rate after resampling, in Hz. Frames of a slower file are repeated.
        fit: Treatment of the aspect ratio, as in :func:`resize_frame`.

    Returns:
        The resampled video; its frames have shape (N, size, size, 3).

    Raises:
        MissingVideoError: If the file does not exist.
        VideoError: If the file is not a video, or decodes to clearly fewer frames than its header
            announces.
        ValueError: If ``size`` or ``fps`` is not positive, or ``fit`` is unknown.
    """
    if size < 1 or not fps > 0:
        raise ValueError(f"size {size} and fps {fps:g} must both be positive")
    capture = _open(Path(path))
    try:
        source_fps = capture.get(cv2.CAP_PROP_FPS)
        if fault := _rate_fault(source_fps):
            raise VideoError(f"{path}: {fault}")
        header_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames, num_decoded, source_size = _decode(capture, source_fps / fps, size, fit)
    finally:
        capture.release()
    if fault := _count_fault(num_decoded, header_frames):
        raise VideoError(f"{path}: {fault}")
    return Video(np.stack(frames), fps, source_fps, num_decoded, source_size)


def inspect_video(path: str | Path) -> VideoFile:
    """Decode a whole file without keeping its frames.

    Args:
        path: Video file.

    Returns:
        Header and decoded content. If ``fault`` is None, :func:`read_video` accepts the file.

    Raises:
        MissingVideoError: If the file does not exist.
        VideoError: If the file cannot be read or is not a video.
    """
    capture = _open(Path(path))
    try:
        num_decoded, width, height = 0, 0, 0
        while capture.grab():
            if num_decoded == 0:
                readable, frame = capture.retrieve()
                if readable:
                    height, width = frame.shape[:2]
            num_decoded += 1
        fps = capture.get(cv2.CAP_PROP_FPS)
        header_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    finally:
        capture.release()
    fps = fps if math.isfinite(fps) else 0.0
    codec = fourcc.to_bytes(4, "little").decode("latin-1").strip("\0 ")
    return VideoFile(num_decoded, header_frames, width, height, fps, codec)


def _open(path: Path) -> cv2.VideoCapture:
    try:
        first_bytes = _read_first_bytes(path)
    except OSError as error:
        raise VideoError(
            f"{path}: cannot be read ({error.strerror}); check its permissions and the disk"
        ) from error
    # One thread: with more, FFmpeg conceals the errors of a damaged file differently every time.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise VideoError(
            f"{path}: not a video that OpenCV can open ({path.stat().st_size} bytes, "
            f"begins with {first_bytes!r}); fetch the file again"
        )
    return capture


def printable(path: str | Path) -> str:
    """Return a path as text to print or store; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _read_first_bytes(path: Path) -> bytes:
    """Return the first 8 bytes of a file, or explain why OpenCV cannot open it."""
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a file")
    if not path.exists():
        raise MissingVideoError(f"{path}: does not exist")
    if not path.is_file():
        raise VideoError(f"{path}: is not a regular file")
    with path.open("rb") as file:
        first_bytes = file.read(8)
    if not first_bytes:
        raise VideoError(f"{path}: empty, 0 bytes; fetch the file again")
    if printable(path) != str(path):
        raise VideoError(
            f"{path}: its name is not UTF-8, and OpenCV crashes on it; rename the file"
        )
    return first_bytes


def _decode(
    capture: cv2.VideoCapture, step: float, size: int, fit: str
) -> tuple[list[np.ndarray], int, tuple[int, int]]:
    """Decode in order and resize the source frames nearest to 0, step, 2 step, ...

    Returns:
        The frames, the number of source frames, and their width and height.
    """
    frames: list[np.ndarray] = []
    num_decoded, source_size = 0, (0, 0)
    while capture.grab():
        if int(len(frames) * step + 0.5) == num_decoded:
            readable, frame = capture.retrieve()
            if not readable:
                break
            source_size = (frame.shape[1], frame.shape[0])
            frame = cv2.cvtColor(resize_frame(frame, size, fit), cv2.COLOR_BGR2RGB)
            while int(len(frames) * step + 0.5) == num_decoded:
                frames.append(frame)
        num_decoded += 1
    return frames, num_decoded, source_size
