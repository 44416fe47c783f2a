"""Accuracies as fractions, confusion, calibration, and parameter counts.

A video that cannot be read has NaN scores and the prediction -1. It counts as wrong in every
accuracy. Calibration leaves it out, since it has no confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn


def top_k_accuracy(scores: np.ndarray, labels: Sequence[int] | np.ndarray, k: int = 1) -> float:
    """Return the share of rows whose label is among the k highest scores.

    Args:
        scores: Scores, shape (N, num_classes). A row of NaN (an unreadable video) counts as wrong.
            Among equal scores, the lower class index ranks first.
        labels: N class indices.
        k: Number of highest scores to consider.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If there are no rows, or numbers of rows and labels differ.
    """
    labels = np.asarray(labels)
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"scores {scores.shape} and {len(labels)} labels: give one label per row, at least one"
        )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hits = (best == labels[:, None]).any(1) & ~np.isnan(scores).any(1)
    return float(hits.mean())


def clip_accuracy(views: Sequence[np.ndarray | None], labels: Sequence[int] | np.ndarray) -> float:
    """Return top-1 per view, scoring each view as if it were the whole video.

    Args:
        views: Scores of the views of each video, shape (V, num_classes). None marks an unreadable
            video; it counts as wrong, with as many views as the video that has most.
        labels: Class index of each video.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If there are no videos, or numbers of videos and labels differ.
    """
    if len(views) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"{len(views)} videos and {len(labels)} labels: give one label per video, at least one"
        )
    most = max((len(scores) for scores in views if scores is not None), default=1)
    hits = total = 0
    for scores, label in zip(views, labels, strict=True):
        if scores is not None:
            hits += int((predict_classes(scores) == label).sum())
        total += most if scores is None else len(scores)
    return hits / total


def predict_classes(scores: np.ndarray) -> np.ndarray:
    """Return the class of the highest score in each row (N, num_classes); -1 for a row of NaN."""
    return np.where(np.isnan(scores).any(1), -1, scores.argmax(1))


def confusion_matrix(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, num_classes: int
) -> np.ndarray:
    """Count the videos of every pair of true and predicted class.

    Args:
        labels: N class indices.
        predictions: N class indices; -1 for an unreadable video.
        num_classes: Number of classes, C.

    Returns:
        int64, shape (C, C + 1): one row per true class, one column per predicted class, and the
        unreadable videos in the last column. Each row sums to the number of videos of its class.

    Raises:
        ValueError: If the numbers of labels and predictions differ, or a value is not a class
            index.
    """
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if labels.shape != predictions.shape:
        raise ValueError(
            f"{len(labels)} labels and {len(predictions)} predictions: give one label each"
        )
    for name, values, lowest in (("label", labels, 0), ("prediction", predictions, -1)):
        wrong = values[(values < lowest) | (values >= num_classes)]
        if len(wrong):
            raise ValueError(f"{name} {wrong[0]} is not in {lowest} to {num_classes - 1}")
    confusion = np.zeros((num_classes, num_classes + 1), np.int64)
    np.add.at(confusion, (labels, predictions), 1)  # -1 is the last column
    return confusion


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of correct predictions among the videos of each class.

    Args:
        confusion: Result of :func:`confusion_matrix`, shape (C, C + 1).

    Returns:
        float64, shape (C,); NaN for a class without videos.
    """
    videos = confusion.sum(1)
    unknown = np.full(len(confusion), np.nan)
    return np.divide(confusion.diagonal(), videos, out=unknown, where=videos > 0)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean of :func:`class_accuracy` over the classes that have videos.

    Raises:
        ValueError: If no class has a video.
    """
    if not confusion.any():
        raise ValueError(f"confusion matrix of shape {confusion.shape} counts no videos")
    return float(np.nanmean(class_accuracy(confusion)))


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of predictions, in confidence bins of equal width from 0 to 1.

    Attributes:
        counts: Number of videos per bin, int64, shape (bins,).
        confidence: Mean probability of the predicted class per bin; NaN for an empty bin.
        accuracy: Share of correct predictions per bin; NaN for an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(
    scores: np.ndarray, labels: Sequence[int] | np.ndarray, bins: int = 10
) -> Reliability:
    """Bin videos by the probability of their predicted class.

    Args:
        scores: Probabilities, shape (N, num_classes). Rows of NaN are left out.
        labels: N class indices.
        bins: Number of bins.

    Raises:
        ValueError: If the numbers of rows and labels differ, or a score is not a probability.
    """
    if len(scores) != len(labels):
        raise ValueError(f"scores {scores.shape} and {len(labels)} labels: give one label per row")
    return bin_confidences(scores.max(1), predict_classes(scores) == np.asarray(labels), bins)


def bin_confidences(
    confidences: Sequence[float | None] | np.ndarray,
    hits: Sequence[bool] | np.ndarray,
    bins: int = 10,
) -> Reliability:
    """Bin predictions by their confidence.

    Not in the paper; Guo et al., "On Calibration of Modern Neural Networks", 2017. Bin i of n holds
    the confidences above i / n, up to and including (i + 1) / n.

    Args:
        confidences: N probabilities of the predicted class. None or NaN (unreadable videos) are
            left out.
        hits: Whether each of the N predictions is correct.
        bins: Number of bins.

    Raises:
        ValueError: If the numbers of confidences and hits differ, or a confidence is not a
            probability.
    """
    confidence, hits = np.asarray(confidences, np.float64), np.asarray(hits)
    if confidence.shape != hits.shape:
        raise ValueError(
            f"{len(confidence)} confidences and {len(hits)} hits: give one hit per confidence"
        )
    known = ~np.isnan(confidence)
    confidence, hits = confidence[known], hits[known]
    wrong = confidence[(confidence < 0) | (confidence > 1 + 1e-6)]
    if len(wrong):
        raise ValueError(f"confidence {wrong[0]:g} is not a probability; pass softmax scores")
    index = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(index, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(counts, mean(confidence), mean(hits))


def expected_calibration_error(bins: Reliability) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by video count.

    Raises:
        ValueError: If all bins are empty.
    """
    if not bins.counts.any():
        raise ValueError("all bins are empty: no video can be read, so there is no confidence")
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.counts) / bins.counts.sum())


def hits_by_tag(
    hits: Sequence[bool] | np.ndarray, tags: Sequence[dict[str, str]]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Count correct predictions and videos for every value of every tag.

    Args:
        hits: Whether the prediction is correct, for each of N videos.
        tags: Tags of each video, such as :func:`hstlib.data.datasets.hmdb51_tags` reads from a
            file name. A video is not counted for a tag that it lacks.

    Returns:
        Correct predictions and videos, by tag and by value, in order of the values.

    >>> hits_by_tag([True, False, True], [{"view": "le"}, {"view": "le"}, {"view": "fr"}])
    {'view': {'fr': (1, 1), 'le': (1, 2)}}
    """
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for hit, video in zip(hits, tags, strict=True):
        for tag, value in video.items():
            correct, videos = counts.setdefault(tag, {}).get(value, (0, 0))
            counts[tag][value] = correct + int(hit), videos + 1
    return {tag: dict(sorted(values.items())) for tag, values in counts.items()}


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
