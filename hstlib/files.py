"""Files and folders that survive a power cut, locks between processes, and free disk space."""

import errno
import glob
import logging
import multiprocessing
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("hstlib")

UNFINISHED = ".unfinished"
"""Suffix of files and folders that are being written."""
SECONDS_BEFORE_WARNING = 0.5
"""How long a process waits for a lock in silence."""
NOT_SUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems that have no locks, or cannot flush a folder."""
REMEDY = (
    "hstlib starts worker processes, which re-import your script; in the script, calls of hstlib "
    'belong under `if __name__ == "__main__":`'
)


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success rename it, on failure delete it.

    After a power cut, ``path`` has its old content or the new one, complete. A killed process
    leaves its temporary file or folder behind; :func:`remove_leftovers` removes it.

    Args:
        path: File or folder to create. An existing file is replaced, an existing folder is not. A
            file gets the mode of any new file in its folder.

    Yields:
        A path in the same folder, where nothing exists yet.

    Raises:
        OSError: If ``path`` is a folder that exists already.
    """
    make_folder(path.parent)
    unfinished = unfinished_path(path)
    remove(unfinished)  # left by a killed process with the same number
    unfinished.touch()
    mode = stat.S_IMODE(unfinished.stat().st_mode)
    unfinished.unlink()
    try:
        yield unfinished
        if unfinished.is_file():
            unfinished.chmod(mode)
        finish(unfinished, path)
    finally:
        remove(unfinished)


def finish(unfinished: Path, path: Path) -> None:
    """Give a file or folder its final name, once all of it is on the disk."""
    flush(unfinished)
    unfinished.rename(path)
    flush_entry(path)


def flush(path: Path) -> None:
    """Wait until the content of a file, or of a folder and all that is in it, is on the disk."""
    for folder, _, names in os.walk(path, topdown=False):
        for file in (Path(folder, name) for name in names):
            if not file.is_symlink():
                _fsync(file)
        _fsync(Path(folder))
    if path.is_file():
        _fsync(path)


def flush_entry(path: Path) -> None:
    """Wait until the name of a file or folder is on the disk, or the fact that it is gone."""
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder.
        if not path.is_dir() or error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, whose names are then on the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_entry(folder)


def unfinished_path(path: Path) -> Path:
    """Return the temporary path next to ``path`` that this process writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock for creating ``path``; log for whom and since when if another process holds it.

    The system releases the lock when its process dies.

    Raises:
        RuntimeError: In a spawned worker that is re-importing the parent's script: parent and
            worker would deadlock.
        OSError: If the file system of ``path`` has no locks.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(REMEDY)
    make_folder(path.parent)
    holder = path.with_name(f".{path.name}.lock")
    file_lock = FileLock(holder, fallback_to_soft=False)
    _acquire(file_lock, path, holder)
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        with suppress(OSError):  # its folder was removed
            holder.write_text("")
        file_lock.release()


def _acquire(file_lock: FileLock, path: Path, holder: Path) -> None:
    """Acquire a lock; before a wait of more than a moment, log who holds it."""
    try:
        try:
            file_lock.acquire(timeout=SECONDS_BEFORE_WARNING)
        except Timeout:
            owner = holder.read_text() or "another process"
            log.warning("%s is in use by %s; waiting until it is free", path, owner)
            file_lock.acquire()
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        raise OSError(
            f"{path}: the file system has no locks ({os.strerror(error.errno)}), so a second "
            "process could damage what the first one writes; choose a folder on another file system"
        ) from error


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of ``path``; call it only under its lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        remove(leftover)


def sweep(folder: Path) -> None:
    """Remove all temporary files and folders in a folder; call it only under the folder's lock."""
    for leftover in folder.glob(f".*{UNFINISHED}"):
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
