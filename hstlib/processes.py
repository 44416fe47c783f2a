"""Worker processes with time-outs, in which a crash costs one item only."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import cv2
from pebble import ProcessExpired, ProcessPool

from hstlib.config import MAX_WORKERS
from hstlib.files import REMEDY

MAX_BREAKS = 3
"""How often in a row all workers may be killed before an item is done."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """An item whose worker process crashed or timed out, twice.

    Attributes:
        timed_out: Whether the worker timed out; otherwise it crashed or was killed.
        exit_code: Exit code of the worker; minus the number of a signal that ended it, such as -9
            if the system killed it for lack of memory. None: it timed out.
    """

    def __init__(self, item: object, exit_code: int | None = None):
        event = "timed out" if exit_code is None else f"crashed (exit code {exit_code})"
        super().__init__(f"{item}: its worker process {event}")
        self.timed_out, self.exit_code = exit_code is None, exit_code


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    seconds: float | None = None,
) -> Iterator[tuple[Item, Result | WorkerError]]:
    """Apply a function to items in parallel.

    An item that crashes its worker process, or times out, is tried a second time in another one.

    Args:
        function: Function of one item, defined at the top level of a module.
        items: The items; they and the results are pickled.
        workers: Number of processes; None: one per core.
        seconds: Time-out per item; None: no time-out.

    Yields:
        Each item once, in any order, with its result, or with a :class:`WorkerError` if it failed
        twice.

    Raises:
        ValueError: If the number of processes is below 1 or above :data:`MAX_WORKERS`.
        RuntimeError: If worker processes cannot start. An exception that the function raises is
            raised here.
        OSError: If all workers are killed several times in a row.
    """
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"workers is {workers}; use 1 to {MAX_WORKERS}")
    workers = min(workers or os.cpu_count() or 1, len(items))
    waiting = deque((item, 1) for item in items)
    breaks = 0
    while waiting:
        try:
            with _process_pool(workers) as pool:
                for result in _map_in_pool(pool, function, waiting, 2 * workers, seconds):
                    breaks = 0
                    yield result
        except BrokenProcessPool as error:  # a worker was killed while it had no item
            breaks += 1
            if breaks == MAX_BREAKS:
                raise OSError(
                    "worker processes were killed again and again, perhaps for lack of memory; "
                    "use fewer workers"
                ) from error


def _map_in_pool(
    pool: ProcessPool,
    function: Callable[[Item], Result],
    waiting: deque[tuple[Item, int]],
    limit: int,
    seconds: float | None,
) -> Iterator[tuple[Item, Result | WorkerError]]:
    """Apply a function to the waiting items; if the pool breaks, all that are not done wait."""
    running: dict[Future, tuple[Item, int]] = {}
    try:
        while waiting or running:
            # Few at a time: if the pool breaks, tasks that wait for its full pipe never complete.
            while waiting and len(running) < limit:
                item, _ = waiting[0]
                running[_schedule(pool, function, item, seconds)] = waiting.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item, attempt = running[future]
                outcome = _outcome(future, item)
                del running[future]
                if isinstance(outcome, WorkerError) and attempt == 1:
                    waiting.appendleft((item, 2))
                else:
                    yield item, outcome
    except BrokenProcessPool:
        waiting.extendleft(running.values())
        raise


def _schedule(
    pool: ProcessPool, function: Callable[[Item], Result], item: Item, seconds: float | None
) -> Future:
    try:
        return pool.schedule(function, [item], timeout=seconds)
    except RuntimeError as error:  # the pool broke since the last result
        raise BrokenProcessPool from error


def _outcome(future: Future, item: Item) -> Result | WorkerError:
    try:
        return future.result()
    except TimeoutError:
        return WorkerError(item)
    except ProcessExpired as error:
        return WorkerError(item, error.exitcode)


@contextmanager
def _process_pool(workers: int) -> Iterator[ProcessPool]:
    """Start worker processes, and stop them when the block ends or raises."""
    spawn = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
    pool = ProcessPool(workers, initializer=_start_worker, context=spawn)
    try:
        try:
            pool.schedule(os.getpid).result()  # fails at once if workers cannot start
        except BrokenProcessPool:
            message = f"worker processes cannot start or were killed; {REMEDY}"
            raise RuntimeError(message) from None
        yield pool
    finally:
        pool.stop()
        pool.join()


def _start_worker() -> None:
    cv2.setNumThreads(0)  # one core per process
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent process dies, even while decoding."""
    multiprocessing.parent_process().join()
    os._exit(1)
