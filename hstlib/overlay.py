"""A copy of a video with a label in the upper left corner of every frame."""

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hstlib.files import UNFINISHED
from hstlib.video import VideoError, VideoFile, inspect_video

log = logging.getLogger("hstlib")

CODECS = {".mp4": "vp09", ".webm": "VP80", ".avi": "XVID"}
"""By suffix. OpenCV's wheels have no encoder for H.264; browsers play the first two of these."""
SUFFIXES = (*CODECS, ".gif")
GIF_SIDE, GIF_FPS, GIF_FRAMES = 320, 12.5, 250
"""Largest width and height in pixels, frame rate in Hz, and number of frames of a GIF."""
FONTS = (
    str(Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts/ttf/DejaVuSans.ttf"),
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
)
"""The first that has all characters of a label is used. The others are of Linux, Windows, macOS."""
SHADE = 0.3
"""What is left of the brightness behind a label; white text on it is readable on any video."""


def check_target(source: Path, target: Path) -> None:
    """Refuse a copy that :func:`annotate_video` would not write.

    Raises:
        ValueError: If the target is the source, or its suffix is none of :data:`SUFFIXES`.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{target}: suffix {target.suffix!r} is none of {', '.join(SUFFIXES)}")
    if source.exists() and target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the video itself; name another file")


def annotate_video(source: Path, target: Path, label: str, probability: float) -> None:
    """Write a copy of a video with a label on it, atomically and frame by frame.

    An .mp4, .webm or .avi has the frame rate and size of the source, of an odd width or height
    without the last column or row. A .gif is made smaller, and of fewer frames, to
    :data:`GIF_SIDE`, :data:`GIF_FPS` and :data:`GIF_FRAMES`; it lasts as long as the source.

    Args:
        source: The video file.
        target: The copy; its suffix chooses the format.
        label: Name of a class.
        probability: Of that class.

    Raises:
        ValueError: If the target is the source or has another suffix.
        VideoError: If the source cannot be used.
        OSError: If the target cannot be written.
    """
    check_target(source, target)
    video = inspect_video(source)
    if video.fault:
        raise VideoError(f"{source}: {video.fault}")
    text = f"{label} {probability:.2f}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", suffix=UNFINISHED
    ) as folder:
        unfinished = Path(folder) / f"video{target.suffix.lower()}"
        write = _write_gif if unfinished.suffix == ".gif" else _write_video
        try:
            write(unfinished, source, video, text)
        except OSError as error:
            raise OSError(f"{target}: {error}") from error
        unfinished.replace(target)


def _write_video(path: Path, source: Path, video: VideoFile, text: str) -> None:
    size = (video.width, video.height)
    codec = CODECS[path.suffix]
    fourcc = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, video.fps, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV {cv2.__version__} cannot write {codec} to {path.suffix} here")
    try:
        for frame in _labelled_frames(source, text, size):
            writer.write(frame)
    finally:
        writer.release()
    written = inspect_video(path).frames  # OpenCV is silent about a full disk
    if written != video.frames:
        raise OSError(f"only {written} of {video.frames} frames were written; is the disk full?")


def _write_gif(path: Path, source: Path, video: VideoFile, text: str) -> None:
    scale = min(1, GIF_SIDE / max(video.width, video.height))
    size = (max(1, round(video.width * scale)), max(1, round(video.height * scale)))
    every = int(np.ceil(max(video.fps / GIF_FPS, video.frames / GIF_FRAMES)))
    edges = np.append(np.arange(0, video.frames, every), video.frames)
    hundredths = np.round(edges * 100 / video.fps)  # the unit of the format
    first, *others = (
        Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        for frame in _labelled_frames(source, text, size, every)
    )
    durations = [int(10 * duration) for duration in np.diff(hundredths)]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def _labelled_frames(
    path: Path, text: str, size: tuple[int, int], every: int = 1
) -> Iterator[np.ndarray]:
    """Yield every n-th frame of a video file, BGR, at a size (width, height), labelled."""
    mask = draw_text(text, *size)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        number = 0
        while capture.grab():
            if number % every == 0:
                readable, frame = capture.retrieve()
                if not readable:
                    raise VideoError(f"{path}: frame {number} cannot be decoded")
                if frame.shape[1::-1] != size:
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                yield put_text(frame, mask)
            number += 1
    finally:
        capture.release()


def draw_text(text: str, width: int, height: int) -> np.ndarray:
    """Draw a line of text to be put on frames; it is made smaller until it fits.

    Args:
        text: What to draw.
        width: Of the frames, in pixels.
        height: Of the frames, in pixels.

    Returns:
        Where the text is, from 0 to 1, with a margin; float32, shape (h, w, 1), at most as large
        as the frames.
    """
    font = ImageFont.truetype(_font_name(text), max(10, round(height / 15)))
    while font.size > 1 and font.getlength(text) + font.size > width:
        font = font.font_variant(size=font.size - 1)
    margin = font.size / 2
    box = (round(font.getlength(text) + 2 * margin), round(sum(font.getmetrics()) + margin))
    image = Image.new("L", (min(box[0], width), min(box[1], height)))
    ImageDraw.Draw(image).text((margin, margin / 2), text, 255, font)
    return np.asarray(image, np.float32)[..., None] / 255


def put_text(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put white text on a darkened ground into the upper left corner.

    Args:
        frame: uint8, shape (H, W, 3); changed in place.
        mask: From :func:`draw_text`, shape (h, w, 1).

    Returns:
        The frame.
    """
    corner = frame[: mask.shape[0], : mask.shape[1]]
    corner[:] = (SHADE * corner * (1 - mask) + 255 * mask).round()
    return frame


def _font_name(text: str) -> str:
    """Choose the first font that has all characters of a text."""
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, 20)
        except OSError:
            continue
        missing = bytes(font.getmask("\uffff"))  # no character; fonts draw a box
        if all(char.isspace() or bytes(font.getmask(char)) != missing for char in text):
            return name
    log.warning("no font found for %r; boxes stand for what %s lacks", text, FONTS[0])
    return FONTS[0]
