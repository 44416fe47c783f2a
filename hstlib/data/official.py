"""The official lists of HMDB51, UCF101 and J-HMDB, wherever the videos are stored."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hstlib.data.layouts import find_videos
from hstlib.data.lists import read_list, read_text, video_set
from hstlib.data.samples import Sample, VideoSet

HMDB51_LISTS = "testTrainMulti_7030_splits"
UCF101_LISTS = "ucfTrainTestlist"
JHMDB_LIST = "splits.csv"
OFFICIAL_LISTS = {"ucf101": UCF101_LISTS, "hmdb51": HMDB51_LISTS, "jhmdb": JHMDB_LIST}
"""Folder or file of the official lists, in the folder of a data set."""


class _VideoFinder:
    """Finds listed videos by their names, without suffix and capitals.

    The lists of UCF101 and its archives disagree about capitals (HandStandPushups,
    HandstandPushups), some archives have no class folders, and some copies are transcoded.
    """

    def __init__(self, root: Path, usual_folders: Iterable[str]):
        places = [root / name for name in usual_folders]
        self.folder, files = next((p for p in places if p.is_dir()), places[0]), []
        for place in places:
            if files := find_videos(place):
                self.folder = place
                break
        self.by_stem: dict[str, list[Path]] = {}
        if not files and (files := find_videos(root)):
            self.folder = Path(os.path.commonpath([path.parent.parent for path in files]))
            self.folder = self.folder if self.folder.is_relative_to(root) else root
        for path in files:
            self.by_stem.setdefault(path.stem.lower(), []).append(path)

    def find(self, listed: str) -> Path:
        """Return the file of a listed ``<class>/<file>``; its usual place if there is none."""
        name = Path(listed)
        files = self.by_stem.get(name.stem.lower(), [])
        same_suffix = [path for path in files if path.suffix.lower() == name.suffix.lower()]
        files = same_suffix or files
        if len(files) > 1:
            raise ValueError(f"{files[1]} and {files[0]} have the same name; remove one")
        return files[0] if files else self.folder / listed


def read_hmdb51(root: Path, name: str, split: int) -> VideoSet:
    """Read ``<class>_test_split<n>.txt``: per line a file and 1 (train), 2 (test) or 0 (unused)."""
    lists = root / HMDB51_LISTS
    suffix = f"_test_split{split}.txt"
    names = (file.name.removesuffix(suffix) for file in lists.glob(f"*{suffix}"))
    classes = tuple(sorted(name for name in names if not name.startswith(".")))
    if not classes:
        raise ValueError(f"{lists}: no file *{suffix}; unpack the official split lists there")
    videos = _VideoFinder(root, ["hmdb51_org"])
    by_tag: dict[str, list[Sample]] = {"0": [], "1": [], "2": []}
    for label, class_name in enumerate(classes):
        for place, line in _read_lines(lists / f"{class_name}{suffix}"):
            file_name, _, tag = line.strip().rpartition(" ")
            if tag not in by_tag or not file_name:
                raise ValueError(f"{place}: {line!r} is not '<file> <0, 1 or 2>'")
            path = videos.find(f"{class_name}/{file_name}")
            title = file_name.rpartition(f"_{class_name}_")[0]
            by_tag[tag].append(Sample(path, label, f"{title}_{class_name}"))
    unused, train, test = (tuple(samples) for samples in by_tag.values())
    return VideoSet(name, classes, train, test, unused, videos.folder)


def read_ucf101(root: Path, name: str, split: int) -> VideoSet:
    """Read ``classInd.txt``, ``trainlist0<n>.txt`` and ``testlist0<n>.txt``."""
    files = [
        root / UCF101_LISTS / file_name
        for file_name in ("classInd.txt", f"trainlist{split:02d}.txt", f"testlist{split:02d}.txt")
    ]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is missing; unpack the official split lists there")
    classes = []
    for place, line in _read_lines(files[0]):
        if len(line.split()) != 2:
            raise ValueError(f"{place}: {line!r} is not '<label> <class>'")
        classes.append(line.split()[1])
    videos = _VideoFinder(root, ["UCF-101", "UCF101"])
    train, test = (_read_ucf101_list(file, classes, videos) for file in files[1:])
    return VideoSet(name, tuple(classes), train, test, folder=videos.folder)


def _read_ucf101_list(file: Path, classes: list[str], videos: _VideoFinder) -> tuple[Sample, ...]:
    """Read ``<class>/<file>`` per line; training lists add a label, which is not needed."""
    labels = {class_name.lower(): label for label, class_name in enumerate(classes)}
    samples = []
    for place, line in _read_lines(file):
        entry = line.split()[0]
        class_name, _, file_name = entry.partition("/")
        if class_name.lower() not in labels or not file_name:
            raise ValueError(f"{place}: {line!r} is not '<class>/<file> [label]'")
        group = file_name.rpartition("_")[0].lower()
        samples.append(Sample(videos.find(entry), labels[class_name.lower()], group))
    return tuple(samples)


def read_jhmdb(root: Path, name: str, split: int) -> VideoSet:
    """Read ``splits.csv``: 21 classes of HMDB51, with HMDB51's official numbers.

    The source of a clip is its class and its film, as for HMDB51. J-HMDB has clips that HMDB51's
    lists do not name; they are left out.
    """
    file = root / JHMDB_LIST
    if not file.is_file():
        raise ValueError(f"{file} is missing; put the list of the splits there")
    videos = _VideoFinder(root, ["videos", "ReCompress_Videos"])
    rows = [
        replace(
            row,
            path=videos.find(f"{row.class_name}/{row.path.name}"),
            source=f"{row.source}_{row.class_name}",
        )
        for row in read_list(file)
    ]
    return replace(video_set(name, videos.folder, rows, split, file), from_list=True)


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that are not blank, each after its place ``<file>:<number>``."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", line
