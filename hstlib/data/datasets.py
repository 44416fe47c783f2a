"""Training and test lists of HMDB51, UCF101, the demo corpora and plain folders of videos."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from hstlib.config import Protocol, data_root, project_path
from hstlib.data.demo import MARKER

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v"}
NUM_CLASSES = {"hmdb51": 51, "ucf101": 101, "demo-hmdb51": 8, "demo-ucf101": 8}
HMDB51_TAGS = re.compile(
    r"_(?P<body>[hufl])_(?P<camera>cm|nm)_np(?P<people>\d+)_(?P<view>fr|le|ri|ba)"
    r"_(?P<quality>goo|med|bad)_\d+\.avi$"
)


@dataclass(frozen=True)
class Sample:
    """One video of a data set, or one of its clips.

    Attributes:
        path: Video file; it may be missing.
        label: Index of the class.
        group: Source that the video was cut from, such as a film. Official splits never divide a
            group between training and test.
        clip_index: Index of the clip in the video; None stands for all clips.
    """

    path: Path
    label: int
    group: str
    clip_index: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """A data set at one split.

    Attributes:
        name: Name of the data set.
        classes: Class names, in the order of the labels.
        train: Training samples.
        test: Test samples.
        unused: Samples that are in neither part of this split.
        folder: Folder of the videos.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unused: tuple[Sample, ...] = ()
    folder: Path = Path()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of train, test and unused, sorted by path."""
        return tuple(sorted(self.train + self.test + self.unused, key=lambda s: str(s.path)))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of all samples, sorted and each once; the same for every protocol."""
        return tuple(dict.fromkeys(sample.path for sample in self.samples))

    @property
    def split_id(self) -> str:
        """Hash of the class names in order, the training list and the test list."""
        lines = [repr(self.classes)]
        for role, samples in (("train", self.train), ("test", self.test)):
            lines += sorted(f"{role} {s.label} {s.path.name} {s.clip_index}" for s in samples)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def missing(self) -> tuple[Path, ...]:
        """Listed files that are not on disk."""
        return tuple(path for path in self.paths if not path.is_file())


def load_dataset(
    name: str,
    data_dir: str | Path = "",
    split: int = 1,
    *,
    protocol: Protocol = "official",
    clips_per_video: int = 1,
) -> VideoSet:
    """Read the official lists of a data set, or a folder with one folder of videos per class.

    Args:
        name: ``hmdb51``, ``ucf101``, ``demo-hmdb51``, ``demo-ucf101`` or ``folder``.
        data_dir: Folder of the data set, absolute or relative to the project. Empty: its place
            under the data root (``hmdb51``, ``ucf101``, ``demo/hmdb51`` or ``demo/ucf101``).
        split: Official split 1-3; also the seed of the random protocols.
        protocol: How train and test are separated, as in
            :attr:`hstlib.config.DataConfig.protocol`.
        clips_per_video: Clips per video, which ``random-by-clip`` assigns independently.

    Returns:
        The samples of the split, including listed files that are not on disk; ``missing`` names
        those.

    Raises:
        ValueError: If an argument is unknown, or the lists are missing, damaged or of another data
            set.
    """
    if split not in (1, 2, 3):
        raise ValueError(f"split is {split}; use 1, 2 or 3")
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r} is unknown; use one of {[*get_args(Protocol)]}")
    data = _read_split(name, data_dir, split)
    if protocol == "official":
        return data
    return split_at_random(data, split, clips_per_video if protocol == "random-by-clip" else None)


def _read_split(name: str, data_dir: str | Path, split: int) -> VideoSet:
    if name == "folder":
        if not data_dir:
            raise ValueError("dataset 'folder' needs data_dir, a folder with a folder per class")
        return _read_class_folders(project_path(data_dir), split)
    if name not in NUM_CLASSES:
        raise ValueError(f"dataset {name!r} is unknown; use one of {[*NUM_CLASSES, 'folder']}")
    root = project_path(data_dir) if data_dir else data_root() / name.replace("-", "/")
    _check_demo(root, name)
    read = _read_hmdb51 if name.endswith("hmdb51") else _read_ucf101
    data = read(root, name, split)
    if len(data.classes) != NUM_CLASSES[name]:
        raise ValueError(
            f"{root}: {name} has {NUM_CLASSES[name]} classes, but the split lists have "
            f"{len(data.classes)}; fetch the split lists again"
        )
    return data


def split_at_random(data: VideoSet, seed: int, clips_per_video: int | None = None) -> VideoSet:
    """Draw a fifth of each class at random as the test set, ignoring the groups.

    Not in the paper, but common in public code. It leaks: see :mod:`hstlib.data.leakage`.

    Args:
        data: Any split of the data set.
        seed: Seed of the split.
        clips_per_video: Clips per video, drawn independently; None draws whole videos.

    Raises:
        ValueError: If ``clips_per_video`` is less than 2, or there are too few videos.
    """
    if clips_per_video is not None and clips_per_video < 2:
        raise ValueError(f"clips_per_video is {clips_per_video}; to draw clips, use 2 or more")
    rng = np.random.default_rng(seed)
    videos = {sample.path: replace(sample, clip_index=None) for sample in data.samples}
    ordered = sorted(videos.values(), key=lambda video: video.path.name.lower())
    clip_indices = [None] if clips_per_video is None else range(clips_per_video)
    train, test = [], []
    for label in range(len(data.classes)):
        of_class = [video for video in ordered if video.label == label]
        pool = [replace(video, clip_index=index) for video in of_class for index in clip_indices]
        order = rng.permutation(len(pool))
        num_test = round(len(pool) / 5)
        test += [pool[i] for i in order[:num_test]]
        train += [pool[i] for i in order[num_test:]]
    if not test:
        raise ValueError(
            f"{data.name}: {len(videos)} videos are too few to test on a fifth of them"
        )
    return replace(data, train=tuple(train), test=tuple(test), unused=())


def hold_out_validation(data: VideoSet) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Hold out whole groups of the training samples for validation.

    Not in the paper; validation chooses the best epoch. About 15 % of the groups of each class are
    held out, the same ones in every call. A group with most of a class's clips stays in training.

    Returns:
        Training and validation samples; no group is in both.

    Raises:
        ValueError: If a class would have no training sample left.
    """
    groups = sorted({sample.group for sample in data.train})
    ranked = [groups[i] for i in np.random.default_rng(0).permutation(len(groups))]
    held_out: set[str] = set()
    for label in sorted({sample.label for sample in data.train}):
        sizes = Counter(sample.group for sample in data.train if sample.label == label)
        ranked.sort(key=lambda group: group not in held_out)  # classes may share groups
        held_out |= _pick_groups([(group, sizes[group]) for group in ranked if group in sizes])
    train = tuple(sample for sample in data.train if sample.group not in held_out)
    if empty := {s.label for s in data.train} - {s.label for s in train}:
        raise ValueError(
            f"{data.name}: no training video of {[data.classes[i] for i in sorted(empty)]} is left "
            "beside the validation groups; a class needs two groups or more"
        )
    return train, tuple(sample for sample in data.train if sample.group in held_out)


def _pick_groups(sizes: list[tuple[str, int]]) -> set[str]:
    """Pick about 15 % of the groups from the front, with at most 20 % of the clips if possible."""
    num_groups, free_clips = max(1, round(0.15 * len(sizes))), 0.2 * sum(n for _, n in sizes)
    picked: set[str] = set()
    for group, size in sizes:
        if len(picked) < num_groups and size <= free_clips:
            picked.add(group)
            free_clips -= size
    return picked or {min(sizes, key=lambda pair: pair[1])[0]}


def _check_demo(root: Path, name: str) -> None:
    """Refuse a demo corpus under a real data set's name, and the reverse."""
    is_demo = (root / MARKER).is_file()
    if is_demo and not name.startswith("demo-"):
        raise ValueError(f"{root} is a drawn demo corpus, not {name!r}; set another data_dir")
    if not is_demo and name.startswith("demo-"):
        raise ValueError(
            f"{root} holds no demo corpus for {name!r}; run `python -m hstlib demo` first"
        )


def _read_hmdb51(root: Path, name: str, split: int) -> VideoSet:
    """Read ``<class>_test_split<n>.txt``: per line a file and 1 (train), 2 (test) or 0 (unused)."""
    lists, videos = root / "testTrainMulti_7030_splits", root / "hmdb51_org"
    suffix = f"_test_split{split}.txt"
    classes = tuple(sorted(file.name.removesuffix(suffix) for file in lists.glob(f"*{suffix}")))
    if not classes:
        raise ValueError(f"{lists}: no file *{suffix}; unpack the official split lists there")
    on_disk = _files_by_name(videos)
    by_tag: dict[str, list[Sample]] = {"0": [], "1": [], "2": []}
    for label, class_name in enumerate(classes):
        for place, line in _read_lines(lists / f"{class_name}{suffix}"):
            file_name, _, tag = line.strip().rpartition(" ")
            if tag not in by_tag or not file_name:
                raise ValueError(f"{place}: {line!r} is not '<file> <0, 1 or 2>'")
            path = on_disk.get(file_name.lower(), videos / class_name / file_name)
            title = file_name.rpartition(f"_{class_name}_")[0]
            by_tag[tag].append(Sample(path, label, f"{title}_{class_name}"))
    unused, train, test = (tuple(samples) for samples in by_tag.values())
    return VideoSet(name, classes, train, test, unused, videos)


def _read_ucf101(root: Path, name: str, split: int) -> VideoSet:
    """Read ``classInd.txt``, ``trainlist0<n>.txt`` and ``testlist0<n>.txt``."""
    files = [
        root / "ucfTrainTestlist" / file_name
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
    folders = root / "UCF-101", root / "UCF101"
    videos = next((folder for folder in folders if folder.is_dir()), folders[0])
    on_disk = _files_by_name(videos)
    train, test = (_read_ucf101_list(file, classes, videos, on_disk) for file in files[1:])
    return VideoSet(name, tuple(classes), train, test, folder=videos)


def _read_ucf101_list(
    file: Path, classes: list[str], videos: Path, on_disk: dict[str, Path]
) -> tuple[Sample, ...]:
    """Read ``<class>/<file>`` per line; training lists add a label, which is not needed."""
    labels = {class_name.lower(): label for label, class_name in enumerate(classes)}
    samples = []
    for place, line in _read_lines(file):
        entry = line.split()[0]
        class_name, _, file_name = entry.partition("/")
        if class_name.lower() not in labels or not file_name:
            raise ValueError(f"{place}: {line!r} is not '<class>/<file> [label]'")
        path = on_disk.get(file_name.lower(), videos / entry)
        group = file_name.rpartition("_")[0].lower()
        samples.append(Sample(path, labels[class_name.lower()], group))
    return tuple(samples)


def _read_class_folders(root: Path, split: int) -> VideoSet:
    """Use every folder as a class, and every third group in sorted order as the test set.

    The group of a file is its name up to the last underscore: ``seq01`` of ``seq01_004.avi``.
    """
    files = sorted(path for path in root.glob("*/*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ValueError(f"{root}: no videos; expected <class>/<file>, ending in {suffixes}")
    classes = tuple(sorted({path.parent.name for path in files}))
    samples = [
        Sample(path, classes.index(path.parent.name), path.stem.rpartition("_")[0] or path.stem)
        for path in files
    ]
    test_groups = set(sorted({s.group for s in samples})[split - 1 :: 3])
    train = tuple(s for s in samples if s.group not in test_groups)
    test = tuple(s for s in samples if s.group in test_groups)
    if not train or not test:
        raise ValueError(
            f"{root}: {len(train)} training and {len(test)} test videos in split {split}; three "
            "groups are needed, and a file's group is its name up to the last underscore"
        )
    return VideoSet(root.name, classes, train, test, folder=root)


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that are not blank, each after its place ``<file>:<number>``."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file; fetch the split lists again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", line


def _files_by_name(folder: Path) -> dict[str, Path]:
    """Index the videos of a folder by lower-case name.

    The lists of UCF101 and its archives disagree about capitals (HandStandPushups,
    HandstandPushups), and some archives have no class folders.
    """
    files: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*.avi") if path.is_file()):
        key = path.name.lower()
        if key in files:
            raise ValueError(f"{path} and {files[key]} have the same name; remove one")
        files[key] = path
    return files


def hmdb51_tags(file_name: str) -> dict[str, str]:
    """Read the tags of an HMDB51 file name.

    Returns:
        ``body``, ``camera``, ``people``, ``view`` and ``quality``; empty if the name has no tags.

    >>> hmdb51_tags("Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi")["view"]
    'le'
    """
    match = HMDB51_TAGS.search(file_name)
    return match.groupdict() if match else {}
