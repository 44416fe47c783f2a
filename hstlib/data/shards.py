"""Shards of a clip store: one file with the clips of one video, named after the video's content."""

import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hstlib.config import ClipConfig
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.container import LATER, VideoError, first_bytes, video_error
from hstlib.data.index import StoredVideo, video_name
from hstlib.data.inspection import (
    SECONDS_PER_FILE,
    identity,
    limit_memory,
    size_and_mtime,
    worker_fault,
)
from hstlib.files import make_folder, remove, unfinished_path
from hstlib.processes import WorkerError, map_in_processes


@dataclass(frozen=True)
class StoreLayout:
    """Where a store keeps its clips; stores with the same settings share them.

    Attributes:
        folder: Folder of the store.
        clip: How clips are cut.
    """

    folder: Path
    clip: ClipConfig

    def shard(self, sha256: str) -> Path:
        """Return the file with the clips of a video, which is named after the video's content."""
        return self.folder.parent / "clips" / sha256[:2] / f"{sha256}.npy"

    @cached_property
    def record(self) -> np.dtype:
        """The one record of a shard: the arrays of :class:`Clips`, and their CRC-32."""
        size, num_frames = self.clip.size, self.clip.num_frames
        clips = self.clip.clips_per_video
        arrays = [  # aligned in this order
            ("times", np.float64, (clips, num_frames + 1)),
            ("sources", np.int32, (clips, num_frames + 1)),
            ("flow", np.float16, (clips, 2, num_frames, size, size)),
            ("frames", np.uint8, (clips, num_frames, size, size, 3)),
            ("crc32", np.uint8, 4),
        ]
        try:
            return np.dtype(arrays)
        except ValueError as error:
            raise ValueError(
                f"size {size}: {clips} clips of {num_frames} frames take more than 2 GB for each "
                "video; choose a smaller size or fewer clips per video"
            ) from error

    @cached_property
    def num_bytes(self) -> int:
        """Size of a shard."""
        header = io.BytesIO()
        np.lib.format.write_array(header, np.empty(0, self.record))  # as long as that of one record
        return len(header.getvalue()) + self.record.itemsize


class DamagedShard(ValueError):
    """A shard that is not as it was written."""


def read_shard(layout: StoreLayout, sha256: str, check: bool = True) -> Clips:
    """Read the clips of a video as views of its shard; changes to them are not written.

    Args:
        layout: The store.
        sha256: Hash of the video's content.
        check: Whether all bytes are read and compared with their CRC-32, which finds every flipped
            bit.

    Raises:
        DamagedShard: If the shard is missing or changed on the disk; the message names it.
    """
    file = layout.shard(sha256)
    try:
        record = np.load(file, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise DamagedShard(f"{file} is missing") from None
    except OSError:
        raise
    except Exception as error:  # whatever a changed header makes of it
        raise DamagedShard(f"{file} changed on the disk") from error
    if record.dtype != layout.record or record.shape != (1,):
        raise DamagedShard(f"{file} changed on the disk")
    if check and record["crc32"][0].tobytes() != _crc32(record, sha256):
        raise DamagedShard(f"{file} changed on the disk")
    return Clips(*(record[name][0] for name in Clips._fields))


def is_whole(layout: StoreLayout, sha256: str) -> bool:
    """Return whether the shard of a video is there and has its full length."""
    try:
        size = layout.shard(sha256).stat().st_size
    except OSError:
        return False
    return size == layout.num_bytes


def flush_shards(layout: StoreLayout, hashes: Iterable[str]) -> None:
    """Wait until shards and their names are on the disk, many at a time, which is much faster."""
    files = [layout.shard(sha256) for sha256 in hashes]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(_flush, files))
        list(pool.map(_flush, {file.parent for file in files}))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _crc32(record: np.ndarray, sha256: str) -> bytes:
    """Return the checksum of a record and of the video that it belongs to."""
    content = record.view(np.uint8)[: -record.dtype["crc32"].itemsize]
    return zlib.crc32(content, zlib.crc32(bytes.fromhex(sha256))).to_bytes(4, "big")


def seal(record: np.ndarray, sha256: str) -> None:
    """Write the checksum of a record into it.

    Args:
        record: Record of a shard, shape (1,).
        sha256: Hash of the content of the video.
    """
    record["crc32"][0] = np.frombuffer(_crc32(record, sha256), np.uint8)


def _write_shard(layout: StoreLayout, sha256: str, clips: Clips) -> None:
    """Write a shard in one piece: a killed process leaves an unfinished file in the store's folder.

    Raises:
        OSError: If the disk is full.
    """
    record, file = np.empty(1, layout.record), layout.shard(sha256)
    for name, values in zip(Clips._fields, clips, strict=True):
        record[name][0] = values
    seal(record, sha256)
    unfinished = unfinished_path(layout.folder / sha256)
    try:
        with unfinished.open("wb") as out:
            np.lib.format.write_array(out, record)
        make_folder(file.parent)
        unfinished.rename(file)  # flush_shards follows, before the index is written
    finally:
        remove(unfinished)


@dataclass(frozen=True)
class _Task:
    layout: StoreLayout
    path: Path


def store_videos(
    layout: StoreLayout, paths: Sequence[Path], workers: int | None
) -> Iterator[tuple[Path, StoredVideo]]:
    """Cut the clips of videos in parallel, and yield every video once, in any order.

    Whatever goes wrong with a file costs that file only. Clips that are there already, of a video
    with the same content, are used again.

    Raises:
        OSError: If the clips cannot be written, for example because the disk is full.
    """
    tasks = [_Task(layout, path) for path in paths]
    for task, outcome in map_in_processes(_store_video, tasks, workers, SECONDS_PER_FILE):
        if isinstance(outcome, WorkerError):
            error = worker_fault(task.path, outcome)
            outcome = StoredVideo(video_name(task.path), kind=error.kind, reason=error.reason)
        yield task.path, outcome


def _store_video(task: _Task) -> StoredVideo:
    limit_memory()
    layout, path = task.layout, task.path
    video, is_new = StoredVideo(video_name(path)), False
    try:
        first_bytes(path)
        video = video._replace(**identity(path))
        try:
            clips = read_shard(layout, video.sha256)
        except DamagedShard:
            clips, is_new = cut_clips(path, layout.clip), True
        if size_and_mtime(path) != (video.bytes, video.mtime_ns):
            raise VideoError(path, "unreadable", f"changed while it was read; {LATER}")
    except Exception as error:
        error = video_error(path, error)
        return video._replace(kind=error.kind, reason=error.reason)
    if is_new:
        _write_shard(layout, video.sha256, clips)
    return video._replace(repeats=clips.repeats)
