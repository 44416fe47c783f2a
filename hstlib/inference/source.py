"""Frames of a camera, a network stream or a file, one after another, at a constant rate."""

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple, TypeVar

import av
import numpy as np
from av.container import InputContainer

from hstlib.data.container import open_video
from hstlib.data.pictures import square_picture
from hstlib.data.times import LONGEST_GAP, MAX_SECONDS, header_rate, may_jump
from hstlib.data.video import TIME_TOLERANCE, decoded_frames

TIMEOUT = 10.0  # seconds without data before a network source counts as gone
LONGEST_LIVE_GAP = 60.0  # seconds between two frames; a longer one is a jump of the clock
GAPS_KEPT = 100_000  # for the duration of the last frame; a camera may run for weeks

CAMERAS = {
    "linux": ("/dev/video{}", "v4l2", {}),
    "darwin": ("{}", "avfoundation", {"framerate": "30"}),  # its default suits few cameras
}
"""File, FFmpeg format and options of a camera, by operating system."""


Content = TypeVar("Content")


class SourceError(ValueError):
    """A camera or a network stream that cannot be opened, or that has stopped sending."""


class Opened(NamedTuple):
    """A source that is open.

    Attributes:
        container: The container.
        stream: Its video stream.
        live: Whether frames come in real time: from a camera, or from an address without an end.
    """

    container: InputContainer
    stream: av.VideoStream
    live: bool


class Tick(NamedTuple):
    """A frame of the source after resampling.

    Attributes:
        number: Number of the frame; its time is ``number / fps``.
        picture: RGB, uint8, shape (size, size, 3).
        read: When it was read, by ``time.monotonic``, in seconds.
    """

    number: int
    picture: np.ndarray
    read: float


@contextmanager
def open_source(source: str) -> Iterator[Opened]:
    """Open a camera by its number, an address such as ``rtsp://...``, or a file.

    Raises:
        SourceError: If the camera or the address cannot be opened, or stops sending.
        VideoError: If the file cannot be used.
    """
    if not source.isdigit() and "://" not in source:
        with open_video(source) as (container, stream):
            yield Opened(container, stream, live=False)
        return
    location, kind, options = _location(source)
    try:
        with av.open(location, format=kind, options=options, timeout=TIMEOUT) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise SourceError(f"{shown(source)}: sends no video that can be decoded here")
            stream.thread_count = 1
            yield Opened(container, stream, live=bool(kind) or container.duration is None)
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise SourceError(f"{shown(source)}: {_reason(error)}") from error


def shown(source: str) -> str:
    """Return a source as it can be printed: without user name and password."""
    return f"camera {source}" if source.isdigit() else re.sub("//[^/@]*@", "//", source)


def _location(source: str) -> tuple[str, str | None, dict[str, str]]:
    """Return what FFmpeg opens: file or address, format (None: found out), options."""
    if not source.isdigit():
        return source, None, {"rtsp_flags": "prefer_tcp"}  # UDP loses packets
    if sys.platform not in CAMERAS:
        raise SourceError(f"camera {source}: cameras have numbers on Linux and macOS; give a URL")
    location, kind, options = CAMERAS[sys.platform]
    return location.format(source), kind, options


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return f"sent nothing for {TIMEOUT:g} s; check the source and the network"
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be read ({reason}); check the address, and whether the source is on"


def read_ticks(opened: Opened, fps: float, size: int, fit: str) -> Iterator[Tick]:
    """Yield the frames that a player shows nearest to 0, 1/fps, 2/fps, ... seconds.

    They are those that :func:`hstlib.data.video.read_video` returns, each as soon as the frame
    after it has been decoded. Times start at the first frame of the source. Where timestamps are
    missing or jump, the usual time between two frames takes their place.

    Args:
        opened: The source.
        fps: Frame rate after resampling, in Hz.
        size: Height and width of the pictures, in pixels.
        fit: ``stretch`` or ``letterbox``.
    """
    aspect = float(opened.stream.sample_aspect_ratio or 1) or 1.0
    converted, picture = None, None
    for number, frame in nearest_frames_so_far(_timed_frames(opened), fps):
        if frame is not converted:
            converted, picture = frame, square_picture(frame, aspect, size, fit)
        yield Tick(number, picture, monotonic())


def nearest_frames_so_far(
    frames: Iterable[tuple[float, Content]], fps: float
) -> Iterator[tuple[int, Content]]:
    """Choose frames as :func:`hstlib.data.video.nearest_frames` does, while they arrive.

    Args:
        frames: Time in seconds and content of every frame; times increase.
        fps: Frame rate after resampling, in Hz.

    Yields:
        Number and content of every frame of the resampled video.
    """
    number, last = 0, None
    gaps: deque[float] = deque(maxlen=GAPS_KEPT)
    for time, frame in frames:
        if last is not None:
            while number / fps < (last[0] + time) / 2 - TIME_TOLERANCE:
                yield number, last[1]
                number += 1
            gaps.append(time - last[0])
        last = time, frame
    if last is not None:
        end = last[0] + (float(np.median(gaps)) / 2 if gaps else 0.5 / fps)
        length = max(1, int(np.ceil((end - TIME_TOLERANCE) * fps)))
        yield from ((later, last[1]) for later in range(number, length))


def _timed_frames(opened: Opened) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield every frame with its time after the first, in seconds; times increase."""
    base, usual_gap = float(opened.stream.time_base), 1 / header_rate(opened.stream)
    longest_gap = LONGEST_GAP if may_jump(opened.stream) else MAX_SECONDS
    longest_gap = LONGEST_LIVE_GAP if opened.live else longest_gap
    first, shift, last = None, 0.0, -usual_gap
    for frame in decoded_frames(opened.container.demux(opened.stream)):
        time = last + usual_gap
        if frame.pts is not None:
            first = frame.pts if first is None else first
            stamped = (frame.pts - first) * base
            if not last < stamped + shift <= last + longest_gap:
                shift = time - stamped
            time = stamped + shift
        yield time, frame
        last = time
