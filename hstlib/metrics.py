"""Accuracies as fractions, confusion, calibration, and parameter counts.

A video that cannot be read has a row of NaN as scores and -1 as prediction. It counts as wrong in
every accuracy, and is left out of the calibration: there is no confidence to judge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn


def top_k_accuracy(scores: np.ndarray, labels: Sequence[int] | np.ndarray, k: int = 1) -> float:
    """Return the share of rows whose label is among the k highest scores.

    Args:
        scores: Shape (N, classes). A row of NaN (an unreadable video) counts as wrong. Of equal
            scores, the lower class ranks first.
        labels: N class indices.
        k: How many guesses count.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If there are no rows, or numbers of rows and labels differ.
    """
    labels = np.asarray(labels)
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"scores {scores.shape} and {len(labels)} labels do not form an accuracy")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hits = (best == labels[:, None]).any(1) & ~np.isnan(scores).any(1)
    return float(hits.mean())


def clip_accuracy(views: Sequence[np.ndarray | None], labels: Sequence[int] | np.ndarray) -> float:
    """Return top-1 over single views, as if each were all that is known of its video.

    Args:
        views: Scores of every view of each video, shape (V, classes); none: an unreadable video.
            Its views count as wrong, and it has as many as the readable video that has most: its
            windows times its crops, which are the same for all videos of a run.
        labels: Class index of each video.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If there are no videos, or numbers of videos and labels differ.
    """
    if len(views) != len(labels) or len(labels) == 0:
        raise ValueError(f"views of {len(views)} videos and {len(labels)} labels do not match")
    most = max((len(view) for view in views if view is not None), default=1)
    hits = total = 0
    for view, label in zip(views, labels, strict=True):
        if view is not None:
            hits += int((predict_classes(view) == label).sum())
        total += most if view is None else len(view)
    return hits / total


def predict_classes(scores: np.ndarray) -> np.ndarray:
    """Return the class of the highest score in each row (N, classes), -1 for a row of NaN."""
    return np.where(np.isnan(scores).any(1), -1, scores.argmax(1))


def confusion_matrix(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, num_classes: int
) -> np.ndarray:
    """Count the videos of every pair of true and predicted class.

    Args:
        labels: N class indices.
        predictions: N class indices, or -1 for an unreadable video.
        num_classes: C.

    Returns:
        int64, shape (C, C + 1): a row per true class, a column per predicted class, and the
        unreadable videos in the last column. A row sums to the videos of its class.

    Raises:
        ValueError: If the numbers of labels and predictions differ, or one is no class.
    """
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if labels.shape != predictions.shape:
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions do not match")
    for name, values, lowest in (("label", labels, 0), ("prediction", predictions, -1)):
        wrong = values[(values < lowest) | (values >= num_classes)]
        if len(wrong):
            raise ValueError(f"{name} {wrong[0]} is none of {lowest} to {num_classes - 1}")
    confusion = np.zeros((num_classes, num_classes + 1), np.int64)
    np.add.at(confusion, (labels, predictions), 1)  # -1 is the last column
    return confusion


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of right answers among the videos of each class.

    Args:
        confusion: Of :func:`confusion_matrix`, shape (C, C + 1).

    Returns:
        float64, shape (C,); NaN for a class without videos.
    """
    videos = confusion.sum(1)
    unknown = np.full(len(confusion), np.nan)
    return np.divide(confusion.diagonal(), videos, out=unknown, where=videos > 0)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean of :func:`class_accuracy` over the classes that have videos.

    Raises:
        ValueError: If no class has any.
    """
    if not confusion.any():
        raise ValueError(f"confusion {confusion.shape} holds no videos")
    return float(np.nanmean(class_accuracy(confusion)))


@dataclass(frozen=True)
class Reliability:
    """How sure a model was and how often it was right, in bins of equal width from 0 to 1.

    Attributes:
        counts: Videos of each bin, int64, shape (bins,).
        confidence: Mean probability of the predicted class; NaN where there are no videos.
        accuracy: Share of right answers; NaN where there are no videos.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(
    scores: np.ndarray, labels: Sequence[int] | np.ndarray, bins: int = 10
) -> Reliability:
    """Sort videos into bins by the probability of their predicted class.

    Args:
        scores: Probabilities, shape (N, classes). Rows of NaN are left out.
        labels: N class indices.
        bins: How many.

    Raises:
        ValueError: If the numbers of rows and labels differ, or scores are no probabilities.
    """
    if len(scores) != len(labels):
        raise ValueError(f"scores {scores.shape} and {len(labels)} labels do not match")
    return bin_confidences(scores.max(1), predict_classes(scores) == np.asarray(labels), bins)


def bin_confidences(
    confidences: Sequence[float | None] | np.ndarray,
    hits: Sequence[bool] | np.ndarray,
    bins: int = 10,
) -> Reliability:
    """Sort answers into bins by how sure they were.

    Not in the paper; Guo et al., "On Calibration of Modern Neural Networks", 2017. Bin i of n holds
    the confidences above i / n up to and including (i + 1) / n.

    Args:
        confidences: N probabilities of the predicted class; those that are none or NaN (unreadable
            videos) are left out.
        hits: Whether each of the N answers was right.
        bins: How many.

    Raises:
        ValueError: If the numbers of confidences and hits differ, or one is no probability.
    """
    confidence, hits = np.asarray(confidences, np.float64), np.asarray(hits)
    if confidence.shape != hits.shape:
        raise ValueError(f"{len(confidence)} confidences and {len(hits)} answers do not match")
    known = ~np.isnan(confidence)
    confidence, hits = confidence[known], hits[known]
    wrong = confidence[(confidence < 0) | (confidence > 1 + 1e-6)]
    if len(wrong):
        raise ValueError(f"confidence {wrong[0]:g} is no probability")
    index = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(index, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(counts, mean(confidence), mean(hits))


def expected_calibration_error(bins: Reliability) -> float:
    """Return the mean distance of confidence and accuracy over bins, each weighted by its videos.

    Raises:
        ValueError: If the bins hold no videos.
    """
    if not bins.counts.any():
        raise ValueError("no video can be read, so there is no confidence to judge")
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.counts) / bins.counts.sum())


def hits_by_tag(
    hits: Sequence[bool] | np.ndarray, tags: Sequence[dict[str, str]]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Count right answers and videos for every value of every tag.

    Args:
        hits: Whether the answer on each of N videos was right.
        tags: Those of each video, such as :func:`hstlib.datasets.hmdb51_tags` reads from its file
            name; a video counts for no tag that it lacks.

    Returns:
        By tag and value, in order: right answers, and videos.

    >>> hits_by_tag([True, False, True], [{"view": "le"}, {"view": "le"}, {"view": "fr"}])
    {'view': {'fr': (1, 1), 'le': (1, 2)}}
    """
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for hit, video in zip(hits, tags, strict=True):
        for tag, value in video.items():
            right, videos = counts.setdefault(tag, {}).get(value, (0, 0))
            counts[tag][value] = right + int(hit), videos + 1
    return {tag: dict(sorted(values.items())) for tag, values in counts.items()}


def accuracy_interval(accuracy: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy over ``count`` independent clips."""
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
