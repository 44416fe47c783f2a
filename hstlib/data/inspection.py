"""Hash and decode video files in worker processes, so that a bad file costs only itself."""

import hashlib
import multiprocessing
import resource
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hstlib.data.container import LATER, FaultKind, VideoError, video_error
from hstlib.data.times import Timing
from hstlib.data.video import inspect_video
from hstlib.processes import WorkerError, map_in_processes

SECONDS_PER_FILE = 600
"""Time-out for decoding one file; a decoder that needs longer is taken to hang."""
MAX_MEMORY = 4 * 2**30
"""Most memory of a worker process, in bytes: no file can take all of the machine's."""


class Inspection(BaseModel):
    """State of one video file on disk. A field is None if it could not be determined.

    Attributes:
        bytes: File size.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
        sha256: Hash of the content.
        frames: Number of frames that decode.
        width: Width as shown, in pixels.
        height: Height as shown, in pixels.
        rate: Mean frame rate, in Hz.
        seconds: Time from the first frame to the end of the last.
        timing: Where the times of frames come from: timestamps, or frame number / rate.
        variable: Whether the times between frames differ.
        largest_gap: Longest time between two frames, in seconds.
        codec: Name of the codec.
        kind: Kind of fault.
        fault: What is wrong with the file and the remedy; None if it can be used.
    """

    model_config = ConfigDict(frozen=True)

    bytes: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    rate: float | None = None
    seconds: float | None = None
    timing: Timing | None = None
    variable: bool | None = None
    largest_gap: float | None = None
    codec: str | None = None
    kind: FaultKind | None = None
    fault: str | None = None


def inspect_files(paths: Sequence[Path], workers: int | None) -> Iterator[tuple[Path, Inspection]]:
    """Hash and decode files in parallel.

    Args:
        paths: The files.
        workers: Number of processes; None: one per core.

    Yields:
        Each path once, in any order, with its inspection. A file that crashes its worker process,
        or takes more than ``SECONDS_PER_FILE``, has nothing but a ``kind`` and a ``fault``.
    """
    for path, outcome in map_in_processes(inspect_file, paths, workers, SECONDS_PER_FILE):
        if isinstance(outcome, WorkerError):
            error = worker_fault(path, outcome)
            outcome = Inspection(kind=error.kind, fault=error.reason)
        yield path, outcome


def worker_fault(path: Path, error: WorkerError) -> VideoError:
    """Return the fault of a file whose worker process crashed, timed out or was killed."""
    if error.timed_out:
        return VideoError(path, "timed out", f"is not decoded in {SECONDS_PER_FILE} s; {LATER}")
    if error.exit_code in (-signal.SIGKILL, -signal.SIGTERM):
        reason = "its worker process was killed, perhaps for lack of memory; use fewer workers"
        return VideoError(path, "killed", f"{reason}; {LATER}")
    return VideoError(path, "damaged", "crashes the decoder; fetch the file again")


def limit_memory() -> None:
    """Limit the memory of this process, if it is a worker process."""
    if multiprocessing.parent_process() is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def inspect_file(path: Path) -> Inspection:
    """Hash and decode one file. Whatever goes wrong is its ``fault``, and costs no other file."""
    limit_memory()
    content = {}
    try:
        content |= identity(path)
        content |= asdict(inspect_video(path))
        content["fault"] = content.pop("reason")
    except Exception as error:
        error = video_error(path, error)
        content |= {"kind": error.kind, "fault": error.reason}
    return Inspection(**content)


def identity(path: Path) -> dict[str, int | str]:
    """Return size, time of change and SHA-256 of a file; empty for what is no regular file.

    Raises:
        OSError: If it cannot be read.
    """
    if not path.is_file():
        return {}
    num_bytes, mtime_ns = size_and_mtime(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": num_bytes, "mtime_ns": mtime_ns, "sha256": digest}


def size_and_mtime(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Return the size of a file in bytes and its time of change in ns; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns
