"""Decode a video file with OpenCV, resample it in time, and choose the frames of a clip.

Frame counts in headers are wrong in most files and seeking by frame number is inexact, so a file
is always decoded from its first frame to its last and the frames are counted on the way.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hstlib.config import ClipConfig

# Intact files of HMDB51 and UT-Interaction announce up to 2 frames more than they hold, and
# containers without an index announce duration x rate; more than this is a damaged file.
MISSING_FRAMES_ALLOWED = 3
MISSING_SHARE_ALLOWED = 0.05
NO_FILE = "does not exist"


class VideoError(ValueError):
    """A video that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Video:
    """A decoded and resampled video.

    Attributes:
        frames: RGB frames, uint8, shape (N, H, W, 3).
        fps: Frame rate of ``frames``, in Hz.
        source_fps: Frame rate of the file, in Hz.
        source_frames: Frames that the file decodes to.
        source_size: Width and height of the file's frames, in pixels.
    """

    frames: np.ndarray
    fps: float
    source_fps: float
    source_frames: int
    source_size: tuple[int, int]


@dataclass(frozen=True)
class VideoFile:
    """What a video file announces and what it holds.

    Attributes:
        frames: Frames that the file decodes to.
        header_frames: Frames that its header announces.
        width: Of the frames, in pixels.
        height: Of the frames, in pixels.
        fps: Frame rate by the header, in Hz; 0 if that is no number.
        codec: Four characters.
    """

    frames: int
    header_frames: int
    width: int
    height: int
    fps: float
    codec: str

    @property
    def fault(self) -> str | None:
        """What makes the file unusable, if anything does."""
        return _rate_fault(self.fps) or _count_fault(self.frames, self.header_frames)


def _rate_fault(fps: float) -> str | None:
    if 0 < fps <= 1000:
        return None
    return f"the header gives a frame rate of {fps:g} Hz; re-encode the file with a valid rate"


def _count_fault(decoded: int, header: int) -> str | None:
    allowed = max(MISSING_FRAMES_ALLOWED, MISSING_SHARE_ALLOWED * header)
    if decoded > 0 and decoded >= header - allowed:
        return None
    return f"damaged, {decoded} of {header} expected frames decode; fetch the file again"


def resize_frame(frame: np.ndarray, size: int, fit: str = "stretch") -> np.ndarray:
    """Resize one frame to a square.

    Args:
        frame: uint8, shape (H, W, 3).
        size: Height and width of the result, in pixels.
        fit: ``stretch``, or ``letterbox`` to keep the aspect on a black ground.

    Returns:
        uint8, shape (size, size, 3).
    """
    if fit == "stretch":
        return _resize(frame, size, size)
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    inner_h, inner_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner_h) // 2, (size - inner_w) // 2
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[top : top + inner_h, left : left + inner_w] = _resize(frame, inner_w, inner_h)
    return canvas


def _resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width < frame.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=interpolation)


def read_video(path: str | Path, *, size: int, fps: float = 16.0, fit: str = "stretch") -> Video:
    """Decode a whole file and keep the frame nearest to each of the times 0, 1/fps, 2/fps, ...

    Paper: section 4, "decode the short videos with a frame rate of 16fps, and resize all frames".

    Args:
        path: The video file.
        size: Height and width of the frames, in pixels.
        fps: Frame rate after resampling, in Hz. A slower file repeats frames.
        fit: How the aspect is treated, see :func:`resize_frame`.

    Returns:
        The resampled video; its frames have shape (N, size, size, 3).

    Raises:
        VideoError: If the file is missing, is not a video, or decodes to clearly fewer frames
            than its header announces.
    """
    capture = _open(Path(path))
    try:
        source_fps = capture.get(cv2.CAP_PROP_FPS)
        if fault := _rate_fault(source_fps):
            raise VideoError(f"{path}: {fault}")
        header = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames, decoded, source_size = _decode(capture, source_fps / fps, size, fit)
    finally:
        capture.release()
    if fault := _count_fault(decoded, header):
        raise VideoError(f"{path}: {fault}")
    return Video(np.stack(frames), fps, source_fps, decoded, source_size)


def inspect_video(path: str | Path) -> VideoFile:
    """Decode a whole file without keeping its frames.

    Args:
        path: The video file.

    Returns:
        What is in the file; see its ``fault`` for whether :func:`read_video` takes it.

    Raises:
        VideoError: If the file is missing, cannot be read or is not a video.
    """
    capture = _open(Path(path))
    try:
        decoded, width, height = 0, 0, 0
        while capture.grab():
            if decoded == 0 and (first := capture.retrieve())[0]:
                height, width = first[1].shape[:2]
            decoded += 1
        fps = capture.get(cv2.CAP_PROP_FPS)
        header = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        codec = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    finally:
        capture.release()
    letters = codec.to_bytes(4, "little").decode("latin-1").strip("\0 ")
    return VideoFile(decoded, header, width, height, fps if math.isfinite(fps) else 0.0, letters)


def _open(path: Path) -> cv2.VideoCapture:
    try:
        begin = _first_bytes(path)
    except OSError as error:
        raise VideoError(
            f"{path}: cannot be read ({error.strerror}); look at its permissions and at the disk"
        ) from error
    # one thread: with more, FFmpeg fills the holes of a damaged file differently every time
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise VideoError(
            f"{path}: not a video that OpenCV can open ({path.stat().st_size} bytes, "
            f"begins with {begin!r}); fetch the file again"
        )
    return capture


def printable(path: str | Path) -> str:
    """Return a path as text that can be printed and stored, whatever bytes its name has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a file")
    if not path.is_file():
        raise VideoError(f"{path}: {'is no regular file' if path.exists() else NO_FILE}")
    with path.open("rb") as file:
        begin = file.read(8)
    if not begin:
        raise VideoError(f"{path}: empty, 0 bytes; fetch the file again")
    if printable(path) != str(path):
        raise VideoError(f"{path}: its name is not UTF-8, on which OpenCV crashes; rename the file")
    return begin


def _decode(
    capture: cv2.VideoCapture, step: float, size: int, fit: str
) -> tuple[list[np.ndarray], int, tuple[int, int]]:
    """Decode in order, keeping the source frames nearest to 0, step, 2 step, ..."""
    kept: list[np.ndarray] = []
    decoded, source_size = 0, (0, 0)
    while capture.grab():
        if int(len(kept) * step + 0.5) == decoded:
            readable, frame = capture.retrieve()
            if not readable:
                break
            source_size = (frame.shape[1], frame.shape[0])
            frame = cv2.cvtColor(resize_frame(frame, size, fit), cv2.COLOR_BGR2RGB)
            while int(len(kept) * step + 0.5) == decoded:
                kept.append(frame)
        decoded += 1
    return kept, decoded, source_size


def window_starts(length: int, num_frames: int, num_windows: int) -> list[int]:
    """Return the first frames of clips spread evenly over a video, one alone being central.

    >>> window_starts(length=48, num_frames=16, num_windows=1)
    [16]
    >>> window_starts(length=48, num_frames=16, num_windows=3)
    [0, 16, 32]
    >>> window_starts(length=10, num_frames=16, num_windows=2)
    [0, 0]
    """
    free = max(0, length - num_frames)
    if num_windows == 1:
        return [free // 2]
    return [round(i * free / (num_windows - 1)) for i in range(num_windows)]


def clip_indices(length: int, start: int, config: ClipConfig) -> np.ndarray:
    """Return which frames of a resampled video make a clip, and the frame that follows it.

    Args:
        length: Frames of the video.
        start: First frame of the clip; ignored by ``uniform`` sampling.
        config: Number of frames and sampling.

    Returns:
        int64, shape (num_frames + 1,): the clip and the next frame, from which the last flow
        field is made. A video that ends early repeats its last frame; where no next frame
        exists the last entry is -1.
    """
    count = config.num_frames
    if config.sampling == "uniform":
        return np.append(np.linspace(0, length - 1, count).round().astype(np.int64), -1)
    indices = start + np.arange(count + 1)
    following = indices[-1] if indices[-1] < length else -1
    return np.append(np.minimum(indices[:-1], length - 1), following)
