"""Read a video file as a player shows it: frames chosen by their times.

PyAV opens, probes and decodes. A file is always decoded from its first frame to its last, since
frame counts in headers are often wrong and seeking is inexact; only the frames that are wanted are
converted, so memory does not grow with the length of the video.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av import library_versions

from hstlib.data.container import FaultKind, VideoError, missing_bytes, open_video
from hstlib.data.pictures import picture, shown_size, square_picture
from hstlib.data.times import Timing, frame_times, header_rate, may_jump

LOST_FRAMES_ALLOWED = 3
LOST_SHARE_ALLOWED = 0.05
"""Packets of an intact file that may give no frame: placeholders of packed B-frames, and frames
before the first key frame."""
TIME_TOLERANCE = 1e-6  # seconds; times are rounded to the units of the container
MAX_KEPT = 2**23  # bytes of packets that are kept in memory, so that the file is opened once


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


_Decoded = tuple[VideoInfo, np.ndarray, dict[int, np.ndarray]]
"""What a file holds, the times of its frames, and the wanted pictures by number of the frame."""


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
    wanted, decoded = _read_expected(path, size, fps, fit, choose)
    while True:
        info, times, pictures = decoded or _decode(path, wanted, size, fit)
        if info.kind:
            raise VideoError(path, info.kind, info.reason)
        nearest = nearest_frames(times, fps)
        sources = nearest[np.asarray(choose(len(nearest)), dtype=np.int64)]
        wanted = set(sources.tolist())
        if wanted <= pictures.keys():
            break
        decoded = None  # the file holds other frames than its packets announce: once more
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


def read_pictures(path: str | Path, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield every frame of a video file in order, RGB, at a size as shown: (height, width, 3).

    Raises:
        VideoError: If the file cannot be opened.
    """
    with open_video(path) as (container, stream):
        for frame in decoded_frames(_packets(container, stream)):
            yield picture(frame, width, height)


def _read_expected(
    path: str | Path, size: int, fps: float, fit: str, choose: Callable
) -> tuple[set[int], _Decoded | None]:
    """Return the frames that will be wanted if every packet gives a frame, and what decoding gives.

    None for a file whose packets are too large to keep: it is opened again to be decoded.
    """
    with open_video(path) as (container, stream):
        pts, packets, num_bytes = [], [], 0
        for packet in _packets(container, stream):
            if packet.size and not packet.is_discard:
                pts.append(packet.pts)
            num_bytes += packet.size
            packets.append(packet)
            if num_bytes > MAX_KEPT:
                packets.clear()
        wanted = _expected_sources(container, stream, pts, fps, choose)
        if num_bytes > MAX_KEPT:
            return wanted, None
        return wanted, _decode_packets(path, stream, packets, wanted, size, fit)


def _expected_sources(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    pts: list[int | None],
    fps: float,
    choose: Callable,
) -> set[int]:
    """Return the frames that will be wanted if the packets with these timestamps give one each.

    Without usable timestamps, as in an AVI file, there are often one or two packets more than
    frames, so the choices for fewer are added.
    """
    stored = sorted(set(pts) - {None})
    in_order = "avi" in container.format.name and stream.codec_context.has_b_frames
    is_usable = len(stored) == len(pts) and not in_order
    times, _ = frame_times(stored if is_usable else [None] * len(pts), stream)
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
        lead: Number of packets before the first key frame. A recording may begin between two key
            frames; like a player, the decoder shows it from the first one.
        packets: Number of packets that should give a frame, from the first key frame on.
        errors: Number of these packets that the decoder refused.
    """

    pts: list[int | None] = field(default_factory=list)
    lead: int = 0
    packets: int = 0
    errors: int = 0


def decoded_frames(
    packets: Iterable[av.Packet], decoding: _Decoding | None = None
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream in the order in which they are shown, and count on the way.

    Packets that the decoder refuses are left out.
    """
    decoding = decoding or _Decoding()
    for packet in packets:
        if packet.size and not packet.is_discard:
            if packet.is_keyframe or decoding.packets:
                decoding.packets += 1
            else:
                decoding.lead += 1
        try:
            frames = packet.decode()
        except MemoryError:  # it says nothing about the packet
            raise
        except av.error.FFmpegError:
            decoding.errors += bool(decoding.packets)
            continue
        for frame in frames:
            yield frame
            decoding.pts.append(frame.pts)


def _decode(path: str | Path, wanted: set[int], size: int, fit: str) -> _Decoded:
    with open_video(path) as (container, stream):
        return _decode_packets(path, stream, _packets(container, stream), wanted, size, fit)


def _decode_packets(
    path: str | Path,
    stream: av.VideoStream,
    packets: Iterable[av.Packet],
    wanted: set[int],
    size: int,
    fit: str,
) -> _Decoded:
    decoding, pictures, shown = _Decoding(), {}, (0, 0)
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    for number, frame in enumerate(decoded_frames(packets, decoding)):
        if number == 0:
            shown = shown_size(frame, aspect)
        if number in wanted:
            pictures[number] = square_picture(frame, aspect, size, fit)
    times, timing = frame_times(decoding.pts, stream)
    return _describe(path, stream, decoding, times, timing, shown), times, pictures


def _describe(
    path: str | Path,
    stream: av.VideoStream,
    decoding: _Decoding,
    times: np.ndarray,
    timing: Timing,
    shown: tuple[int, int],
) -> VideoInfo:
    gaps = np.diff(times) if len(times) > 1 else np.array([1 / header_rate(stream)])
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
    num_frames, packets = len(decoding.pts), decoding.packets or decoding.lead
    if missing := missing_bytes(Path(path)):
        lack = f"{missing:,} bytes are missing at the end, {num_frames} frames decode"
        return "cut off", f"{lack}; fetch the file again"
    allowed = max(LOST_FRAMES_ALLOWED, LOST_SHARE_ALLOWED * packets)
    if not num_frames or packets - num_frames > allowed or decoding.errors > allowed:
        return "damaged", f"{num_frames} of {packets} frames decode; fetch the file again"
    is_claim = stream.duration and not may_jump(stream)  # else it is read from the clock
    announced = float(stream.duration * stream.time_base) if is_claim else 0.0
    if announced - seconds > max(1.0, LOST_SHARE_ALLOWED * announced):
        return "cut off", f"ends after {seconds:.1f} of {announced:.1f} s; fetch the file again"
    return None, None
