"""HMDB51, UCF101, the demo corpora and plain folders of videos as lists of samples and tensors."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hstlib.augment import augment
from hstlib.config import AugmentConfig, Protocol, data_root, project_root
from hstlib.demo import MARKER
from hstlib.store import ClipStore

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v"}
NUM_CLASSES = {"hmdb51": 51, "ucf101": 101, "demo-hmdb51": 8, "demo-ucf101": 8}
HMDB51_TAGS = re.compile(
    r"_(?P<body>[hufl])_(?P<camera>cm|nm)_np(?P<people>\d+)_(?P<view>fr|le|ri|ba)"
    r"_(?P<quality>goo|med|bad)_\d+\.avi$"
)

# Mean and standard deviation of RGB over Kinetics-400, as the field uses them.
RGB_MEAN = (0.43216, 0.394666, 0.37645)
RGB_STD = (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True)
class Sample:
    """One video of a data set.

    Attributes:
        path: The file; it need not exist.
        label: Index of the class.
        group: The source that the clip was cut from; no group may be in train and test.
        window: Which of the video's clips this is; none: all of them.
    """

    path: Path
    label: int
    group: str
    window: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """A data set at one split.

    Attributes:
        name: Of the data set.
        classes: Names, in the order of the labels.
        train: Training samples.
        test: Test samples.
        unused: Samples that this split leaves out.
        folder: Where the videos lie.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unused: tuple[Sample, ...] = ()
    folder: Path = Path()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples in the order of their paths, whatever the split."""
        return tuple(sorted(self.train + self.test + self.unused, key=lambda s: str(s.path)))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all samples in order, each once; the same whatever the protocol."""
        return tuple(dict.fromkeys(sample.path for sample in self.samples))

    @property
    def split_id(self) -> str:
        """Hash of the classes in their order and of the training and the test list."""
        lines = [repr(self.classes)]
        for role, samples in (("train", self.train), ("test", self.test)):
            lines += sorted(f"{role} {s.label} {s.path.name} {s.window}" for s in samples)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def missing(self) -> tuple[Path, ...]:
        """Files of the lists that are not on disk."""
        return tuple(path for path in self.paths if not path.is_file())


def load_dataset(
    name: str,
    data_dir: str | Path = "",
    split: int = 1,
    *,
    protocol: Protocol = "official",
    num_windows: int = 1,
) -> VideoSet:
    """Read the official lists of a data set, or walk a folder of class folders.

    Args:
        name: ``hmdb51``, ``ucf101``, ``demo-hmdb51``, ``demo-ucf101`` or ``folder``.
        data_dir: Where it lies, relative to the working directory or else to the project; empty:
            under the data root (``hmdb51``, ``ucf101``, ``demo/hmdb51``, ``demo/ucf101``).
        split: 1-3; the seed of a protocol that splits at random.
        protocol: See :attr:`hstlib.config.TrainConfig.protocol`.
        num_windows: Clips of each video, which ``random-by-clip`` tears apart.

    Returns:
        The samples of the split. Files that the lists name and the disk lacks are kept, and shown
        by ``missing``.

    Raises:
        ValueError: If the lists are not there, are damaged, or belong to another data set.
    """
    data = _official(name, data_dir, split)
    if protocol == "official":
        return data
    return split_at_random(data, split, num_windows if protocol == "random-by-clip" else None)


def _official(name: str, data_dir: str | Path, split: int) -> VideoSet:
    if data_dir and not Path(data_dir).exists():
        data_dir = project_root() / data_dir
    if name == "folder":
        if not data_dir:
            raise ValueError("dataset 'folder' needs data_dir, a folder with a folder per class")
        return _class_folders(Path(data_dir), split)
    if name not in NUM_CLASSES:
        raise ValueError(f"dataset {name!r} is unknown; use one of {[*NUM_CLASSES, 'folder']}")
    root = Path(data_dir) if data_dir else data_root() / name.replace("-", "/")
    _check_demo(root, name)
    videos = _hmdb51(root, name, split) if name.endswith("hmdb51") else _ucf101(root, name, split)
    if len(videos.classes) != NUM_CLASSES[name]:
        raise ValueError(
            f"{root}: {name} has {NUM_CLASSES[name]} classes, the lists here have "
            f"{len(videos.classes)}; fetch the split lists again"
        )
    return videos


def split_at_random(data: VideoSet, seed: int, num_windows: int | None = None) -> VideoSet:
    """Pool all videos and test on a fifth of each class, whatever the groups.

    Not in the paper. Much public code splits so; it leaks, see :mod:`hstlib.leakage`.

    Args:
        data: Any split of the data set.
        seed: Same seed, same split.
        num_windows: Draw single clips, so many of each video; none: draw whole videos.

    Raises:
        ValueError: If a video has only one clip to draw, or there are too few to test on any.
    """
    if num_windows == 1:
        raise ValueError("num_windows 1 leaves one clip of each video to draw; use 2 or more")
    rng = np.random.default_rng(seed)
    videos = {sample.path: replace(sample, window=None) for sample in data.samples}
    ordered = sorted(videos.values(), key=lambda video: video.path.name.lower())
    windows = [None] if num_windows is None else range(num_windows)
    train, test = [], []
    for label in range(len(data.classes)):
        own = [video for video in ordered if video.label == label]
        drawn = [replace(video, window=window) for video in own for window in windows]
        order = rng.permutation(len(drawn))
        num_test = round(len(drawn) / 5)
        test += [drawn[i] for i in order[:num_test]]
        train += [drawn[i] for i in order[num_test:]]
    if not test:
        raise ValueError(
            f"{data.name}: {len(videos)} videos are too few to test on a fifth of them"
        )
    return replace(data, train=tuple(train), test=tuple(test), unused=())


def carve_validation(data: VideoSet) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Set whole groups of the training samples aside, to choose a checkpoint by.

    Not in the paper. Of each class about 15 % of the groups, the same ones at every call; a film
    that gave most of a class's clips stays in training.

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
    if lost := {s.label for s in data.train} - {s.label for s in train}:
        raise ValueError(
            f"{data.name}: no training video of {[data.classes[i] for i in sorted(lost)]} is left "
            "beside the validation groups; a class needs two groups or more"
        )
    return train, tuple(sample for sample in data.train if sample.group in held_out)


def _pick_groups(sizes: list[tuple[str, int]]) -> set[str]:
    """Pick about 15 % of the groups from the front, with 20 % of the clips or less if possible."""
    wanted, room = max(1, round(0.15 * len(sizes))), 0.2 * sum(size for _, size in sizes)
    picked: set[str] = set()
    for group, size in sizes:
        if len(picked) < wanted and size <= room:
            picked.add(group)
            room -= size
    return picked or {min(sizes, key=lambda pair: pair[1])[0]}


def _check_demo(root: Path, name: str) -> None:
    """Keep drawn and real corpora apart."""
    drawn = (root / MARKER).is_file()
    if drawn != name.startswith("demo-"):
        has = "is a drawn demo corpus" if drawn else "holds no demo corpus"
        advice = "name another folder" if drawn else "run `python -m hstlib demo` first"
        raise ValueError(f"{root} {has}, but the data set asked for is {name!r}; {advice}")


def _hmdb51(root: Path, name: str, split: int) -> VideoSet:
    """Read ``<class>_test_split<n>.txt``: a file and 1 (train), 2 (test) or 0 (unused) a line."""
    lists = root / "testTrainMulti_7030_splits"
    suffix = f"_test_split{split}.txt"
    classes = tuple(sorted(f.name.removesuffix(suffix) for f in lists.glob(f"*{suffix}")))
    if not classes:
        raise ValueError(f"{lists}: no *{suffix}; unpack the official split lists")
    videos = root / "hmdb51_org"
    on_disk = _files_by_name(videos)
    subsets: dict[str, list[Sample]] = {"0": [], "1": [], "2": []}
    for label, class_name in enumerate(classes):
        file = lists / f"{class_name}{suffix}"
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            video, _, tag = line.strip().rpartition(" ")
            if tag not in subsets or not video:
                raise ValueError(f"{file}:{number}: {line!r} is not '<file> <0, 1 or 2>'")
            path = on_disk.get(video.lower(), videos / class_name / video)
            title = video.rpartition(f"_{class_name}_")[0]
            subsets[tag].append(Sample(path, label, f"{title}_{class_name}"))
    unused, train, test = (tuple(samples) for samples in subsets.values())
    return VideoSet(name, classes, train, test, unused, videos)


def _ucf101(root: Path, name: str, split: int) -> VideoSet:
    """Read ``classInd.txt``, ``trainlist0<n>.txt`` and ``testlist0<n>.txt``."""
    lists = root / "ucfTrainTestlist"
    index, train, test = (
        lists / name
        for name in ("classInd.txt", f"trainlist{split:02d}.txt", f"testlist{split:02d}.txt")
    )
    for file in (index, train, test):
        if not file.is_file():
            raise ValueError(f"{file} is missing; unpack the official split lists")
    classes = []
    for number, line in enumerate(index.read_text().splitlines(), start=1):
        if line.strip():
            if len(line.split()) != 2:
                raise ValueError(f"{index}:{number}: {line!r} is not '<label> <class>'")
            classes.append(line.split()[1])
    labels = {class_name.lower(): label for label, class_name in enumerate(classes)}
    videos = next(
        (root / d for d in ("UCF-101", "UCF101") if (root / d).is_dir()), root / "UCF-101"
    )
    on_disk = _files_by_name(videos)

    def read(file: Path) -> tuple[Sample, ...]:
        samples = []
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            entry = line.split()[0]
            class_name, _, video = entry.partition("/")
            if class_name.lower() not in labels or not video:
                raise ValueError(f"{file}:{number}: {line!r} is not '<class>/<file> [label]'")
            path = on_disk.get(video.lower(), videos / entry)
            group = video.rpartition("_")[0].lower()
            samples.append(Sample(path, labels[class_name.lower()], group))
        return tuple(samples)

    return VideoSet(name, tuple(classes), read(train), read(test), folder=videos)


def _class_folders(root: Path, split: int) -> VideoSet:
    """Take every folder as a class, and every third group of files, in order, as the test set.

    The group of a file is its name up to the last underscore: ``seq01`` of ``seq01_004.avi``.
    """
    files = sorted(p for p in root.glob("*/*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise ValueError(f"{root}: no videos; expected <class>/<file> with one of {VIDEO_SUFFIXES}")
    classes = tuple(sorted({path.parent.name for path in files}))
    samples = [
        Sample(path, classes.index(path.parent.name), path.stem.rpartition("_")[0] or path.stem)
        for path in files
    ]
    held_out = set(sorted({s.group for s in samples})[split - 1 :: 3])
    train = tuple(s for s in samples if s.group not in held_out)
    test = tuple(s for s in samples if s.group in held_out)
    if not train or not test:
        raise ValueError(
            f"{root}: {len(train)} training and {len(test)} test videos in split {split}; three "
            "groups are needed, and a file's group is its name up to the last underscore"
        )
    return VideoSet(root.name, classes, train, test, folder=root)


def _files_by_name(folder: Path) -> dict[str, Path]:
    """Index the videos of a folder by lower-case name.

    The lists of UCF101 and its archives disagree about capitals (HandStandPushups,
    HandstandPushups), and some archives have no class folders.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*.avi") if path.is_file()):
        key = path.name.lower()
        if key in found:
            raise ValueError(f"{path} and {found[key]} have the same name; remove one")
        found[key] = path
    return found


class VideoDataset(Dataset):
    """Training clips, their flow and labels, of samples that lie in a clip store.

    Args:
        samples: What to read.
        store: Holds the clips of every sample.
        seed: Of all draws; they depend on (seed, epoch, index) alone, so that a resumed run, or one
            with other loader processes, sees the same clips.
        augmentation: What is changed at random.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: ClipStore,
        seed: int = 0,
        augmentation: AugmentConfig | None = None,
    ):
        self.samples, self.store = tuple(samples), store
        self.seed, self.epoch = seed, 0
        self.augmentation = augmentation or AugmentConfig()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Draw one clip of one video.

        Returns:
            Frames, uint8, shape (T, H, W, 3); flow in pixels per frame, float16, shape
            (2, T, H, W); and the label.
        """
        sample = self.samples[index]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        window = int(rng.integers(self.store.num_windows))
        frames, flow = self.store.read(
            sample.path, window if sample.window is None else sample.window
        )
        frames, flow = augment(frames, flow, self.augmentation, rng)
        contiguous = np.ascontiguousarray(frames), np.ascontiguousarray(flow)
        return *map(torch.from_numpy, contiguous), sample.label


def normalise(frames: Tensor) -> Tensor:
    """Turn frames as decoded into clips as the models take them.

    Args:
        frames: RGB, uint8, shape (..., T, H, W, 3).

    Returns:
        float32, shape (..., 3, T, H, W), of mean 0 and variance 1 over Kinetics-400.

    Raises:
        ValueError: If the frames are not uint8 or not RGB.
    """
    if frames.dtype != torch.uint8 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames have shape {tuple(frames.shape)} and type {frames.dtype}, "
            "expected uint8 (..., T, H, W, 3)"
        )
    mean, std = _rgb_statistics(frames.device)
    return ((frames / 255 - mean) / std).movedim(-1, -4)


@cache
def _rgb_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Bring mean and deviation to a device once: on a GPU, a copy in every step would stop it."""
    with torch.inference_mode(False):
        return torch.tensor(RGB_MEAN, device=device), torch.tensor(RGB_STD, device=device)


def hmdb51_tags(file_name: str) -> dict[str, str]:
    """Read the tags of an HMDB51 file name.

    Returns:
        ``body``, ``camera``, ``people``, ``view``, ``quality``; empty for another kind of name.

    >>> hmdb51_tags("Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi")["view"]
    'le'
    """
    found = HMDB51_TAGS.search(file_name)
    return found.groupdict() if found else {}
