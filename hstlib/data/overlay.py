"""Copy a video with a label, or with maps, drawn on every frame."""

import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hstlib.data.container import VideoError, open_video
from hstlib.data.video import VideoInfo, inspect_video, read_pictures
from hstlib.files import UNFINISHED

log = logging.getLogger("hstlib")

CODECS = {".mp4": "vp09", ".webm": "VP80", ".avi": "XVID"}
"""Codec by suffix. OpenCV's wheels have no H.264 encoder; browsers play the first two of these."""
SUFFIXES = (*CODECS, ".gif")
"""Suffixes of the copies that can be written."""
GIF_SIDE, GIF_FPS, GIF_FRAMES = 320, 12.5, 250
"""Maximum width and height (pixels), frame rate (Hz) and number of frames of a GIF."""
FONTS = (
    str(Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts/ttf/DejaVuSans.ttf"),
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
)
"""Fonts in order of preference: Matplotlib's, then those of Linux, Windows and macOS."""
SHADE = 0.3
"""Factor on the brightness behind a label, so that white text is readable on any video."""
HEAT_OPACITY, GREY = 0.85, 0.8
"""Opacity of the strongest colour of a map, and factor on the brightness of the frame under it."""


def check_target(source: Path, target: Path) -> None:
    """Check that :func:`annotate_video` can write a copy.

    Raises:
        ValueError: If the target is the source, or its suffix is none of :data:`SUFFIXES`.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{target}: suffix {target.suffix!r} is none of {', '.join(SUFFIXES)}")
    if source.exists() and target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the video itself; name another file")


def annotate_video(source: Path, target: Path, label: str, probability: float) -> None:
    """Write a copy of a video with a label on it, atomically and frame by frame.

    An .mp4, .webm or .avi keeps the frame rate and size of the source, except that codecs drop the
    last column or row of an odd width or height. A .gif is reduced to :data:`GIF_SIDE`,
    :data:`GIF_FPS` and :data:`GIF_FRAMES`, and keeps the duration of the source.

    Args:
        source: Video file.
        target: File to write; its suffix selects the format.
        label: Name of a class.
        probability: Probability of that class, 0 to 1.

    Raises:
        ValueError: If the target is the source or has another suffix.
        VideoError: If the source cannot be used.
        OSError: If the target cannot be written.
    """

    def size(video: VideoInfo) -> tuple[int, int]:
        is_gif = target.suffix.lower() == ".gif"
        scale = min(1, GIF_SIDE / max(video.width, video.height)) if is_gif else 1
        return max(1, round(video.width * scale)), max(1, round(video.height * scale))

    mask = cache(partial(draw_text, f"{label} {probability:.2f}"))
    copy_video(source, target, size, lambda _, frame: put_text(frame, mask(*frame.shape[1::-1])))


def copy_video(
    source: Path,
    target: Path,
    size: Callable[[VideoInfo], tuple[int, int]],
    draw: Callable[[int, np.ndarray], np.ndarray],
) -> None:
    """Write a copy of a video with every frame drawn anew, atomically; without its sound.

    Args:
        source: Video file.
        target: File to write; its suffix selects the format.
        size: Width and height at which the frames are read, in pixels.
        draw: Picture to write for the number of a frame in the file and the frame, RGB uint8,
            which it may change; all pictures have one size.

    Raises:
        ValueError: If the target is the source or has another suffix.
        VideoError: If the source cannot be used.
        OSError: If the target cannot be written.
    """
    check_target(source, target)
    video = inspect_video(source)
    if video.kind:
        raise VideoError(source, video.kind, video.reason)
    if has_sound(source):
        log.info("%s: the video has no sound, which %s has", target, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", suffix=UNFINISHED
    ) as folder:
        unfinished = Path(folder) / f"video{target.suffix.lower()}"
        write = _write_gif if unfinished.suffix == ".gif" else _write_video
        try:
            write(unfinished, video, partial(_drawn_frames, source, size(video), draw))
        except OSError as error:
            raise OSError(f"{target}: {error}") from error
        unfinished.replace(target)


def has_sound(path: Path) -> bool:
    """Return whether a video file has an audio stream."""
    with open_video(path) as (container, _):
        return bool(container.streams.audio)


Pictures = Callable[[int], Iterator[np.ndarray]]
"""Function of n that yields every n-th picture."""


def _write_video(path: Path, video: VideoInfo, pictures: Pictures) -> None:
    drawn = pictures(1)
    first = next(drawn)
    codec = CODECS[path.suffix]
    fourcc = cv2.VideoWriter_fourcc(*codec)
    size = first.shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, video.rate, size)
    if not writer.isOpened():
        raise OSError(
            f"OpenCV {cv2.__version__} cannot write {codec} to {path.suffix}; use another suffix"
        )
    try:
        for picture in chain([first], drawn):
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    written = inspect_video(path).frames  # OpenCV does not report a full disk
    if written != video.frames:
        raise OSError(f"only {written} of {video.frames} frames were written; is the disk full?")


def _write_gif(path: Path, video: VideoInfo, pictures: Pictures) -> None:
    every = int(np.ceil(max(video.rate / GIF_FPS, video.frames / GIF_FRAMES)))
    frame_numbers = np.append(np.arange(0, video.frames, every), video.frames)
    hundredths = np.round(frame_numbers * 100 / video.rate)  # of a second, the format's unit
    first, *following = (Image.fromarray(picture) for picture in pictures(every))
    durations = [int(10 * duration) for duration in np.diff(hundredths)]
    first.save(path, save_all=True, append_images=following, duration=durations, loop=0)


def _drawn_frames(
    path: Path,
    size: tuple[int, int],
    draw: Callable[[int, np.ndarray], np.ndarray],
    every: int,
) -> Iterator[np.ndarray]:
    """Yield each ``every``-th frame of a video, read at (width, height), drawn anew."""
    for number, frame in islice(enumerate(read_pictures(path, *size)), 0, None, every):
        yield draw(number, np.ascontiguousarray(frame))


def put_heat(frame: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Draw a map over a frame: the frame in grey, and colours where the map is high.

    The colours grow steadily lighter from violet to yellow (OpenCV's plasma), so that they can be
    ordered with every kind of colour vision, and without colours.

    Args:
        frame: RGB, uint8, shape (H, W, 3).
        values: Map, 0 to 1, shape (H, W); where it is 0 the frame alone is seen.

    Returns:
        New frame, RGB, uint8, shape (H, W, 3).
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    levels = np.round(255 * values.clip(0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[..., ::-1]
    opacity = HEAT_OPACITY * values.clip(0, 1)[..., None]
    return ((1 - opacity) * grey * GREY + opacity * colours).round().astype(np.uint8)


def draw_text(text: str, width: int, height: int) -> np.ndarray:
    """Draw a line of text with a margin, in the largest suitable size that fits the frames.

    Args:
        text: Text to draw.
        width: Frame width, in pixels.
        height: Frame height, in pixels.

    Returns:
        Opacity of the text, 0 to 1; float32, shape (h, w, 1), not larger than the frames.
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
    """Draw white text on a darkened background in the upper left corner of a frame.

    Args:
        frame: Frame to change in place, uint8, shape (H, W, 3).
        mask: Opacity from :func:`draw_text`, shape (h, w, 1).

    Returns:
        The same frame.
    """
    corner = frame[: mask.shape[0], : mask.shape[1]]
    corner[:] = (SHADE * corner * (1 - mask) + 255 * mask).round()
    return frame


def _font_name(text: str) -> str:
    """Return the first font that has all characters of a text."""
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, 20)
        except OSError:
            continue
        missing = bytes(font.getmask("\uffff"))  # not a character: fonts draw a box
        if all(char.isspace() or bytes(font.getmask(char)) != missing for char in text):
            return name
    log.warning("no font has all of %r; %s draws boxes for the rest", text, FONTS[0])
    return FONTS[0]
