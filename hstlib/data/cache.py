"""What hstlib writes besides results: where it lies, and how its clip stores are kept in order."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hstlib.config import ClipConfig, data_root, project_path
from hstlib.data.index import INDEX, Index, video_path
from hstlib.data.progress import progress
from hstlib.data.shards import DamagedShard, StoreLayout, read_shard
from hstlib.data.store import VERSION, describe_damage, open_index
from hstlib.files import UNFINISHED, lock, remove

EARLIER_INDEX = "index.json"  # of formats up to version 4
log = logging.getLogger("hstlib")


def cache_root() -> Path:
    """Return the folder of what is written: ``$HST_CACHE``, or the data root.

    With ``HST_CACHE``, the data root may be read-only.
    """
    cache = os.environ.get("HST_CACHE")
    return project_path(cache) if cache else data_root()


def store_root() -> Path:
    """Return the folder of all clip stores."""
    return cache_root() / "store"


@dataclass(frozen=True)
class StoreSummary:
    """One clip store.

    Attributes:
        folder: Folder of the store; remove it, then the unused clips, to get its room back.
        videos: Number of videos.
        problems: Number of those that cannot be used.
        num_bytes: Size of the clips; stores with the same settings share those of the same videos.
        place: Folder that holds all of the videos.
        clip: How clips are cut.
    """

    folder: Path
    videos: int
    problems: int
    num_bytes: int
    place: str
    clip: ClipConfig

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.clip.model_dump().items())
        return (
            f"{self.folder}: {self.videos} videos of {self.place}, {self.problems} of them cannot "
            f"be used, {self.num_bytes / 1e9:.2f} GB; {settings}"
        )


def list_stores(parent: Path) -> Iterator[StoreSummary]:
    """Describe the finished stores below a folder, oldest first.

    Args:
        parent: Folder of all stores.

    Raises:
        ValueError: If a store is damaged or has another format version.
    """
    for index_file in sorted(parent.glob(f"*/*/{INDEX}"), key=lambda file: file.stat().st_mtime):
        folder = index_file.parent
        index = open_index(folder)
        layout = StoreLayout(folder, ClipConfig.from_flat(index.header["clip"]))
        videos = list(index)
        shards = {video.sha256 for video in videos if not video.kind}
        place = os.path.commonpath([os.path.dirname(video_path(v.name)) for v in videos] or ["/"])
        yield StoreSummary(
            folder,
            len(videos),
            len(index.header["problems"]),
            len(shards) * layout.num_bytes,
            place,
            layout.clip,
        )


def check_stores(parent: Path) -> Iterator[str]:
    """Read all clips of all stores below a folder, and describe what changed on the disk.

    Args:
        parent: Folder of all stores.
    """
    for folder in _store_folders(parent):
        try:
            index = open_index(folder)
            videos = [video for video in index if not video.kind]
        except ValueError as error:
            yield str(error)
            continue
        layout = StoreLayout(folder, ClipConfig.from_flat(index.header["clip"]))
        with progress(f"check {folder.name}", len(videos), "video") as count:
            for video in videos:
                try:
                    read_shard(layout, video.sha256)
                except DamagedShard as error:
                    yield describe_damage(error, Path(video_path(video.name)))
                count()


def remove_unused(parent: Path) -> tuple[int, int]:
    """Remove clips that no store needs, what killed processes left, and stores of other formats.

    Stores that are being prepared are waited for. A folder of settings with a damaged store is left
    as it is.

    Args:
        parent: Folder of all stores.

    Returns:
        Number of files removed, and their bytes.
    """
    unused: list[Path] = []
    with ExitStack() as locks:
        for settings in sorted(path for path in parent.glob("*") if path.is_dir()):
            if (settings / EARLIER_INDEX).is_file():
                unused += [path for path in settings.rglob("*") if path.is_file()]
                continue
            try:
                for folder in _store_folders(settings.parent, settings.name):
                    locks.enter_context(lock(folder))  # waits while it is prepared
                unused += _unused_files(settings)
            except ValueError as error:
                log.warning("%s: left as it is (%s)", settings, error)
        sizes = [path.stat().st_size for path in unused]
        for path in unused:
            remove(path)
    return len(unused), sum(sizes)


def _unused_files(settings: Path) -> Iterator[Path]:
    """Yield the files of stores with the same settings that none of them needs."""
    needed: set[str] = set()
    for folder in _store_folders(settings.parent, settings.name):
        version = Index(folder / INDEX).header.get("version")
        if version != VERSION:
            yield folder / INDEX
        else:
            needed |= {video.sha256 for video in open_index(folder) if not video.kind}
    yield from (path for path in settings.glob("clips/*/*.npy") if path.stem not in needed)
    yield from (path for path in settings.glob(f"*/.*{UNFINISHED}"))


def _store_folders(parent: Path, settings: str = "*") -> list[Path]:
    """Return the folders of the finished stores below a folder."""
    return sorted(file.parent for file in parent.glob(f"{settings}/*/{INDEX}"))
