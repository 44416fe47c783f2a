"""Clip store: decoded clips and their optical flow on disk, in memory-mapped shards.

Decoding and flow are too slow to run while a training step waits, so both are done once. A store
is a folder::

    index.json                  settings, decoder, and the content of all videos.json
    00000/frames.npy            uint8   (N, W, T, S, S, 3)
    00000/flow.npy              float16 (N, W, 2, T, S, S)
    00000/sources.npy           int32   (N, W, T + 1)
    00000/times.npy             float64 (N, W, T + 1)
    00000/videos.json           hash of each video's clips, or why it cannot be used
    00001/...

for shards of N videos with W clips each. A shard folder exists once the shard is complete, the
index once all shards are; preparing a store again after an interruption writes the missing shards.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hstlib.config import ClipConfig
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.flow import flow_parameters
from hstlib.data.shards import VIDEOS, StoredVideo, StoreLayout, clips_sha256, write_shards
from hstlib.data.video import decoder_version
from hstlib.files import check_disk_space, complete, lock, remove_leftovers

INDEX = "index.json"
VERSION = 4
"""Format version of the clips and shards; increment it when either changes."""
REMAKE = "remove it and run `python -m hstlib prepare`"


class ClipStore:
    """Clips of many videos, read without copying.

    Args:
        folder: Folder written by :func:`prepare_store`.

    Attributes:
        folder: Folder of the store.
        config: How the clips were cut.
        clips_per_video: Number of clips of each video.
        problems: For each video that cannot be used, the file and the reason.

    Raises:
        ValueError: If the folder holds no finished store, or one of another format version.
    """

    def __init__(self, folder: Path):
        content = _read_index(folder)
        self.folder = folder
        self.config: ClipConfig = content["clip"]
        self.clips_per_video = self.config.clips_per_video
        videos = [StoredVideo(**video) for video in content["videos"]]
        self._videos = {video.path: video for video in videos}
        self._rows = {video.path: row for row, video in enumerate(videos)}
        self.problems = {video.path: str(video.error) for video in videos if video.kind}
        self._layout = StoreLayout(folder, tuple(Path(video.path) for video in videos), self.config)
        self._shards: dict[int, Clips] = {}
        self._checked: set[str] = set()

    def __contains__(self, path: Path) -> bool:
        return str(path) in self._rows and str(path) not in self.problems

    def read_all(self, path: Path) -> Clips:
        """Read all clips of a video as views of the store; changes to them are not written.

        Raises:
            VideoError: If the video is missing or cannot be used.
            ValueError: If the video is not in the store, or its clips changed on the disk.
        """
        name = str(path)
        if name in self.problems:
            raise self._videos[name].error
        if name not in self._rows:
            raise ValueError(f"{path}: not in the clip store {self.folder}; prepare it again")
        number, row = divmod(self._rows[name], self._layout.per_shard)
        clips = Clips(*(array[row] for array in self._open(number)))
        if name not in self._checked:  # once per process: it reads all bytes
            if clips_sha256(clips) != self._videos[name].sha256:
                shard = self._layout.shard(number)
                raise ValueError(f"{shard}: the clips of {path} changed on the disk; {REMAKE}")
            self._checked.add(name)
        return clips

    def repeats(self, path: Path) -> int:
        """Return how many frames of a clip of a video repeat another of its frames."""
        return self._videos[str(path)].repeats

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
    try:
        return content | {"clip": ClipConfig.from_flat(content["clip"])}
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; {REMAKE}") from None


def store_key(paths: Sequence[Path], config: ClipConfig) -> str:
    """Return the name of a store: a hash of settings, decoder, and the videos' names, sizes, times.

    A store whose videos changed, or that another version made, is therefore prepared anew.
    """
    digest = hashlib.sha256(f"{VERSION}, {_decoder()}, {config.model_dump_json()}".encode())
    for path in paths:
        stat = path.stat() if path.is_file() else None
        digest.update(os.fsencode(f"{path}|{stat and (stat.st_size, stat.st_mtime_ns)}\n"))
    return digest.hexdigest()[:12]


def _decoder() -> str:
    return f"{decoder_version()}, OpenCV {cv2.__version__}"


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
        for number in write_shards(layout, missing, workers):
            bar.update(len(layout.shard_paths(number)))
    _write_index(layout)


def _write_index(layout: StoreLayout) -> None:
    videos = []
    for number in range(layout.num_shards):
        videos += json.loads((layout.shard(number) / VIDEOS).read_text())
    index = {
        "version": VERSION,
        "decoder": _decoder(),
        "flow": flow_parameters(layout.clip.flow),
        "clip": layout.clip.model_dump(),
        "videos": videos,
    }
    with complete(layout.folder / INDEX) as unfinished:
        unfinished.write_text(json.dumps(index, indent=1))
