"""Progress of long work over many files: a bar on a terminal, else lines in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_PER_LINE = 30
"""Time between lines in the log."""
log = logging.getLogger("hstlib")


@contextmanager
def progress(task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show progress from the first second until the block ends.

    Args:
        task: Name of the work.
        total: Number of units.
        unit: What is counted, in the singular.
        done: Number of units that were finished earlier.

    Yields:
        Function to call after each further unit.
    """
    with tqdm(total=total, initial=done, desc=task, unit=unit, disable=None) as bar:
        yield bar.update if not bar.disable else _Lines(task, total, unit, done).update


class _Lines:
    """Progress as lines in the log: at the start, at the end, and every 30 seconds."""

    def __init__(self, task: str, total: int, unit: str, done: int):
        self.task, self.total, self.unit, self.done = task, total, unit, done
        self.left = total - done
        self.begin = self.written = time.monotonic()
        if self.left:
            log.info("%s: %d of %d %ss to do", task, self.left, total, unit)

    def update(self) -> None:
        """Count one unit."""
        self.left -= 1
        now = time.monotonic()
        if self.left and now - self.written < SECONDS_PER_LINE:
            return
        self.written, count = now, self.total - self.left
        seconds = self.left * (now - self.begin) / (count - self.done)
        remaining = f", about {seconds / 60:.0f} min left" if self.left else ""
        log.info("%s: %d of %d %ss%s", self.task, count, self.total, self.unit, remaining)
