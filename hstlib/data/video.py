"""Read a video file as a player shows it: frames chosen by their times.

PyAV opens, probes and decodes. A file is always decoded from its first frame to its last, since
frame counts in headers are often wrong and seeking is inexact; only the frames that are wanted are
converted, so memory does not grow with the length of the video.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av import library_versions
from av.video.reformatter import Interpolation

from hstlib.data.container import FaultKind, VideoError, missing_bytes, open_video

Timing = Literal["timestamps", "index"]
"""Where times come from: the file's timestamps, or frame number / rate if they are unusable."""

LOST_FRAMES_ALLOWED = 3
LOST_SHARE_ALLOWED = 0.05
"""Packets of an intact file that may give no frame: placeholders of packed B-frames, and frames
before the first key frame."""
TIME_TOLERANCE = 1e-6  # seconds; times are rounded to the units of the container
MAX_RATE, USUAL_RATE = 1000.0, 25.0  # Hz; the second where the header gives none that can be
MAX_SECONDS = 1e6  # a wild timestamp or rate must not ask for memory without end


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        frames: Number of frames that decode.
        width: Width as shown, after rotation and pixel aspect, in pixels.
        height: Height as shown, in pixels.
        codec: Name of the codec.
        rate: Mean frame rate, in Hz.
        timing: Where the times of the frames come from.
        variable: Whether the times between frames differ by more than a tenth.
        largest_gap: Longest time between two frames, in seconds.
        seconds: Time from the first frame to the end of the last.
        kind: What is wrong with the file; None if nothing is.
        reason: The fault and its remedy; None if there is none.
    """

    frames: int
    width: int
    height: int
    codec: str
    rate: float
    timing: Timing
    variable: bool
    largest_gap: float
    seconds: float
    kind: FaultKind | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Video:
    """Frames of a video, resampled in time.

    Attributes:
        frames: RGB frames, uint8, shape (N, size, size, 3).
        sources: Number of each frame in the file, int64, shape (N,).
        times: Time of each frame after the first of the file, in seconds, float64, shape (N,).
        length: Number of frames of the whole video at ``fps``.
        fps: Frame rate after resampling, in Hz.
        info: What the file holds.
    """

    frames: np.ndarray
    sources: np.ndarray
    times: np.ndarray
    length: int
    fps: float
    info: VideoInfo


def read_video(
    path: str | Path,
    *,
    size: int,
    fps: float = 16.0,
    fit: str = "stretch",
    choose: Callable[[int], Sequence[int]] = range,
) -> Video:
    """Decode a whole file and convert the frames that are wanted.

    Paper: section 4, "decode the short videos with a frame rate of 16fps, and resize all frames".
    Frame k of the resampled video is the one that a player shows nearest to k / ``fps`` seconds
    after the first.

    Args:
        path: Video file.
        size: Height and width of the frames, in pixels.
        fps: Frame rate after resampling, in Hz. A slower file repeats frames.
        fit: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads with black.
        choose: Gets the number of frames of the resampled video and returns the indices of those
            that are wanted, by default all.

    Raises:
        VideoError: If the file cannot be used; its ``kind`` says why.
        ValueError: If ``size`` or ``fps`` is not positive, or ``fit`` is unknown.
    """
    if size < 1 or not fps > 0:
        raise ValueError(f"size {size} and fps {fps:g} must both be positive")
    if fit not in ("stretch", "letterbox"):
        raise ValueError(f"fit {fit!r} is unknown; use 'stretch' or 'letterbox'")
    wanted = _expected_sources(path, fps, choose)
    while True:
        info, times, pictures = _decode(path, wanted, size, fit)
        if info.kind:
            raise VideoError(path, info.kind, info.reason)
        nearest = nearest_frames(times, fps)
        sources = nearest[np.asarray(choose(len(nearest)), dtype=np.int64)]
        wanted = set(sources.tolist())
        if wanted <= pictures.keys():
            break  # else the file holds other frames than its packets announce: once more
    frames = np.stack([pictures[source] for source in sources.tolist()])
    return Video(frames, sources, times[sources], len(nearest), fps, info)


def decoder_version() -> str:
    """Return the versions of what decodes, to be stored with everything that was decoded."""
    major, minor, micro = library_versions["libavcodec"]
    return f"PyAV {av.__version__}, libavcodec {major}.{minor}.{micro}"


def inspect_video(path: str | Path) -> VideoInfo:
    """Decode a whole file without converting its frames.

    Raises:
        VideoError: If the file is missing, cannot be read, or is not a video that can be decoded.
            A file that was cut off or is damaged is described by ``kind`` and ``reason`` instead.
    """
    return _decode(path, set(), 0, "stretch")[0]


def nearest_frames(times: np.ndarray, fps: float) -> np.ndarray:
    """Return which frame of a file a player shows nearest to each of 0, 1/fps, 2/fps, ...

    Args:
        times: Time of every frame after the first, in seconds, increasing, shape (N,).
        fps: Frame rate after resampling, in Hz.

    Returns:
        int64; the last frame counts until half a frame after its time. Halfway between two frames
        the later one is nearest.
    """
    end = times[-1] + (np.median(np.diff(times)) / 2 if len(times) > 1 else 0.5 / fps)
    length = max(1, int(np.ceil((end - TIME_TOLERANCE) * fps)))
    halfway = (times[:-1] + times[1:]) / 2 - TIME_TOLERANCE
    return np.searchsorted(halfway, np.arange(length) / fps, side="right")


def square_picture(frame: av.VideoFrame, aspect: float, size: int, fit: str) -> np.ndarray:
    """Convert a decoded frame to a square picture, as shown.

    Args:
        frame: Decoded frame.
        aspect: Width of a pixel divided by its height.
        size: Height and width of the result, in pixels.
        fit: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads with black.

    Returns:
        RGB, uint8, shape (size, size, 3).
    """
    if fit == "stretch":
        return picture(frame, size, size)
    width, height = _shown_size(frame, aspect)
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (size - height) // 2, (size - width) // 2
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = picture(frame, width, height)
    return canvas


def picture(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Convert a decoded frame to RGB at a size as shown, after rotation: (height, width, 3)."""
    if frame.rotation % 180:
        width, height = height, width
    # AREA averages where the picture gets smaller, as OpenCV's INTER_AREA does.
    method = Interpolation.AREA if width < frame.width else Interpolation.BILINEAR
    # More threads cost twice the time of one; the pixels are the same.
    pixels = frame.reformat(width, height, "rgb24", interpolation=method, threads=1).to_ndarray()
    return np.rot90(pixels, frame.rotation // 90)


def read_pictures(path: str | Path, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield every frame of a video file in order, RGB, at a size as shown: (height, width, 3).

    Raises:
        VideoError: If the file cannot be opened.
    """
    with open_video(path) as (container, stream):
        for frame in _frames(container, stream, _Decoding()):
            yield picture(frame, width, height)


def _expected_sources(path: str | Path, fps: float, choose: Callable) -> set[int]:
    """Return the frames that will be wanted if every packet gives a frame, without decoding.

    An AVI file often has one or two packets more than frames, so the choices for fewer are added.
    """
    with open_video(path) as (container, stream):
        pts = [p.pts for p in _packets(container, stream) if p.size and not p.is_discard]
        stored = sorted(set(pts) - {None})
        in_order = "avi" in container.format.name and stream.codec_context.has_b_frames
        is_usable = len(stored) == len(pts) and not in_order
        times, _ = _times(stored if is_usable else [None] * len(pts), stream)
    counts = range(len(times), max(len(times) - 3, 0), -1)
    return {
        int(nearest[index])
        for nearest in (nearest_frames(times[:count], fps) for count in counts)
        for index in choose(len(nearest))
    }


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of a stream; a container that ends in the middle of one just ends."""
    try:
        yield from container.demux(stream)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return


@dataclass
class _Decoding:
    """Counts of decoding a file from its first to its last packet.

    Attributes:
        pts: Timestamp of every frame, in units of the stream; None where it has none.
        packets: Number of packets that should give a frame.
        errors: Number of packets that the decoder refused.
    """

    pts: list[int | None] = field(default_factory=list)
    packets: int = 0
    errors: int = 0


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, decoding: _Decoding
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream in the order in which they are shown, and count on the way."""
    for packet in _packets(container, stream):
        decoding.packets += bool(packet.size) and not packet.is_discard
        try:
            frames = packet.decode()
        except MemoryError:  # it says nothing about the packet
            raise
        except av.error.FFmpegError:
            decoding.errors += 1
            continue
        for frame in frames:
            yield frame
            decoding.pts.append(frame.pts)


def _decode(
    path: str | Path, wanted: set[int], size: int, fit: str
) -> tuple[VideoInfo, np.ndarray, dict[int, np.ndarray]]:
    """Decode a file; return its description, the times of its frames and the wanted pictures."""
    decoding, pictures, shown = _Decoding(), {}, (0, 0)
    with open_video(path) as (container, stream):
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        for number, frame in enumerate(_frames(container, stream, decoding)):
            if number == 0:
                shown = _shown_size(frame, aspect)
            if number in wanted:
                pictures[number] = square_picture(frame, aspect, size, fit)
        times, timing = _times(decoding.pts, stream)
        info = _describe(path, stream, decoding, times, timing, shown)
    return info, times, pictures


def _shown_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    width, height = round(frame.width * aspect), frame.height
    return (height, width) if frame.rotation % 180 else (width, height)


def _times(pts: Sequence[int | None], stream: av.VideoStream) -> tuple[np.ndarray, Timing]:
    """Return the time of every frame after the first, in seconds, and where it comes from."""
    if pts and None not in pts:
        times = np.array([int(value) - int(pts[0]) for value in pts]) * float(stream.time_base)
        if len(pts) > 1 and (np.diff(times) > 0).all() and times[-1] < MAX_SECONDS:
            return times, "timestamps"
    rate = _rate(stream)
    return np.arange(len(pts)) / (rate if len(pts) / rate < MAX_SECONDS else USUAL_RATE), "index"


def _rate(stream: av.VideoStream) -> float:
    """Return the frame rate that the header gives, in Hz, or 25 if it gives none that can be."""
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    if stream.start_time is None:  # a raw stream: only its codec knows, the rest is a guess
        rates = (stream.codec_context.framerate, *rates)
    return next((float(rate) for rate in rates if rate and 0 < rate <= MAX_RATE), USUAL_RATE)


def _describe(
    path: str | Path,
    stream: av.VideoStream,
    decoding: _Decoding,
    times: np.ndarray,
    timing: Timing,
    shown: tuple[int, int],
) -> VideoInfo:
    gaps = np.diff(times) if len(times) > 1 else np.array([1 / _rate(stream)])
    seconds = float(times[-1] + np.median(gaps)) if len(times) else 0.0
    kind, reason = _fault(path, stream, decoding, seconds)
    return VideoInfo(
        frames=len(times),
        width=shown[0],
        height=shown[1],
        codec=stream.codec_context.codec.canonical_name,
        rate=round(len(times) / seconds, 6) if seconds else 0.0,
        timing=timing,
        variable=bool(gaps.max() - gaps.min() > 0.1 * np.median(gaps)),
        largest_gap=round(float(gaps.max()), 6),
        seconds=round(seconds, 6),
        kind=kind,
        reason=reason,
    )


def _fault(
    path: str | Path, stream: av.VideoStream, decoding: _Decoding, seconds: float
) -> tuple[FaultKind, str] | tuple[None, None]:
    """Return what decoding a file showed to be wrong; what its header claims is no evidence."""
    num_frames, packets = len(decoding.pts), decoding.packets
    if missing := missing_bytes(Path(path)):
        lack = f"{missing:,} bytes are missing at the end, {num_frames} frames decode"
        return "cut off", f"{lack}; fetch the file again"
    allowed = max(LOST_FRAMES_ALLOWED, LOST_SHARE_ALLOWED * packets)
    if not num_frames or packets - num_frames > allowed or decoding.errors > allowed:
        return "damaged", f"{num_frames} of {packets} frames decode; fetch the file again"
    announced = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if announced - seconds > max(1.0, LOST_SHARE_ALLOWED * announced):
        return "cut off", f"ends after {seconds:.1f} of {announced:.1f} s; fetch the file again"
    return None, None
