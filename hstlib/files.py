"""Atomic files and folders, locks between processes, and free disk space."""

import errno
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock

UNFINISHED = ".unfinished"
"""Suffix of files and folders that are being written."""
REMEDY = (
    "hstlib starts worker processes, which re-import your script; in the script, calls of hstlib "
    'belong under `if __name__ == "__main__":`'
)


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success rename it, on failure delete it.

    A killed process leaves its temporary file or folder behind; :func:`remove_leftovers` removes
    it.

    Args:
        path: File or folder to create. An existing file is replaced, an existing folder is not.

    Yields:
        A path in the same folder, where nothing exists yet.

    Raises:
        OSError: If ``path`` is a folder that exists already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(path)
    remove(unfinished)  # left by a killed process with the same number
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        remove(unfinished)


def unfinished_path(path: Path) -> Path:
    """Return the temporary path next to ``path`` that this process writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")


def lock(path: Path) -> BaseFileLock:
    """Return a lock for creating ``path``, to be used with ``with``.

    The system releases the lock when its process dies.

    Raises:
        RuntimeError: In a spawned worker that is re-importing the parent's script: parent and
            worker would deadlock.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(REMEDY)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of ``path``; call it only under its lock."""
    for leftover in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a whole folder if it exists; of a link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_disk_space(folder: Path, num_bytes: int, remedy: str = "") -> None:
    """Check that a folder's disk has room, before work begins that could not finish.

    Args:
        folder: An existing folder.
        num_bytes: Number of bytes to be written.
        remedy: Another remedy for the message, besides a larger disk.

    Raises:
        OSError: If the disk is too small; ``errno`` is ``ENOSPC``.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        error = OSError(
            f"{folder}: {num_bytes:,} bytes are needed, {free:,} are free; make room, or set "
            f"HST_DATA to a folder on a larger disk{remedy and f', or {remedy}'}"
        )
        error.errno = errno.ENOSPC  # as an argument it would become part of the message
        raise error
