"""Evaluation of a model on clips that are not those of its own split."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from hstlib.config import DatasetName, TrainConfig, project_path
from hstlib.data.datasets import Sample, VideoSet, load_dataset, load_splits
from hstlib.data.demo import MARKER
from hstlib.data.layouts import read_layout
from hstlib.data.naming import letters
from hstlib.data.official import OFFICIAL_LISTS
from hstlib.options import setting_of_path
from hstlib.training.checkpoint import Checkpoint, short_hashes
from hstlib.training.evaluate import summarise
from hstlib.training.experiment import open_dataset
from hstlib.training.metrics import class_accuracy, confusion_matrix, predict_classes
from hstlib.training.provenance import content_hashes


@dataclass(frozen=True)
class Foreign:
    """Clips of another data set, with labels of the model.

    Attributes:
        data: The clips as the test set of a data set with the model's classes.
        unknown: Number of clips by class that the model does not have; they are left out.
        without_clips: Classes of the model that have no clip.
    """

    data: VideoSet
    unknown: dict[str, int]
    without_clips: tuple[str, ...]


def _name_and_place(on: str) -> tuple[str, str]:
    """Return the data set and the folder that ``on`` names: a data set, a folder or a list."""
    if on in get_args(DatasetName) and on != "folder":
        return on, ""
    place = project_path(on)
    name = next((name for name, lists in OFFICIAL_LISTS.items() if (place / lists).exists()), "")
    if name and (place / MARKER).is_file():
        name = f"demo-{name}"
    return name or "folder", on


def place_of(on: str) -> str:
    """Return the name of a data set as it is, and a path given in a shell as a setting."""
    return on if on in get_args(DatasetName) else setting_of_path(on)


def open_own(on: str, checkpoint: Checkpoint) -> VideoSet | None:
    """Read a model's own data set at its split; None if ``on`` is another data set.

    Args:
        on: As for :func:`open_foreign`; empty: the place where the model was trained.
        checkpoint: The model.
    """
    config = checkpoint.config
    if not on:
        return open_dataset(config)
    name, place = _name_and_place(on)
    if name != config.dataset:
        return None
    try:
        if name == "folder" and load_splits(name, place)[0].classes != checkpoint.data.class_names:
            return None
        data = open_dataset(config, place)
    except ValueError:  # no lists, or a folder with too few videos to be split
        return None
    return data if data.split_id == checkpoint.data.split_id else None


def open_foreign(on: str, config: TrainConfig, classes: Sequence[str]) -> Foreign:
    """Read the clips of another data set, and give them the labels of a model.

    The test part is read, or every clip of a folder that brings no split. Classes are matched by
    name, without capitals, spaces and punctuation.

    Args:
        on: Name of a data set, or a labelled folder or list.
        config: Settings of the model's run; its split is read if the data set has it.
        classes: Classes of the model, in the order of the labels.

    Raises:
        ValueError: If there are no videos, or the model has none of the classes.
    """
    name, place = _name_and_place(on)
    if name != "folder":
        data = load_dataset(name, place, config.split)
        samples = data.test
    else:
        splits = load_splits("folder", place)
        data = splits[min(config.split, len(splits)) - 1]
        has_split = bool(read_layout(project_path(place)).videos[0].roles)
        samples = data.test if has_split and data.test else data.samples
    labels = _match(data.classes, classes)
    known = [s for s in samples if data.classes[s.label] in labels]
    if not known:
        raise ValueError(
            f"{on}: the model has none of its classes {', '.join(data.classes)}; those of the "
            f"model are {', '.join(classes)}"
        )
    counts = Counter(data.classes[s.label] for s in samples)
    test = tuple(replace(s, label=labels[data.classes[s.label]]) for s in known)
    present = {sample.label for sample in test}
    return Foreign(
        VideoSet(data.name, tuple(classes), (), test, folder=data.folder),
        {name: count for name, count in sorted(counts.items()) if name not in labels},
        tuple(name for label, name in enumerate(classes) if label not in present),
    )


def _match(names: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each name that a model has: of the same name, else of a similar one."""
    similar: dict[str, list[int]] = defaultdict(list)
    for label, class_name in enumerate(classes):
        similar[letters(class_name)].append(label)
    labels = {}
    for name in names:
        found = [classes.index(name)] if name in classes else similar[letters(name)]
        if len(found) > 1:
            raise ValueError(
                f"class {name!r} may be {' or '.join(repr(classes[i]) for i in found)} of the "
                "model; rename it to one of them"
            )
        if found:
            labels[name] = found[0]
    return labels


def trained_clips(checkpoint: Checkpoint, foreign: Foreign) -> list[bool] | None:
    """Return for each clip whether the model was trained on a file of the same content.

    None if the checkpoint does not know its training clips.
    """
    if checkpoint.trained_on is None:
        return None
    hashes = content_hashes(foreign.data, checkpoint.config.clip)
    known = checkpoint.trained_on
    return [bool(short_hashes([hashes[s.path]]) & known) for s in foreign.data.test]


def describe_clips(foreign: Foreign, trained: Sequence[bool] | None) -> list[str]:
    """Describe which clips are evaluated, which are left out, and which were trained on."""
    test, classes = foreign.data.test, foreign.data.classes
    present = len({sample.label for sample in test})
    lines = [
        f"{foreign.data.name}: {len(test)} clips of {present} of the model's {len(classes)} classes"
    ]
    if foreign.unknown:
        counts = ", ".join(f"{name} ({count})" for name, count in foreign.unknown.items())
        lines.append(f"left out, classes that the model does not have: {counts}")
    if foreign.without_clips:
        lines.append(f"classes of the model without clips: {', '.join(foreign.without_clips)}")
    if trained is None:
        lines.append("warning: the checkpoint is old, so clips it was trained on are not known")
    elif any(trained):
        names = [s.path.name for s, is_trained in zip(test, trained, strict=True) if is_trained]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(
            f"warning: the model was trained on {len(names)} of these clips: "
            f"{', '.join(names[:3])}{more}"
        )
    return lines


def class_lines(scores: np.ndarray, samples: Sequence[Sample], classes: Sequence[str]) -> list[str]:
    """Describe the accuracy of each class that has clips, one line each.

    Args:
        scores: Probabilities, shape (N, classes).
        samples: The N clips.
        classes: Class names, in the order of the labels.
    """
    labels = [sample.label for sample in samples]
    confusion = confusion_matrix(labels, predict_classes(scores), len(classes))
    shares, totals = class_accuracy(confusion), confusion.sum(1)
    return [
        f"  {name}: {confusion[label, label]} of {totals[label]}, {shares[label]:.3f}"
        for label, name in enumerate(classes)
        if totals[label]
    ]


def summary_lines(
    scores: np.ndarray,
    views: Sequence[np.ndarray | None],
    samples: Sequence[Sample],
    trained: Sequence[bool] | None,
) -> list[str]:
    """Describe the metrics over all clips, and the accuracy without those that were trained on."""
    labels = [sample.label for sample in samples]
    lines = [f"{name} {value:.4g}" for name, value in summarise(scores, labels, views).items()]
    new = np.flatnonzero(~np.array(trained)) if trained and any(trained) else ()
    if len(new):
        part = summarise(scores[new], [labels[i] for i in new])
        lines.append(
            f"without clips it was trained on: top1 {part['top1']:.4g}, top5 {part['top5']:.4g} "
            f"of {len(new)} videos"
        )
    return lines
