"""Clip store: decoded clips and their optical flow on disk, in memory-mapped shards.

Decoding and flow are too slow to run while a training step waits, so both are done once. A store
is a folder::

    index.json                  settings, decoder, videos, and why some of them cannot be used
    00000/frames.npy            uint8   (N, W, T, S, S, 3)
    00000/flow.npy              float16 (N, W, 2, T, S, S)
    00000/sources.npy           int32   (N, W, T + 1)
    00000/problems.json
    00001/...

for shards of N videos with W clips each. A shard folder exists once the shard is complete, the
index once all shards are; preparing a store again after an interruption writes the missing shards.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hstlib.config import ClipConfig
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.flow import flow_parameters
from hstlib.data.inspection import SECONDS_PER_FILE, worker_fault
from hstlib.data.video import VideoError
from hstlib.files import check_disk_space, complete, lock, remove_leftovers, unfinished_path
from hstlib.processes import WorkerError, map_in_processes

INDEX, PROBLEMS = "index.json", "problems.json"
VERSION = 3
"""Format version of the clips and shards; increment it when either changes."""
MAX_SHARDS = 128  # each is kept open
MIN_SHARD = 4  # videos
OLD_NAMES = {"clips_per_video": "num_windows"}
"""Settings that were renamed since version 3 began, with their old names."""
REMAKE = "remove it and run `python -m hstlib prepare`"


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
        }

    def num_bytes(self, num_videos: int) -> int:
        """Return the size of the arrays for a number of videos."""
        arrays = self.arrays(num_videos).values()
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in arrays)


class ClipStore:
    """Clips of many videos, read without copying.

    Args:
        folder: Folder written by :func:`prepare_store`.

    Attributes:
        folder: Folder of the store.
        config: How the clips were cut.
        clips_per_video: Number of clips of each video.
        problems: For each video that cannot be used, the reason.

    Raises:
        ValueError: If the folder holds no finished store, or one of another format version.
    """

    def __init__(self, folder: Path):
        content = _read_index(folder)
        self.folder = folder
        self.config: ClipConfig = content["clip"]
        self.clips_per_video = self.config.clips_per_video
        self.problems: dict[str, str] = content["problems"]
        self._rows = {name: row for row, name in enumerate(content["files"])}
        self._layout = StoreLayout(folder, tuple(map(Path, content["files"])), self.config)
        self._shards: dict[int, Clips] = {}

    def __contains__(self, path: Path) -> bool:
        return str(path) in self._rows and str(path) not in self.problems

    def read_all(self, path: Path) -> Clips:
        """Read all clips of a video as views of the store; changes to them are not written.

        Raises:
            VideoError: If the video is not in the store or could not be decoded.
        """
        name = str(path)
        if name in self.problems:
            raise VideoError(self.problems[name])
        if name not in self._rows:
            raise VideoError(f"{path}: not in the clip store {self.folder}")
        number, row = divmod(self._rows[name], self._layout.per_shard)
        return Clips(*(array[row] for array in self._open(number)))

    def read(self, path: Path, clip_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        clips = self.read_all(path)
        return clips.frames[clip_index], clips.flow[clip_index]

    def _open(self, number: int) -> Clips:
        if number not in self._shards:
            shard = self._layout.shard(number)
            arrays = (np.load(shard / f"{name}.npy", mmap_mode="c") for name in Clips._fields)
            self._shards[number] = Clips(*arrays)
        return self._shards[number]


class VideoClips:
    """Clips of video files without a store, decoded again at every read.

    Args:
        config: How clips are cut.
    """

    def __init__(self, config: ClipConfig):
        self.config, self.clips_per_video = config, config.clips_per_video

    def __contains__(self, path: Path) -> bool:
        return path.is_file()

    def read_all(self, path: Path) -> Clips:
        """Cut all clips of a video, as :func:`cut_clips` does."""
        return cut_clips(path, self.config)

    def read(self, path: Path, clip_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        clips = cut_clips(path, self.config, clip_index)
        return clips.frames[0], clips.flow[0]


def _read_index(folder: Path) -> dict:
    """Return the content of a store's index, with the settings under their present names."""
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(f"{folder} holds no finished clip store; run `python -m hstlib prepare`")
    content = json.loads(index.read_text())
    version = content.get("version")
    if version != VERSION:
        raise ValueError(f"{folder} holds clips of version {version}, this is {VERSION}; {REMAKE}")
    new_names = {old: new for new, old in OLD_NAMES.items()}
    settings = {new_names.get(name, name): value for name, value in content["clip"].items()}
    try:
        return content | {"clip": ClipConfig.from_flat(settings)}
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; {REMAKE}") from None


def store_key(paths: Sequence[Path], config: ClipConfig) -> str:
    """Return the name of a store: a hash of settings, decoder, and the videos' names, sizes, times.

    The settings are hashed under their old names, so that earlier stores keep their name.
    """
    settings = {OLD_NAMES.get(name, name): value for name, value in config.model_dump().items()}
    text = json.dumps(settings, separators=(",", ":"))
    digest = hashlib.sha256(f"{VERSION}, {_decoder()}, {text}".encode())
    for path in paths:
        stat = path.stat() if path.is_file() else None
        digest.update(os.fsencode(f"{path}|{stat and (stat.st_size, stat.st_mtime_ns)}\n"))
    return digest.hexdigest()[:12]


def _decoder() -> str:
    return f"OpenCV {cv2.__version__}, FFMPEG"


def prepare_store(
    paths: Sequence[Path], config: ClipConfig, parent: Path, workers: int | None = None
) -> ClipStore:
    """Decode videos and compute their flow, unless the store exists already.

    A second process that asks for the same store waits for the first. Videos that are missing or
    cannot be decoded are listed in ``problems`` with the reason.

    Args:
        paths: Video files.
        config: How clips are cut.
        parent: Folder of the store's folder, which is named by :func:`store_key`.
        workers: Number of processes; None: one per core. The store is the same, byte for byte.

    Returns:
        The opened store.

    Raises:
        OSError: If the disk is too small.
    """
    folder = parent / store_key(paths, config)
    with lock(folder):
        if not (folder / INDEX).is_file():
            _prepare(StoreLayout(folder, tuple(paths), config), workers)
    return ClipStore(folder)


def _prepare(layout: StoreLayout, workers: int | None) -> None:
    layout.folder.mkdir(exist_ok=True)
    for number in range(layout.num_shards):
        remove_leftovers(layout.shard(number))
    missing = [n for n in range(layout.num_shards) if not layout.shard(n).is_dir()]
    num_missing = sum(len(layout.shard_paths(number)) for number in missing)
    check_disk_space(
        layout.folder,
        layout.num_bytes(num_missing),
        remedy="choose a smaller size or fewer clips per video",
    )
    with tqdm(total=len(layout.paths), desc="prepare", unit="video", disable=None) as bar:
        bar.update(len(layout.paths) - num_missing)
        for number in _write_shards(layout, missing, workers):
            bar.update(len(layout.shard_paths(number)))
    _write_index(layout)


def _write_index(layout: StoreLayout) -> None:
    problems: dict[str, str] = {}
    for number in range(layout.num_shards):
        problems |= json.loads((layout.shard(number) / PROBLEMS).read_text())
    index = {
        "version": VERSION,
        "decoder": _decoder(),
        "flow": flow_parameters(layout.clip.flow),
        "clip": layout.clip.model_dump(),
        "files": [str(path) for path in layout.paths],
        "problems": problems,
    }
    with complete(layout.folder / INDEX) as unfinished:
        unfinished.write_text(json.dumps(index, indent=1))


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


def _write_shards(
    layout: StoreLayout, numbers: Sequence[int], workers: int | None
) -> Iterator[int]:
    """Write shards in parallel, video by video, and yield the number of each complete one."""
    outcomes: dict[int, list[tuple[_Row, str | None]]] = {number: [] for number in numbers}
    try:
        rows = [row for number in numbers for row in _create_shard(layout, number)]
        for row, outcome in map_in_processes(_write_row, rows, workers, SECONDS_PER_FILE):
            if isinstance(outcome, WorkerError):
                outcome = f"{row.path}: {worker_fault(outcome)}"
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


def _write_row(row: _Row) -> str | None:
    """Decode a video and write its clips to the arrays; return why, if it cannot be used."""
    try:
        clips = cut_clips(row.path, row.clip)
    except VideoError as error:
        return str(error)
    for name, values in zip(Clips._fields, clips, strict=True):
        # Not as a memory map: on a full disk that kills the process instead of raising OSError.
        with (row.folder / f"{name}.npy").open("r+b") as file:
            file.seek(row.from_end * values.nbytes, os.SEEK_END)
            file.write(np.ascontiguousarray(values))
    return None


def _finish_shard(shard: Path, outcomes: list[tuple[_Row, str | None]]) -> None:
    """Write the problems of a shard's videos, and give the folder its final name."""
    outcomes.sort(key=lambda outcome: outcome[0].from_end)
    problems = {str(row.path): problem for row, problem in outcomes if problem}
    folder = outcomes[0][0].folder
    (folder / PROBLEMS).write_text(json.dumps(problems, indent=1))
    folder.rename(shard)
