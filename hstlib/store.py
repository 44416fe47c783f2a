"""Decoded clips and their flow on disk: memory-mapped shards and one index.

Decoding and flow cost far more than a training step can wait for, so both are done once. A store is
a folder::

    index.json                  settings, decoder, files, and the reasons of those that are unusable
    00000/frames.npy            uint8   (N, W, T, S, S, 3)
    00000/flow.npy              float16 (N, W, 2, T, S, S)
    00000/sources.npy           int32   (N, W, T + 1)
    00000/problems.json
    00001/...

where N videos of W windows lie in a shard. A shard is there when it is complete, the index when
all shards are; preparing that was killed goes on with the shards that are missing.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from hstlib.config import ClipConfig
from hstlib.files import UNFINISHED, complete, lock, remove_leftovers
from hstlib.flow import flow_parameters, optical_flow
from hstlib.processes import SECONDS_PER_FILE, check_processes, process_pool, time_limit
from hstlib.video import VideoError, clip_indices, read_video, window_starts

INDEX, PROBLEMS = "index.json", "problems.json"
VERSION = 3
"""Of what clips hold and how they lie in shards; to be raised when either changes."""
MAX_SHARDS = 128  # each is kept open
MIN_SHARD = 4  # videos, so that a small data set still has work for every core


class Clips(NamedTuple):
    """The clips of one video.

    Attributes:
        frames: RGB, uint8, shape (W, T, S, S, 3).
        flow: Pixels per frame, float16, shape (W, 2, T, S, S).
        sources: Which frame of the file each frame is, and the one after the clip, from which
            its last flow field is made, or -1; int32, shape (W, T + 1).
    """

    frames: np.ndarray
    flow: np.ndarray
    sources: np.ndarray


def cut_clips(path: Path, config: ClipConfig, window: int | None = None) -> Clips:
    """Read the clips of one video file, and compute their flow.

    Args:
        path: The video file.
        config: How many clips, of what size, and which flow.
        window: Only this one of the clips.

    Returns:
        Exactly what a store of these settings holds of the file.

    Raises:
        VideoError: If the file cannot be used.
    """
    video = read_video(path, size=config.size, fps=config.fps, fit=config.fit)
    frames, flow, sources = [], [], []
    starts = window_starts(len(video.frames), config.num_frames, config.num_windows)
    for start in starts if window is None else [starts[window]]:
        chosen = clip_indices(len(video.frames), start, config)
        clip, following = video.frames[chosen[:-1]], chosen[-1]
        after = video.frames[following] if following >= 0 else None
        frames.append(clip)
        flow.append(optical_flow(clip, after, config.flow))
        source = np.floor(chosen * (video.source_fps / video.fps) + 0.5)  # as read_video chose them
        sources.append(np.where(chosen < 0, -1, source))
    return Clips(
        np.stack(frames), np.stack(flow).astype(np.float16), np.stack(sources).astype(np.int32)
    )


@dataclass(frozen=True)
class _Plan:
    """What is to be written, and where; the same for any number of processes."""

    folder: Path
    paths: tuple[Path, ...]
    clip: ClipConfig

    @property
    def per_shard(self) -> int:
        return max(MIN_SHARD, -(-len(self.paths) // MAX_SHARDS))

    @property
    def num_shards(self) -> int:
        return -(-len(self.paths) // self.per_shard)

    def shard(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def shard_paths(self, number: int) -> tuple[Path, ...]:
        return self.paths[number * self.per_shard : (number + 1) * self.per_shard]

    def arrays(self, count: int) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Return type and shape of the arrays of so many videos."""
        side, frames, rows = self.clip.size, self.clip.num_frames, (count, self.clip.num_windows)
        return {
            "frames": (np.uint8, (*rows, frames, side, side, 3)),
            "flow": (np.float16, (*rows, 2, frames, side, side)),
            "sources": (np.int32, (*rows, frames + 1)),
        }

    @property
    def num_bytes(self) -> int:
        arrays = self.arrays(len(self.paths)).values()
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in arrays)


class ClipStore:
    """Clips of many videos, read without copying.

    Args:
        folder: Made by :func:`prepare_store`.

    Raises:
        ValueError: If the folder holds no finished store, or one of another version.
    """

    def __init__(self, folder: Path):
        index = folder / INDEX
        if not index.is_file():
            raise ValueError(
                f"{folder} holds no finished clip store; run `python -m hstlib prepare`"
            )
        content = json.loads(index.read_text())
        if content.get("version") != VERSION:
            raise ValueError(
                f"{folder} holds clips of version {content.get('version')}, this is {VERSION}; "
                "remove it and run `python -m hstlib prepare`"
            )
        self.folder = folder
        self.config = ClipConfig(**content["clip"])
        self.num_windows = self.config.num_windows
        self.problems: dict[str, str] = content["problems"]
        self._rows = {name: row for row, name in enumerate(content["files"])}
        self._plan = _Plan(folder, tuple(map(Path, content["files"])), self.config)
        self._shards: dict[int, Clips] = {}

    def __contains__(self, path: Path) -> bool:
        return str(path) in self._rows and str(path) not in self.problems

    def read_all(self, path: Path) -> Clips:
        """Read all clips of a video, as views of the store; changes of them are not written.

        Raises:
            VideoError: If the video is not in the store or could not be decoded.
        """
        name = str(path)
        if name in self.problems:
            raise VideoError(self.problems[name])
        if name not in self._rows:
            raise VideoError(f"{path}: not in the clip store {self.folder}")
        number, row = divmod(self._rows[name], self._plan.per_shard)
        return Clips(*(array[row] for array in self._open(number)))

    def read(self, path: Path, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Read one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        clips = self.read_all(path)
        return clips.frames[window], clips.flow[window]

    def _open(self, number: int) -> Clips:
        if number not in self._shards:
            shard = self._plan.shard(number)
            arrays = (np.load(shard / f"{name}.npy", mmap_mode="c") for name in Clips._fields)
            self._shards[number] = Clips(*arrays)
        return self._shards[number]


class VideoClips:
    """The clips of video files without a store: decoded again at every read.

    Args:
        config: How clips are cut.
    """

    def __init__(self, config: ClipConfig):
        self.config, self.num_windows = config, config.num_windows

    def __contains__(self, path: Path) -> bool:
        return path.is_file()

    def read_all(self, path: Path) -> Clips:
        """Cut all clips of a video, see :func:`cut_clips`."""
        return cut_clips(path, self.config)

    def read(self, path: Path, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        clips = cut_clips(path, self.config, window)
        return clips.frames[0], clips.flow[0]


def store_key(paths: Sequence[Path], config: ClipConfig) -> str:
    """Return a name that changes with settings, decoder, and the files' names, sizes and times."""
    digest = hashlib.sha256(f"{VERSION}, {_decoder()}, {config.model_dump_json()}".encode())
    for path in paths:
        stat = path.stat() if path.is_file() else None
        digest.update(os.fsencode(f"{path}|{stat and (stat.st_size, stat.st_mtime_ns)}\n"))
    return digest.hexdigest()[:12]


def _decoder() -> str:
    return f"OpenCV {cv2.__version__}, FFMPEG"


def prepare_store(
    paths: Sequence[Path], config: ClipConfig, parent: Path, workers: int | None = None
) -> ClipStore:
    """Decode videos and compute their flow, unless that has been done.

    A second process that asks for the same store waits for the first. Files that are missing or
    cannot be decoded are kept in ``problems`` with the reason.

    Args:
        paths: The videos.
        config: How clips are cut.
        parent: The store becomes a folder in here, named by :func:`store_key`.
        workers: Processes; none: one per core. The store is the same, byte for byte.

    Returns:
        The opened store.

    Raises:
        ValueError: If the disk has not enough room.
    """
    folder = parent / store_key(paths, config)
    with lock(folder):
        if not (folder / INDEX).is_file():
            _prepare(_Plan(folder, tuple(paths), config), workers or os.cpu_count() or 1)
    return ClipStore(folder)


def _prepare(plan: _Plan, workers: int) -> None:
    plan.folder.mkdir(exist_ok=True)
    missing = []
    for number in range(plan.num_shards):
        remove_leftovers(plan.shard(number))
        if not plan.shard(number).is_dir():
            missing.append(number)
    _check_disk(plan, sum(len(plan.shard_paths(number)) for number in missing))
    with tqdm(total=len(plan.paths), desc="prepare", unit="video", disable=None) as bar:
        bar.update(len(plan.paths) - sum(len(plan.shard_paths(number)) for number in missing))
        for number in _write_shards(plan, missing, workers):
            bar.update(len(plan.shard_paths(number)))
    problems: dict[str, str] = {}
    for number in range(plan.num_shards):
        problems |= json.loads((plan.shard(number) / PROBLEMS).read_text())
    index = {
        "version": VERSION,
        "decoder": _decoder(),
        "flow": flow_parameters(plan.clip.flow),
        "clip": plan.clip.model_dump(),
        "files": [str(path) for path in plan.paths],
        "problems": problems,
    }
    with complete(plan.folder / INDEX) as unfinished:
        unfinished.write_text(json.dumps(index, indent=1))


def _check_disk(plan: _Plan, videos: int) -> None:
    needed = videos * plan.num_bytes // max(1, len(plan.paths))
    free = shutil.disk_usage(plan.folder).free
    if needed > free:
        raise ValueError(
            f"{plan.folder}: {videos} videos need {needed / 1e9:.1f} GB as clips, {free / 1e9:.1f} "
            "GB are free; make room, set HST_DATA, or choose a smaller size or fewer windows"
        )


def _write_shards(plan: _Plan, numbers: list[int], workers: int) -> Iterator[int]:
    """Write shards in parallel and yield the number of each; a crash costs one file, not all."""
    left = set(numbers)
    try:
        with process_pool(min(workers, len(numbers)) or 1) as pool:
            futures = {pool.submit(_write_shard, plan, number, {}): number for number in numbers}
            for future in as_completed(futures):
                future.result()
                left.remove(futures[future])
                yield futures[future]
    except BrokenProcessPool:
        check_processes()
        for number in sorted(left):
            _write_alone(plan, number)
            yield number


def _write_alone(plan: _Plan, number: int) -> None:
    """Write a shard, leaving out one by one the files whose decoding kills its process."""
    crashed: dict[str, str] = {}
    while not plan.shard(number).is_dir():
        try:
            with process_pool(1) as pool:
                pool.submit(_write_shard, plan, number, crashed).result()
        except BrokenProcessPool:
            name = json.loads(_reading(plan, number).read_text())
            if name in crashed:
                raise
            crashed[name] = f"{name}: crashes or hangs the decoder; fetch the file again"


def _reading(plan: _Plan, number: int) -> Path:
    """Return where the process of a shard notes the file that it is about to read."""
    return plan.folder / f".{number:05d}.reading{UNFINISHED}"


def _write_shard(plan: _Plan, number: int, crashed: dict[str, str]) -> None:
    paths, problems, note = plan.shard_paths(number), {}, _reading(plan, number)
    with complete(plan.shard(number)) as unfinished:
        unfinished.mkdir()
        arrays = [
            np.lib.format.open_memmap(unfinished / f"{name}.npy", "w+", dtype, shape)
            for name, (dtype, shape) in plan.arrays(len(paths)).items()
        ]
        for row, path in enumerate(paths):
            note.write_text(json.dumps(str(path)))
            try:
                if str(path) in crashed:
                    raise VideoError(crashed[str(path)])
                with time_limit(SECONDS_PER_FILE):
                    clips = cut_clips(path, plan.clip)
                for array, values in zip(arrays, clips, strict=True):
                    array[row] = values
            except VideoError as error:
                problems[str(path)] = str(error)
        del arrays  # flushes them
        (unfinished / PROBLEMS).write_text(json.dumps(problems, indent=1))
    note.unlink()
