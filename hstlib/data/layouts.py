"""What a folder of videos is: its classes, its split, its sources, and what is ignored."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hstlib.config import LIST_NAME
from hstlib.data.lists import ListedVideo, check_class_names, read_list
from hstlib.data.naming import UCF101_NAME, sources_from_names

VIDEO_SUFFIXES = {
    *{".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v"},
    *{".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp", ".ogv"},
}
SUBSETS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of the folders of a ready split, in lower case, and the part that each holds."""
SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found"}
SYSTEM_FILES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Layout:
    """What a folder of videos is.

    Attributes:
        kind: Kind of layout, in words.
        folder: Folder of the class folders, or of the ready split.
        videos: The videos that belong to the data set.
        ignored: What does not: number of files and folders by reason.
        is_list: Whether a list names the videos.
    """

    kind: str
    folder: Path
    videos: tuple[ListedVideo, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    is_list: bool = False


def find_videos(folder: Path, ignored: Counter[str] | None = None) -> list[Path]:
    """Find all videos below a folder, also behind links, sorted.

    Files and folders with names that start with a dot, folders that operating systems leave behind
    and folders named like videos are ignored.

    Args:
        folder: Folder to search; it may be missing.
        ignored: Counter of what is ignored, which this function adds to.
    """
    ignored = Counter() if ignored is None else ignored
    videos = []
    chains = {os.fspath(folder): (os.path.realpath(folder),)}  # real paths of a folder's parents
    for place, folders, files in os.walk(folder, followlinks=True):
        chain = chains.pop(place)
        reasons = {name: _reason_to_ignore_folder(name) for name in folders}
        ignored.update(reason for reason in reasons.values() if reason)
        folders[:] = sorted(name for name in folders if not reasons[name])
        for name in list(folders):
            path = os.path.join(place, name)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(chain[-1], name)
            if any(f"{parent}{os.sep}".startswith(f"{real}{os.sep}") for parent in chain):
                folders.remove(name)  # a link to a folder above it
            chains[path] = (*chain, real)
        for name in files:
            if name.startswith("."):
                ignored["hidden files, such as ._ twins"] += 1
            elif os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                videos.append(Path(place, name))
            else:
                ignored["files that are no videos"] += 1
    return sorted(videos)


def is_left_behind(name: str) -> bool:
    """Return whether a file or folder has a name that operating systems give to their own."""
    lower = name.lower()
    twin = lower.startswith(("._", ".trash", ".spotlight", ".fseventsd", ".nfs"))
    return twin or lower in SYSTEM_FOLDERS | SYSTEM_FILES


def _reason_to_ignore_folder(name: str) -> str | None:
    if name.startswith(".") or name.lower() in SYSTEM_FOLDERS:
        return "hidden folders and those of operating systems"
    if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
        return "folders named like videos"
    return None


def read_layout(place: Path) -> Layout:
    """Read a list file, a folder with a list, a ready split or class folders.

    Args:
        place: List file or folder.

    Raises:
        ValueError: If there are no videos, or no classes can be seen; the message says what is
            expected.
    """
    if place.is_file() or (place / LIST_NAME).is_file():
        file = place if place.is_file() else place / LIST_NAME
        videos = read_list(file)
        folder = _common_folder(Path(os.path.normpath(file.parent)), videos)
        return Layout(f"the list {file.name}", folder, tuple(videos), is_list=True)
    return read_folders(place)


def _common_folder(folder: Path, videos: list[ListedVideo]) -> Path:
    """Return the folder of a list, or the one that also holds the videos outside of it."""
    if all(video.path.is_relative_to(folder) for video in videos):
        return folder
    return Path(os.path.commonpath([folder, *(video.path.parent for video in videos)]))


def read_folders(root: Path) -> Layout:
    """Read the videos of a folder with class folders or with a ready split, without a list."""
    ignored: Counter[str] = Counter()
    files = find_videos(root, ignored)
    base = _folder_of_classes(root, files)
    parts = {path: path.relative_to(base).parts for path in files}
    tops = {names[0].lower() for names in parts.values() if len(names) > 1}
    is_split = "train" in {SUBSETS.get(top) for top in tops} and len(tops) > 1
    is_split = is_split and all(top in SUBSETS for top in tops)
    rows = []
    for path, names in parts.items():
        depth = 2 if is_split else 1
        roles = (SUBSETS[names[0].lower()],) if is_split else ()
        if len(names) > depth:
            rows.append((path, names[depth - 1], len(names) - depth, roles))
        elif (match := UCF101_NAME.fullmatch(path.stem)) and len(names) == depth:
            rows.append((path, match["class_name"], 1, roles))
        else:
            ignored["videos outside of class folders"] += 1
    rows = _without_deeper(rows, ignored)
    if not rows:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ValueError(
            f"{root}: no videos; expected <class>/<file>, or <train, val or test>/<class>/<file>, "
            f"ending in {suffixes}. Or name the videos in {LIST_NAME}, with the columns file, "
            "class, group and subset"
        )
    check_class_names((class_name for _, class_name, _, _ in rows), base)
    sources = sources_from_names([(path.name, class_name) for path, class_name, _, _ in rows])
    videos = tuple(
        ListedVideo(path, class_name, source, roles)
        for (path, class_name, _, roles), source in zip(rows, sources, strict=True)
    )
    names = sorted({names[0] for names in parts.values() if len(names) > 1})
    kind = f"a ready split in the folders {', '.join(names)}" if is_split else "class folders"
    return Layout(kind, base, videos, ignored)


def _folder_of_classes(root: Path, files: list[Path]) -> Path:
    """Descend while all videos are in one folder that has further folders of videos in it."""
    base = root
    while files:
        parts = [path.relative_to(base).parts for path in files]
        if len({names[0] for names in parts}) > 1 or min(map(len, parts)) < 3:
            break
        base /= parts[0][0]
    return base


def _without_deeper(rows: list[tuple], ignored: Counter[str]) -> list[tuple]:
    """Leave out videos in folders inside a class folder that has videos of its own."""
    direct = {(class_name, roles) for _, class_name, depth, roles in rows if depth == 1}
    kept = [row for row in rows if row[2] == 1 or (row[1], row[3]) not in direct]
    if len(kept) < len(rows):
        ignored["videos in folders inside class folders"] += len(rows) - len(kept)
    return kept
