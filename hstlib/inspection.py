"""Hash and decode video files in processes of their own, so that a bad file costs only itself."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import cv2

from hstlib.processes import SECONDS_PER_FILE, check_processes, process_pool, time_limit
from hstlib.video import VideoError, inspect_video

FILES_AT_ONCE = 256
"""At most so many are looked at again when one of them crashes its process."""


def inspect_files(paths: Sequence[Path], workers: int) -> Iterator[tuple[Path, dict]]:
    """Hash and decode files in parallel.

    Args:
        paths: The files.
        workers: Processes.

    Yields:
        Each path once, in any order, with what :func:`inspect_file` found. A file that crashes its
        process, or takes more than ``SECONDS_PER_FILE``, has nothing but a ``fault``.
    """
    left = list(paths)
    while left:
        crashed: list[Path] = []
        with process_pool(min(workers, len(left))) as pool:
            while left and not crashed:
                batch, left = left[:FILES_AT_ONCE], left[FILES_AT_ONCE:]
                futures = _submit(pool, batch)
                for future in as_completed(futures):
                    if not isinstance(future.exception(), BrokenProcessPool):
                        batch.remove(futures[future])
                        yield futures[future], future.result()
                crashed = batch
        if crashed:
            check_processes()
        for path in crashed:  # one of them did it
            yield path, _inspect_alone(path)


def _submit(pool: ProcessPoolExecutor, paths: Sequence[Path]) -> dict[Future, Path]:
    """Hand files to a pool; fewer than all if the first ones break it at once."""
    futures: dict[Future, Path] = {}
    with suppress(BrokenProcessPool):
        for path in paths:
            futures[pool.submit(inspect_file, path, SECONDS_PER_FILE)] = path
    return futures


def _inspect_alone(path: Path) -> dict:
    begin = time.monotonic()
    try:
        with process_pool(1) as pool:
            return pool.submit(inspect_file, path, SECONDS_PER_FILE).result()
    except BrokenProcessPool:
        hangs = time.monotonic() - begin >= SECONDS_PER_FILE
        event = f"is not decoded in {SECONDS_PER_FILE} s" if hangs else "crashes the decoder"
        return {"fault": f"{event}; fetch the file again"}


def inspect_file(path: Path, seconds: float) -> dict:
    """Hash and decode one file; end this process if that takes too long.

    Returns:
        Size in bytes, time of change and SHA-256 of a file that can be read; the fields of
        :class:`hstlib.video.VideoFile` of one that is a video; ``fault``, which is none if the file
        can be used.
    """
    with time_limit(seconds):
        try:
            found = inspect_video(path)
            facts = asdict(found) | {"fault": found.fault}
        except (VideoError, cv2.error) as error:
            facts = {"fault": str(error).removeprefix(f"{path}: ")}
        try:
            return _identity(path) | facts
        except OSError as error:
            return facts | {"fault": facts["fault"] or f"cannot be read ({error.strerror})"}


def _identity(path: Path) -> dict:
    if not path.is_file():
        return {}
    size, time_of_change = stamp(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": size, "mtime_ns": time_of_change, "sha256": digest}


def stamp(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Return size in bytes and time of change of a file; none of both if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns
