"""Shards of a clip store: their layout, and how they are written."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from hstlib.config import ClipConfig
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.container import FaultKind, VideoError
from hstlib.data.inspection import SECONDS_PER_FILE, worker_fault
from hstlib.files import remove_leftovers, unfinished_path
from hstlib.processes import WorkerError, map_in_processes

VIDEOS = "videos.json"
MAX_SHARDS = 128  # each is kept open
MIN_SHARD = 4  # videos


class StoredVideo(BaseModel):
    """One video of a store.

    Attributes:
        path: Video file.
        sha256: Hash of its clips; None if it cannot be used.
        repeats: Largest number of frames of a clip that repeat another, in a video that is short.
        kind: Kind of fault; None if the video can be used.
        reason: What is wrong with the file and the remedy.
    """

    path: str
    sha256: str | None = None
    repeats: int = 0
    kind: FaultKind | None = None
    reason: str | None = None

    @property
    def error(self) -> VideoError:
        """The error that reading the clips of this video raises."""
        return VideoError(self.path, self.kind, self.reason)


@dataclass(frozen=True)
class StoreLayout:
    """Shards of a store, their videos and arrays; independent of the number of processes.

    Attributes:
        folder: Folder of the store.
        paths: Videos, in the order of the shards.
        clip: How clips are cut.
    """

    folder: Path
    paths: tuple[Path, ...]
    clip: ClipConfig

    @property
    def per_shard(self) -> int:
        """Videos per shard; the last shard may have fewer."""
        return max(MIN_SHARD, -(-len(self.paths) // MAX_SHARDS))

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.paths) // self.per_shard)

    def shard(self, number: int) -> Path:
        """Return the folder of a shard."""
        return self.folder / f"{number:05d}"

    def shard_paths(self, number: int) -> tuple[Path, ...]:
        """Return the videos of a shard, in the order of its rows."""
        return self.paths[number * self.per_shard : (number + 1) * self.per_shard]

    def arrays(self, num_videos: int) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Return name, type and shape of the arrays for a number of videos."""
        size, num_frames = self.clip.size, self.clip.num_frames
        clips = num_videos, self.clip.clips_per_video
        return {
            "frames": (np.uint8, (*clips, num_frames, size, size, 3)),
            "flow": (np.float16, (*clips, 2, num_frames, size, size)),
            "sources": (np.int32, (*clips, num_frames + 1)),
            "times": (np.float64, (*clips, num_frames + 1)),
        }

    def num_bytes(self, num_videos: int) -> int:
        """Return the size of the arrays for a number of videos."""
        arrays = self.arrays(num_videos).values()
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in arrays)


def clips_sha256(clips: Clips) -> str:
    """Return the hash of a video's clips."""
    digest = hashlib.sha256()
    for array in clips:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Row:
    """One video to write to a shard.

    Attributes:
        path: The video.
        clip: How clips are cut.
        shard: Number of the shard.
        folder: Unfinished folder of the shard.
        from_end: Row in the arrays, counted from the end: -1 is the last.
    """

    path: Path
    clip: ClipConfig
    shard: int
    folder: Path
    from_end: int


def write_shards(layout: StoreLayout, numbers: Sequence[int], workers: int | None) -> Iterator[int]:
    """Write shards in parallel, video by video, and yield the number of each complete one."""
    outcomes: dict[int, list[tuple[_Row, StoredVideo]]] = {number: [] for number in numbers}
    try:
        rows = [row for number in numbers for row in _create_shard(layout, number)]
        for row, outcome in map_in_processes(_write_row, rows, workers, SECONDS_PER_FILE):
            if isinstance(outcome, WorkerError):
                reason = worker_fault(outcome)
                outcome = StoredVideo(path=str(row.path), kind="damaged", reason=reason)
            outcomes[row.shard].append((row, outcome))
            if len(outcomes[row.shard]) == len(layout.shard_paths(row.shard)):
                _finish_shard(layout.shard(row.shard), outcomes.pop(row.shard))
                yield row.shard
    finally:
        for number in numbers:
            remove_leftovers(layout.shard(number))


def _create_shard(layout: StoreLayout, number: int) -> list[_Row]:
    """Create the unfinished folder of a shard, with arrays of zeros; return the rows to write."""
    folder, paths = unfinished_path(layout.shard(number)), layout.shard_paths(number)
    folder.mkdir()
    for name, (dtype, shape) in layout.arrays(len(paths)).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
    return [
        _Row(path, layout.clip, number, folder, from_end)
        for from_end, path in enumerate(paths, start=-len(paths))
    ]


def _write_row(row: _Row) -> StoredVideo:
    """Decode a video and write its clips to the arrays."""
    name = str(row.path)
    try:
        clips = cut_clips(row.path, row.clip)
    except VideoError as error:
        return StoredVideo(path=name, kind=error.kind, reason=error.reason)
    for array, values in zip(Clips._fields, clips, strict=True):
        # Not as a memory map: on a full disk that kills the process instead of raising OSError.
        with (row.folder / f"{array}.npy").open("r+b") as file:
            file.seek(row.from_end * values.nbytes, os.SEEK_END)
            file.write(np.ascontiguousarray(values))
    return StoredVideo(path=name, sha256=clips_sha256(clips), repeats=clips.repeats)


def _finish_shard(shard: Path, outcomes: list[tuple[_Row, StoredVideo]]) -> None:
    """Write what is known of a shard's videos, and give the folder its final name."""
    outcomes.sort(key=lambda outcome: outcome[0].from_end)
    videos = [video.model_dump(exclude_defaults=True) for _, video in outcomes]
    folder = outcomes[0][0].folder
    (folder / VIDEOS).write_text(json.dumps(videos, indent=1))
    folder.rename(shard)
