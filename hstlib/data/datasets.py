"""Training and test sets of HMDB51, UCF101, J-HMDB, the demo corpora, and videos of your own."""

import logging
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from hstlib.config import LIST_NAME, Protocol, data_root, project_path
from hstlib.data.demo import MARKER
from hstlib.data.layouts import Layout, read_layout
from hstlib.data.lists import check_split, count_splits, video_set
from hstlib.data.naming import HMDB51_TAGS, hmdb51_tags
from hstlib.data.official import read_hmdb51, read_jhmdb, read_ucf101
from hstlib.data.samples import Sample, VideoSet

__all__ = [
    "HMDB51_TAGS",
    "NUM_CLASSES",
    "Sample",
    "VideoSet",
    "hmdb51_tags",
    "hold_out_validation",
    "load_dataset",
    "load_splits",
    "split_at_random",
]
NUM_CLASSES = {"hmdb51": 51, "ucf101": 101, "jhmdb": 21, "demo-hmdb51": 8, "demo-ucf101": 8}
READERS = {"hmdb51": read_hmdb51, "ucf101": read_ucf101, "jhmdb": read_jhmdb}
log = logging.getLogger(__name__)


def load_dataset(
    name: str,
    data_dir: str | Path = "",
    split: int = 1,
    *,
    protocol: Protocol = "official",
    clips_per_video: int = 1,
) -> VideoSet:
    """Read a data set at one split.

    Args:
        name: ``hmdb51``, ``ucf101``, ``jhmdb``, ``demo-hmdb51``, ``demo-ucf101``, or ``folder`` for
            videos of your own.
        data_dir: Folder of the data set, absolute or relative to the project. Empty: its place
            under the data root (``hmdb51``, ``ucf101``, ``jhmdb``, ``demo/hmdb51`` or
            ``demo/ucf101``). For ``folder``: a list (:mod:`hstlib.data.lists`), a folder with a
            list ``videos.csv``, with class folders, or with a ready split.
        split: Split 1-3; also the seed of the random protocols.
        protocol: How train and test are separated, as in
            :attr:`hstlib.config.DataConfig.protocol`.
        clips_per_video: Clips per video, which ``random-by-clip`` assigns independently.

    Returns:
        The samples of the split, including listed files that are not on disk; ``missing`` names
        those.

    Raises:
        ValueError: If an argument is unknown, the lists are missing, damaged or of another data
            set, or the split tests a class without training videos.
    """
    if split not in (1, 2, 3):
        raise ValueError(f"split is {split}; use 1, 2 or 3")
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r} is unknown; use one of {[*get_args(Protocol)]}")
    if name == "folder":
        layout = _read_layout(data_dir)
        at_split = protocol in ("official", "validation")
        data = _folder_set(layout, _place(data_dir), split if at_split else 1)
        if at_split:
            check_split(data, split, _place(data_dir))
        _log_choices(data, layout)
    else:
        data = _read_official(name, data_dir, split)
    if protocol == "official":
        return data
    if protocol == "validation":
        train, validation = hold_out_validation(data)
        unused = data.unused + data.test
        return replace(data, train=train, test=validation, unused=unused, validation=())
    return split_at_random(data, split, clips_per_video if protocol == "random-by-clip" else None)


def load_splits(name: str, data_dir: str | Path = "") -> list[VideoSet]:
    """Read every split that a data set has: three, or one if a list or the folders give one.

    Whether a model can be trained on a split is not checked here.

    Args:
        name: Name of the data set, as for :func:`load_dataset`.
        data_dir: Place of the data set, as for :func:`load_dataset`.
    """
    if name != "folder":
        return [_read_official(name, data_dir, split) for split in (1, 2, 3)]
    layout = _read_layout(data_dir)
    splits = range(1, count_splits(layout.videos) + 1)
    return [_folder_set(layout, _place(data_dir), split) for split in splits]


def _place(data_dir: str | Path) -> Path:
    if not data_dir:
        raise ValueError(
            "dataset 'folder' needs data_dir, a list or a folder with a folder per class"
        )
    return project_path(data_dir)


def _read_layout(data_dir: str | Path) -> Layout:
    return read_layout(_place(data_dir))


def _folder_set(layout: Layout, place: Path, split: int) -> VideoSet:
    is_other_list = place.is_file() and place.name != LIST_NAME
    name = place.stem if is_other_list else (place.parent if place.is_file() else place).name
    data = video_set(name, layout.folder, layout.videos, split, place)
    return replace(data, from_list=layout.is_list)


def _log_choices(data: VideoSet, layout: Layout) -> None:
    log.info(
        "%s: %s, %d classes; %d training and %d test videos",
        *(data.name, layout.kind, len(data.classes), len(data.train), len(data.test)),
    )
    if not data.sources_known:
        log.warning(
            "%s: neither a list nor the file names give the source of every video, so training "
            "and test may share sources; `python -m hstlib adopt` writes a list to fill in",
            data.name,
        )


def _read_official(name: str, data_dir: str | Path, split: int) -> VideoSet:
    if name not in NUM_CLASSES:
        raise ValueError(f"dataset {name!r} is unknown; use one of {[*NUM_CLASSES, 'folder']}")
    root = project_path(data_dir) if data_dir else data_root() / name.replace("-", "/")
    _check_demo(root, name)
    data = READERS[name.removeprefix("demo-")](root, name, split)
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
    return replace(data, train=tuple(train), test=tuple(test), unused=(), validation=())


def hold_out_validation(data: VideoSet) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Hold out whole groups of the training samples for validation.

    Not in the paper; validation chooses the best epoch. About 15 % of the groups of each class are
    held out, the same ones in every call. A group with most of a class's clips stays in training,
    and so does the only group of a class. A data set with validation videos of its own is used as
    it is.

    Returns:
        Training and validation samples; no group is in both.

    Raises:
        ValueError: If no group can be held out, or a class would have no training sample left.
    """
    if data.validation:
        return data.train, data.validation
    groups = sorted({sample.group for sample in data.train})
    ranked = [groups[i] for i in np.random.default_rng(0).permutation(len(groups))]
    by_class: dict[int, Counter[str]] = defaultdict(Counter)
    for sample in data.train:
        by_class[sample.label][sample.group] += 1
    needed = {group for sizes in by_class.values() if len(sizes) == 1 for group in sizes}
    held_out: set[str] = set()
    for _, sizes in sorted(by_class.items()):
        ranked.sort(key=lambda group: group not in held_out)  # classes may share groups
        free = [(group, sizes[group]) for group in ranked if group in sizes and group not in needed]
        held_out |= _pick_groups(free) if free else set()
    train = tuple(sample for sample in data.train if sample.group not in held_out)
    if not held_out or by_class.keys() - {sample.label for sample in train}:
        empty = sorted(by_class.keys() - {sample.label for sample in train})
        raise ValueError(
            f"{data.name}: no group can be held out for validation without leaving "
            f"{[data.classes[label] for label in empty] or 'a class'} without training videos; a "
            "class needs two groups or more"
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
