"""Signals that end a run: schedulers send SIGTERM, Ctrl-C sends SIGINT."""

import builtins
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(SystemExit):
    """The process was asked to stop; its exit code is 143 after SIGTERM, 130 after SIGINT.

    Attributes:
        signal_name: Name of the signal.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal_name = signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise :class:`Stopped` in the block when SIGTERM or SIGINT arrives.

    Notebooks keep their own SIGINT, which interrupts a cell. Outside the main thread, where Python
    allows no handlers, nothing changes.
    """
    numbers = [signal.SIGTERM]
    if not hasattr(builtins, "__IPYTHON__"):
        numbers.append(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != own:  # a loader process, which has inherited the handler
            os._exit(128 + number)
        raise Stopped(number)

    earlier = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
