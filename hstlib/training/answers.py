"""Test results of a run, from the scores of its test videos."""

from typing import Any

import numpy as np

from hstlib.data.datasets import Sample, VideoSet, hmdb51_tags
from hstlib.data.demo import class_kinds, reverse_classes
from hstlib.training.evaluate import average_views, summarise
from hstlib.training.metrics import hits_by_tag, predict_classes

Views = list[np.ndarray | None]
"""Probabilities of each video's views, shape (views, classes); None: the video is unreadable."""


def evaluate_answers(views: Views, data: VideoSet) -> dict[str, Any]:
    """Return the fields of a row that follow from the scores of the test videos."""
    labels = [sample.label for sample in data.test]
    scores = average_views(views, len(data.classes))
    predictions = predict_classes(scores)
    groups = {name: number for number, name in enumerate(sorted({s.group for s in data.test}))}
    return {
        "test": summarise(scores, labels, views),
        "videos": [
            (sample.label, prediction, groups[sample.group])
            for sample, prediction in zip(data.test, predictions.tolist(), strict=True)
        ],
        "confidences": [None if np.isnan(score).any() else float(score.max()) for score in scores],
        "tags": hits_by_tag(predictions == labels, [hmdb51_tags(s.path.name) for s in data.test]),
    }


def evaluate_kinds(
    views: Views, shuffled: Views | None, data: VideoSet, dataset: str
) -> dict[str, float]:
    """Return accuracies by kind of class on a demo corpus, with and without shuffled frames."""
    if shuffled is None:
        return {}
    kinds: dict[str, float] = {}
    for suffix, scored in (("", views), ("_shuffled", shuffled)):
        scores = average_views(scored, len(data.classes))
        shares = kind_accuracy(dataset, data.classes, scores, data.test)
        kinds |= {f"{kind}{suffix}": share for kind, share in shares.items()}
    return kinds


def kind_accuracy(
    dataset: str, classes: tuple[str, ...], scores: np.ndarray, samples: tuple[Sample, ...]
) -> dict[str, float]:
    """Return accuracies on a demo corpus by kind of class.

    Args:
        dataset: Name of the demo corpus.
        classes: Class names in the order of the labels.
        scores: Probabilities, shape (N, classes); NaN: unreadable video.
        samples: The N videos.

    Returns:
        ``motion`` and ``appearance``: top-1 over the classes of that kind. ``direction``: share of
        the motion clips whose class scores higher than the class of the same still frames in
        opposite order; chance is 0.5.
    """
    kinds, reverse = class_kinds(dataset), reverse_classes(dataset)
    labels = np.array([sample.label for sample in samples])
    moving = np.array([kinds[classes[label]] == "motion" for label in labels])
    correct = (scores.argmax(1) == labels) & ~np.isnan(scores).any(1)
    own = labels[moving]
    opposite = [classes.index(reverse[classes[label]]) for label in own]
    rows = np.arange(len(own))
    return {
        "motion": float(correct[moving].mean()),
        "appearance": float(correct[~moving].mean()),
        "direction": float((scores[moving][rows, own] > scores[moving][rows, opposite]).mean()),
    }
