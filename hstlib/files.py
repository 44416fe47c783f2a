"""Files and folders that are either complete or not there."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock

UNFINISHED = ".unfinished"
REMEDY = (
    "every process that hstlib starts reads the script that started it; in that script, calls of "
    'hstlib belong under `if __name__ == "__main__":`'
)


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Give a place beside ``path`` to write a file or a folder to; at the end move it to ``path``.

    An exception removes what was written. What a killed process leaves has the suffix
    ``UNFINISHED`` and a process number in its name.

    Args:
        path: Where the file or folder is to be. A file of that name is replaced, a folder is not.

    Yields:
        A path in the same folder; nothing is there yet.

    Raises:
        OSError: If a folder is to be moved to where one is already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    remove(unfinished)  # of a killed process of the same number
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        remove(unfinished)


def lock(path: Path) -> BaseFileLock:
    """Return a lock on making ``path``, for ``with``; the system frees it when its process dies.

    Raises:
        RuntimeError: In a process that runs its parent's script while it starts, where it would
            wait for the lock of its parent, and that for it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(REMEDY)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of ``path``; only under its lock."""
    for leftover in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
