"""When the frames of a video are shown.

The clock of some containers, such as MPEG transport streams, may jump: where recordings were
joined, or where it wraps around. As in a player, the next frame follows at the usual time there.
"""

from collections.abc import Sequence
from typing import Literal

import av
import numpy as np

Timing = Literal["timestamps", "index"]
"""Where times come from: the file's timestamps, or frame number / rate if they are unusable."""
MAX_RATE, USUAL_RATE = 1000.0, 25.0  # Hz; the second where the header gives none that can be
LONGEST_GAP = 10.0  # seconds; FFmpeg's limit too
MAX_SECONDS = 1e6  # a wild timestamp or rate must not ask for memory without end


def frame_times(pts: Sequence[int | None], stream: av.VideoStream) -> tuple[np.ndarray, Timing]:
    """Return the time of every frame after the first, in seconds, and where it comes from."""
    if pts and None not in pts:
        times = np.array([int(value) - int(pts[0]) for value in pts]) * float(stream.time_base)
        if may_jump(stream):
            times = _without_jumps(times)
        if len(pts) > 1 and (np.diff(times) > 0).all() and times[-1] < MAX_SECONDS:
            return times, "timestamps"
    rate = header_rate(stream)
    return np.arange(len(pts)) / (rate if len(pts) / rate < MAX_SECONDS else USUAL_RATE), "index"


def may_jump(stream: av.VideoStream) -> bool:
    """Return whether the clock of a stream's container may jump."""
    return bool(stream.container.format.flags & av.format.Flags.ts_discont.value)


def _without_jumps(times: np.ndarray) -> np.ndarray:
    """Put the usual time between two frames in the place of each jump, back or far ahead."""
    gaps = np.diff(times)
    if not (gaps > 0).any():
        return times
    usual = np.median(gaps[gaps > 0])
    jumps = (gaps <= 0) | (gaps > max(LONGEST_GAP, 10 * usual))
    return np.concatenate([times[:1], np.cumsum(np.where(jumps, usual, gaps))])


def header_rate(stream: av.VideoStream) -> float:
    """Return the frame rate that the header gives, in Hz, or 25 if it gives none that can be."""
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    if stream.start_time is None:  # a raw stream: only its codec knows, the rest is a guess
        rates = (stream.codec_context.framerate, *rates)
    return next((float(rate) for rate in rates if rate and 0 < rate <= MAX_RATE), USUAL_RATE)
