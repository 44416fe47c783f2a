"""Signals that end a run: schedulers send SIGTERM, Ctrl-C sends SIGINT."""

import builtins
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SAME_SIGNAL = 1.0
"""Time in which another signal is no second request, in seconds: many programs send theirs to a
process and to its group."""


class Stopped(SystemExit):
    """The process was asked to stop; its exit code is 143 after SIGTERM, 130 after SIGINT.

    Attributes:
        signal_name: Name of the signal.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal_name = signal.Signals(number).name


@dataclass
class NotedSignal:
    """The signal that waits for the end of an optimiser step.

    Attributes:
        waits: Whether a signal waits; False: it ends the process at once.
        number: Number of the signal; 0: none has arrived.
        time: When it arrived, in seconds.
    """

    waits: bool = False
    number: int = 0
    time: float = 0.0


_noted = NotedSignal()


@contextmanager
def note_signal() -> Iterator[NotedSignal]:
    """Note the first signal of a block that looks at it after each step; a second one raises."""
    global _noted
    _noted = noted = NotedSignal(waits=True)
    try:
        yield noted
    except RuntimeError as error:
        if noted.number and "DataLoader worker" in str(error):  # it had just begun, and got it too
            raise Stopped(noted.number) from error
        raise
    finally:
        _noted = NotedSignal()
    if noted.number:  # it came after the last look
        raise Stopped(noted.number)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise :class:`Stopped` in the block when SIGTERM or SIGINT arrives and is not noted.

    Notebooks keep their own SIGINT, which interrupts a cell. Outside the main thread, where Python
    allows no handlers, nothing changes.
    """
    numbers = [signal.SIGTERM]
    if not hasattr(builtins, "__IPYTHON__"):
        numbers.append(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a loader process that has just begun, see leave_signals_to_main
            return
        if _noted.waits and not _noted.number:
            _noted.number, _noted.time = number, time.monotonic()
        elif not _noted.waits or time.monotonic() - _noted.time > SAME_SIGNAL:
            raise Stopped(number)

    earlier = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def leave_signals_to_main(worker: int) -> None:
    """Make a loader process ignore signals: those of Ctrl-C and schedulers reach it as well."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
