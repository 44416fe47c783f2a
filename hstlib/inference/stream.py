"""Sliding windows over a camera, a network stream or a file: clips as they arrive."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

import numpy as np

from hstlib.config import ClipConfig
from hstlib.data.flow import optical_flow
from hstlib.inference.source import SourceError, Tick, open_source, read_ticks, shown

SECONDS_BETWEEN_CHECKS = 0.5  # for Ctrl-C, which cannot end an unlimited wait on every system


@dataclass(frozen=True, eq=False)
class Window:
    """One clip of a source.

    Attributes:
        frames: RGB frames, uint8, shape (T, S, S, 3).
        flow: Optical flow in pixels per frame, float16, shape (2, T, S, S).
        start: Time of the first frame after the first of the source, in seconds.
        end: End of the last frame, in seconds.
        skipped: Number of windows that were left out before this one, because they came too late.
        ready: When the window was complete, by ``time.monotonic``, in seconds.
        read: When its last frame was read; None if the source is a recording, which waits for its
            reader.
    """

    frames: np.ndarray
    flow: np.ndarray
    start: float
    end: float
    skipped: int
    ready: float
    read: float | None


def read_windows(source: str, config: ClipConfig, every: float) -> Iterator[Window]:
    """Yield the clips of a source, one every few frames.

    A window is the clip that :func:`hstlib.data.clips.cut_clips` cuts from the same frames: its
    last flow field comes from the frame after it, so a window is complete one frame later. A
    source that is shorter than a window gives one, whose last frame is repeated.

    A recording is read window by window. A live source is always read to its newest frame: if the
    windows are not used as fast as they come, those that are late are left out, so the delay does
    not grow.

    Args:
        source: Number of a camera, address, or file.
        config: How clips are cut.
        every: Time from one window to the next, in seconds; rounded to frames.

    Raises:
        ValueError: If ``every`` is not positive, or clips are spread over whole videos.
        SourceError: If the source cannot be opened, or stops sending.
        VideoError: If the file cannot be used.
    """
    if not 0 < every < float("inf"):
        raise ValueError(f"every is {every:g} seconds, it must be positive and finite")
    if config.sampling != "consecutive":
        raise ValueError(
            f"{shown(source)}: the model's sampling is {config.sampling!r}, its clips span whole "
            "videos; a stream needs a model that was trained with 'consecutive'"
        )
    stride = max(1, round(every * config.fps))
    reader = _Reader(source, config)
    reader.start()
    fields: dict[int, np.ndarray] = {}
    due, seen = 0, False
    try:
        while ticks := reader.wait_for_window(due):
            start, count, ready = ticks[0].number, config.num_frames, monotonic()
            yield Window(
                frames=np.stack([tick.picture for tick in _padded(ticks, count)[:count]]),
                flow=_flow(ticks, config, fields),
                start=start / config.fps,
                end=(start + min(count, len(ticks))) / config.fps,
                skipped=(start - due) // stride,
                ready=ready,
                read=ticks[:count][-1].read if reader.live else None,
            )
            due, seen = start + stride, True
        if not seen:
            raise SourceError(f"{shown(source)}: ended without a frame; check the source")
    finally:
        reader.stop()


def _padded(ticks: list[Tick], count: int) -> list[Tick]:
    """Repeat the last tick of a source that is shorter than a window."""
    return ticks + [ticks[-1]] * (count - len(ticks))


def _flow(ticks: list[Tick], config: ClipConfig, fields: dict[int, np.ndarray]) -> np.ndarray:
    """Return the flow of a window, float16, shape (2, T, S, S).

    Args:
        ticks: Frames of the window, and the one after it if there is one.
        config: How clips are cut.
        fields: Flow by number of the earlier frame; it is completed, and what is no longer needed
            is removed.
    """
    count = config.num_frames
    if len(ticks) <= count:  # the end of the source
        pictures = np.stack([tick.picture for tick in _padded(ticks, count)])
        return optical_flow(pictures, None, config.flow).astype(np.float16)
    for number in [number for number in fields if number < ticks[0].number]:
        del fields[number]
    missing = [tick for tick in ticks if tick.number not in fields]
    if len(missing) > 1:
        pictures = np.stack([tick.picture for tick in missing])
        flow = optical_flow(pictures, None, config.flow).astype(np.float16)
        fields |= {tick.number: flow[:, i] for i, tick in enumerate(missing[:-1])}
    return np.stack([fields[tick.number] for tick in ticks[:-1]], axis=1)


class _Reader(Thread):
    """Reads a source in a thread of its own and keeps the newest frames.

    Args:
        source: Number of a camera, address, or file.
        config: How clips are cut.

    Attributes:
        live: Whether the source is live; False until it is open.
    """

    def __init__(self, source: str, config: ClipConfig):
        super().__init__(name=f"reader of {source}", daemon=True)
        self._source, self._config = source, config
        self._ticks: deque[Tick] = deque(maxlen=config.num_frames + 1)
        self._changed = Condition()
        self._wanted = 0  # number of the last frame that is needed now
        self.live = self._ended = self._stopped = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Read until the source ends or :meth:`stop` is called."""
        config = self._config
        try:
            with open_source(self._source) as opened:
                self.live = opened.live
                for tick in read_ticks(opened, config.fps, config.size, config.fit):
                    if not self._add(tick):
                        return
        except Exception as error:  # raised in the thread that reads windows
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _add(self, tick: Tick) -> bool:
        """Keep a frame, as soon as it is needed if the source is a recording."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.live or self._stopped or tick.number <= self._wanted
            )
            self._ticks.append(tick)
            self._changed.notify_all()
            return not self._stopped

    def wait_for_window(self, due: int) -> list[Tick]:
        """Return the frames of the newest window that starts at ``due`` or later.

        The frame after the window is the last one, except at the end of the source. Empty at the
        end.
        """
        count = self._config.num_frames
        with self._changed:
            self._wanted = due + count
            self._changed.notify_all()
            while not (self._ended or self._newest() >= due + count):
                self._changed.wait(SECONDS_BETWEEN_CHECKS)
            if self._error:
                raise self._error
            ticks, newest = list(self._ticks), self._newest()
        if newest >= due + count:
            return ticks
        is_short = due == 0 and len(ticks) < count
        return ticks[-count:] if is_short or newest == due + count - 1 else []

    def _newest(self) -> int:
        return self._ticks[-1].number if self._ticks else -1

    def stop(self) -> None:
        """End the thread; one that waits for its source ends with the process."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.join(timeout=2)
