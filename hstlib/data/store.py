"""Clip store: decoded clips and their optical flow on disk, in memory-mapped shards.

Decoding and flow are too slow to run while a training step waits, so both are done once. The
stores with the same settings are in one folder, and share their clips::

    <settings>/clips/ab/ab12....npy     the clips of one video, named by the hash of its content
    <settings>/<list>/index.jsonl       a store: the videos of a data set, and what is wrong

A video that changed costs that video only, and so does a shard that is damaged. The index is
written last; preparing a store again after an interruption cuts only the clips that are missing.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from hstlib.config import ClipConfig
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.container import MOMENTARY, VideoError, first_bytes, printable
from hstlib.data.flow import flow_parameters
from hstlib.data.index import INDEX, Index, StoredVideo, video_name, video_path, write_index
from hstlib.data.inspection import size_and_mtime
from hstlib.data.progress import progress
from hstlib.data.shards import (
    DamagedShard,
    StoreLayout,
    flush_shards,
    is_whole,
    read_shard,
    store_videos,
)
from hstlib.data.video import decoder_version
from hstlib.files import check_disk_space, lock, sweep

VERSION = 5
"""Format version of the clips and shards; increment it when either changes."""
MAX_OPEN = 4096
"""Shards that a process keeps mapped, which is cheaper than to map one at every read."""
log = logging.getLogger("hstlib")


class ClipStore:
    """Clips of many videos, read without copying.

    Args:
        folder: Folder written by :func:`prepare_store`.
        unread: For each video that could not be read this time, the fault of the moment.

    Attributes:
        folder: Folder of the store.
        config: How the clips were cut.
        clips_per_video: Number of clips of each video.
        problems: For each video that cannot be used, the fault.

    Raises:
        ValueError: If the folder holds no finished store, or one of another format version.
    """

    def __init__(self, folder: Path, unread: dict[str, VideoError] | None = None):
        self._index = open_index(folder)
        self._unread = unread or {}
        self.folder = folder
        self.config = ClipConfig.from_flat(self._index.header["clip"])
        self.clips_per_video = self.config.clips_per_video
        self.problems = {
            video_path(name): VideoError(video_path(name), kind, reason)
            for name, kind, reason in self._index.header["problems"]
        } | self._unread
        self._layout = StoreLayout(folder, self.config)
        self._checked: set[str] = set()
        self._opened: dict[str, Clips] = {}

    def __reduce__(self):
        """Open the store anew in a process that it is sent to."""
        return ClipStore, (self.folder, self._unread)

    def __contains__(self, path: Path) -> bool:
        return str(path) not in self.problems and self._index.find(path) is not None

    def read_all(self, path: Path) -> Clips:
        """Read all clips of a video as views of the store; changes to them are not written.

        Raises:
            VideoError: If the video is missing or cannot be used.
            ValueError: If the video is not in the store, or its clips changed on the disk.
        """
        if error := self.problems.get(str(path)):
            raise VideoError(*error.args)
        sha256 = self._find(path).sha256
        if sha256 not in self._opened:
            clips = self._open(path, sha256)
            while len(self._opened) >= MAX_OPEN:
                del self._opened[next(iter(self._opened))]
            self._opened[sha256] = clips
        return self._opened[sha256]

    def _open(self, path: Path, sha256: str) -> Clips:
        try:  # bytes are compared once per process
            clips = read_shard(self._layout, sha256, check=sha256 not in self._checked)
        except DamagedShard as error:
            raise ValueError(describe_damage(error, path)) from error
        self._checked.add(sha256)
        return clips

    def repeats(self, path: Path) -> int:
        """Return how many frames of a clip of a video repeat another of its frames."""
        return self._find(path).repeats

    def read(self, path: Path, clip_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read one clip of a video: frames (T, S, S, 3) and flow (2, T, S, S)."""
        clips = self.read_all(path)
        return clips.frames[clip_index], clips.flow[clip_index]

    def _find(self, path: Path) -> StoredVideo:
        video = self._index.find(path)
        if video is None:
            raise ValueError(
                f"{printable(path)}: not in the clip store {self.folder}; prepare it again"
            )
        return video


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


def open_index(folder: Path) -> Index:
    """Open the index of a store.

    Raises:
        ValueError: If the folder holds no finished store, or one of another format version.
    """
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder} holds no finished clip store; run `python -m hstlib prepare`")
    index = Index(folder / INDEX)
    version = index.header.get("version")
    if version != VERSION:
        raise ValueError(
            f"{folder} holds clips of version {version}, this is {VERSION}; remove it and run "
            "`python -m hstlib prepare`"
        )
    return index


def describe_damage(error: DamagedShard, path: Path) -> str:
    """Return the message about a damaged shard: the file, the video and the remedy."""
    return (
        f"{error}, which holds the clips of {printable(path)}; remove it and run `python -m hstlib "
        "prepare`, which cuts the clips of this video only"
    )


def settings_key(config: ClipConfig) -> str:
    """Return the name of the folder of all stores with these settings and this decoder."""
    text = f"{VERSION}, {_decoder()}, {config.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def list_key(paths: Sequence[Path]) -> str:
    """Return the name of the store of these videos, whatever their content."""
    names = "".join(f"{video_name(path)}\0" for path in sorted(paths))
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _decoder() -> str:
    return f"{decoder_version()}, OpenCV {cv2.__version__}"


def prepare_store(
    paths: Sequence[Path], config: ClipConfig, parent: Path, workers: int | None = None
) -> ClipStore:
    """Decode the videos of a store that are new or have changed, and compute their flow.

    A second process that asks for the same store waits for the first. Videos that are missing or
    cannot be decoded are listed in ``problems`` with the reason. The clips of a video that is
    missing now, but was there, are kept and used.

    Args:
        paths: Video files.
        config: How clips are cut.
        parent: Folder of all stores.
        workers: Number of processes; None: one per core. The store is the same, byte for byte.

    Returns:
        The opened store.

    Raises:
        OSError: If the disk is too small.
        ValueError: If the index of the store is damaged.
    """
    folder = parent / settings_key(config) / list_key(paths)
    with lock(folder):
        folder.mkdir(exist_ok=True)
        sweep(folder)
        unread = _prepare(StoreLayout(folder, config), list(dict.fromkeys(paths)), workers)
    return ClipStore(folder, unread)


def _prepare(
    layout: StoreLayout, paths: Sequence[Path], workers: int | None
) -> dict[str, VideoError]:
    """Bring a store up to date; return the videos that could not be read this time."""
    earlier = _read_videos(layout.folder)
    known = earlier if len(earlier) == len(paths) else _read_others(layout.folder) | earlier
    videos, pending, unread = {}, {}, {}
    for path in paths:
        video, status = known.get(video_name(path)), size_and_mtime(path)
        if video and _is_current(layout, video, status):
            videos[video.name] = video
        elif status == (None, None):
            unread[str(path)] = _fault_of_absent(path)
        else:
            pending[path] = status
    if pending:
        for path, video in _store_pending(layout, [*pending], len(paths), workers):
            if video.kind in MOMENTARY:
                unread[str(path)] = VideoError(path, video.kind, video.reason)
            else:  # as it was before it was read
                num_bytes, mtime_ns = pending[path]
                videos[video.name] = video._replace(bytes=num_bytes, mtime_ns=mtime_ns)
        flush_shards(layout, {video.sha256 for video in videos.values() if not video.kind})
    if pending or videos != earlier or not (layout.folder / INDEX).is_file():
        _write(layout, list(videos.values()))
    return unread


def _store_pending(
    layout: StoreLayout, pending: Sequence[Path], num_videos: int, workers: int | None
) -> Iterator[tuple[Path, StoredVideo]]:
    """Cut the clips of the videos that have none yet, of all videos of a store."""
    check_disk_space(
        layout.folder,
        layout.num_bytes * len(pending),
        remedy="choose a smaller size or fewer clips per video",
    )
    with progress("prepare", num_videos, "video", num_videos - len(pending)) as count:
        for path, video in store_videos(layout, pending, workers):
            count()
            yield path, video


def _is_current(
    layout: StoreLayout, video: StoredVideo, status: tuple[int | None, int | None]
) -> bool:
    """Return whether what is known of a video still holds; its clips outlive the video."""
    if video.kind:
        return status == (video.bytes, video.mtime_ns)
    expected = ((video.bytes, video.mtime_ns), (None, None))
    return status in expected and is_whole(layout, video.sha256)


def _fault_of_absent(path: Path) -> VideoError:
    try:
        first_bytes(path)
    except VideoError as error:
        return error
    return VideoError(path, "unreadable", "came while the store was prepared; prepare it again")


def _read_videos(folder: Path) -> dict[str, StoredVideo]:
    """Return the videos of a store by name; none of an unfinished one."""
    is_there = (folder / INDEX).is_file()
    return {video.name: video for video in open_index(folder)} if is_there else {}


def _read_others(folder: Path) -> dict[str, StoredVideo]:
    """Return the videos of all other stores with the same settings."""
    videos = {}
    for other in sorted(folder.parent.glob(f"*/{INDEX}")):
        if other.parent != folder:
            try:
                videos |= _read_videos(other.parent)
            except ValueError as error:  # costs time, not clips
                log.warning("%s", error)
    return videos


def _write(layout: StoreLayout, videos: Sequence[StoredVideo]) -> None:
    header = {
        "version": VERSION,
        "decoder": _decoder(),
        "flow": flow_parameters(layout.clip.flow),
        "clip": layout.clip.model_dump(),
        "videos": len(videos),
        "problems": sorted((v.name, v.kind, v.reason) for v in videos if v.kind),
    }
    write_index(layout.folder / INDEX, header, videos)
