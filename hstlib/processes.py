"""Processes that decode videos: one thread each, ended with their parent, and with a time limit."""

import faulthandler
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import cv2

from hstlib.files import REMEDY

SECONDS_PER_FILE = 600
"""A decoder that needs longer is taken to hang."""


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Start processes for work with OpenCV, whose threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker)


def check_processes() -> None:
    """Tell a file that ends its process from a script that no process can be started for.

    Raises:
        RuntimeError: If none can be started; with the remedy.
    """
    try:
        with process_pool(1) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise RuntimeError(f"no process can be started; {REMEDY}") from None


def _start_worker() -> None:
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Keep no process waiting for work from one that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, even in a library that never returns."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
