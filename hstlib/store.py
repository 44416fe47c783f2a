"""Decoded clips and their flow on disk: memory-mapped arrays and one index.

Decoding and flow cost far more than a training step can wait for, so both are done once.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hstlib.config import ClipConfig
from hstlib.flow import optical_flow
from hstlib.video import VideoError, clip_indices, read_video, window_starts

INDEX = "index.json"
VERSION = 1
"""Of what clips hold; to be raised when decoding, resizing or flow changes."""


def read_windows(path: Path, config: ClipConfig) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Read the frames of the clips of one video.

    Args:
        path: The video file.
        config: How many clips, and of what size.

    Returns:
        For each clip its frames, RGB uint8, shape (T, S, S, 3), and the frame that follows, shape
        (S, S, 3), or none where the video ends.

    Raises:
        VideoError: If the file cannot be used.
    """
    video = read_video(path, size=config.size, fps=config.fps, fit=config.fit)
    windows = []
    for start in window_starts(len(video.frames), config.num_frames, config.num_windows):
        *clip, following = clip_indices(len(video.frames), start, config)
        windows.append((video.frames[clip], video.frames[following] if following >= 0 else None))
    return windows


def cut_clips(path: Path, config: ClipConfig) -> tuple[np.ndarray, np.ndarray]:
    """Read the clips of one video, and their flow.

    Args:
        path: The video file.
        config: How many clips, of what size, and which flow.

    Returns:
        Frames, RGB uint8, shape (W, T, S, S, 3), and flow in pixels per frame, float16, shape
        (W, 2, T, S, S), where W is the number of windows.

    Raises:
        VideoError: If the file cannot be used.
    """
    windows = read_windows(path, config)
    flow = [optical_flow(frames, following, config.flow) for frames, following in windows]
    return np.stack([frames for frames, _ in windows]), np.stack(flow).astype(np.float16)


class ClipStore:
    """Clips of many videos, read without copying.

    Args:
        folder: Made by :func:`prepare_store`.

    Raises:
        ValueError: If the folder holds no finished store.
    """

    def __init__(self, folder: Path):
        index = folder / INDEX
        if not index.is_file():
            raise ValueError(
                f"{folder} holds no finished clip store; run `python -m hstlib prepare`"
            )
        content = json.loads(index.read_text())
        self.folder = folder
        self.config = ClipConfig(**content["clip"])
        self.num_windows = self.config.num_windows
        self.problems: dict[str, str] = content["problems"]
        self._rows = {name: row for row, name in enumerate(content["files"])}
        self._frames = np.load(folder / "frames.npy", mmap_mode="c")
        self._flow = np.load(folder / "flow.npy", mmap_mode="c")

    def __contains__(self, path: Path) -> bool:
        return str(path) in self._rows and str(path) not in self.problems

    def read_all(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Read all clips of a video.

        Returns:
            Frames, shape (W, T, S, S, 3), and flow, shape (W, 2, T, S, S).

        Raises:
            VideoError: If the video is not in the store or could not be decoded.
        """
        name = str(path)
        if name in self.problems:
            raise VideoError(self.problems[name])
        if name not in self._rows:
            raise VideoError(f"{path}: not in the clip store {self.folder}")
        row = self._rows[name]
        return self._frames[row], self._flow[row]

    def read(self, path: Path, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Read one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        frames, flow = self.read_all(path)
        return frames[window], flow[window]


def store_key(paths: Sequence[Path], config: ClipConfig) -> str:
    """Return a name that changes with settings, decoder, and the files' names, sizes and times."""
    decoder = f"store {VERSION}, OpenCV {cv2.__version__}"
    digest = hashlib.sha256(f"{decoder}, {config.model_dump_json()}".encode())
    for path in paths:
        stat = path.stat() if path.is_file() else None
        digest.update(f"{path}|{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:12]


def prepare_store(
    paths: Sequence[Path], config: ClipConfig, parent: Path, workers: int | None = None
) -> ClipStore:
    """Decode videos and compute their flow, unless that has been done.

    Files that are missing or cannot be decoded are kept in ``problems`` with the reason.

    Args:
        paths: The videos.
        config: How clips are cut.
        parent: The store becomes a folder in here, named by :func:`store_key`.
        workers: Processes; none: one per core.

    Returns:
        The opened store.
    """
    folder = parent / store_key(paths, config)
    if (folder / INDEX).is_file():
        return ClipStore(folder)
    parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".preparing-", dir=parent))
    try:
        _allocate(unfinished, len(paths), config)
        problems = _fill(unfinished, paths, config, workers or os.cpu_count() or 1)
        index = {
            "clip": config.model_dump(),
            "files": [str(path) for path in paths],
            "problems": problems,
        }
        (unfinished / INDEX).write_text(json.dumps(index, indent=1))
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / INDEX).is_file():  # else: another process was first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return ClipStore(folder)


def _allocate(folder: Path, count: int, config: ClipConfig) -> None:
    side, frames = config.size, config.num_frames
    shape = (count, config.num_windows)
    for name, dtype, rest in (
        ("frames.npy", np.uint8, (frames, side, side, 3)),
        ("flow.npy", np.float16, (2, frames, side, side)),
    ):
        np.lib.format.open_memmap(folder / name, "w+", dtype, (*shape, *rest)).flush()


def _fill(folder: Path, paths: Sequence[Path], config: ClipConfig, workers: int) -> dict[str, str]:
    """Write every row in parallel; return the reasons of those that stay empty."""
    write = partial(_write_row, folder, config)
    context = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _single_thread) as pool:
        results = pool.map(write, range(len(paths)), paths, chunksize=8)
        bar = tqdm(results, total=len(paths), desc="prepare", unit="video", disable=None)
        return {str(path): reason for path, reason in zip(paths, bar, strict=True) if reason}


def _single_thread() -> None:
    cv2.setNumThreads(0)


def _write_row(folder: Path, config: ClipConfig, row: int, path: Path) -> str | None:
    try:
        frames, flow = cut_clips(path, config)
    except VideoError as error:
        return str(error)
    np.load(folder / "frames.npy", mmap_mode="r+")[row] = frames
    np.load(folder / "flow.npy", mmap_mode="r+")[row] = flow
    return None
