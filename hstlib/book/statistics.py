"""Confidence intervals of accuracies, and paired comparisons of models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hstlib.book.paper import MODEL_TITLES
from hstlib.training.rows import Row

ModelReading = tuple[str, str]
"""Names of a model and of its reading of the paper."""

DEFAULT_HST: ModelReading = ("hst", "paper")


@dataclass(frozen=True)
class Interval:
    """An accuracy or a difference of accuracies with its 95 % interval, all in percent.

    Attributes:
        mean: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


def hits_by_group(rows: Sequence[Row], labels: set[int] | None = None) -> np.ndarray:
    """Count correct predictions and videos by seed and by group of test videos.

    Args:
        rows: Runs of one model, with one or more seeds on the same splits.
        labels: Classes to count. None: all classes.

    Returns:
        int64, shape (seeds, groups, 2): correct predictions and videos. Groups of different splits
        are counted apart.

    Raises:
        ValueError: If the seeds were not tested on the same videos.
    """
    seeds: dict[int, dict[tuple[int, int], list[int]]] = {}
    for row in rows:
        groups = seeds.setdefault(row.config.seed, {})
        for label, prediction, group in row.videos:
            if labels is None or label in labels:
                counts = groups.setdefault((row.config.split, group), [0, 0])
                counts[0] += prediction == label
                counts[1] += 1
    keys = sorted({key for groups in seeds.values() for key in groups})
    hits = np.array([[seeds[seed].get(key, [0, 0]) for key in keys] for seed in sorted(seeds)])
    if (hits[..., 1] != hits[:1, :, 1]).any():
        raise ValueError(f"{rows[0].run_id}: its seeds were not tested on the same videos")
    return hits


def bootstrap(hits: np.ndarray, baseline: np.ndarray | None = None) -> Interval:
    """Estimate an accuracy, or the difference of two, by the bootstrap.

    Seeds and groups are resampled with replacement, 4000 times. Videos of one group are cut from
    the same source, so single videos are not independent evidence.

    Args:
        hits: Result of :func:`hits_by_group`.
        baseline: The same of another model, with the same seeds and groups. If given, its accuracy
            is subtracted, resample by resample.

    Returns:
        Mean and interval, in percent.
    """
    rng = np.random.default_rng(0)
    seeds, groups = hits.shape[:2]
    drawn_seeds = rng.integers(seeds, size=(4000, seeds, 1))
    drawn_groups = rng.integers(groups, size=(4000, 1, groups))

    def accuracy(counts: np.ndarray) -> tuple[float, np.ndarray]:
        resampled = counts[drawn_seeds, drawn_groups].sum((1, 2))
        correct, videos = counts.sum((0, 1))
        return 100 * correct / videos, 100 * resampled[:, 0] / resampled[:, 1]

    mean, samples = accuracy(hits)
    if baseline is not None:
        baseline_mean, baseline_samples = accuracy(baseline)
        mean, samples = mean - baseline_mean, samples - baseline_samples
    return Interval(mean, *np.percentile(samples, [2.5, 97.5]))


@dataclass(frozen=True)
class Comparison:
    """Result of one model on one set of test videos.

    Attributes:
        name: Title of the model, or name of the reading.
        column: Title of the set of test videos.
        accuracy: Top-1, in percent.
        difference: Top-1 minus that of HST in its default reading, in percentage points. None for
            that HST itself, and where it was not run.
    """

    name: str
    column: str
    accuracy: Interval
    difference: Interval | None


def compare_models(
    rows: Sequence[Row], columns: dict[str, tuple[str, set[int] | None]]
) -> list[Comparison]:
    """Compare the baselines, and every other reading of HST, with HST in its default reading.

    Args:
        rows: Finished runs with equal budgets.
        columns: Sets of test videos by title: a data set, and the labels to count (None: all).

    Returns:
        HST first, then the baselines, the trunk alone and the other readings, each in the order of
        ``columns``. Models without runs are left out.

    Raises:
        ValueError: If two models were not tested on the same videos.
    """
    runs: dict[ModelReading, dict[str, list[Row]]] = {}
    for row in rows:
        datasets = runs.setdefault((row.config.model, row.config.reading), {})
        datasets.setdefault(row.config.dataset, []).append(row)
    hst = runs.get(DEFAULT_HST, {})
    return [
        _compare(model, runs[model][dataset], hst.get(dataset), column, labels)
        for model in sorted(runs, key=_rank)
        for column, (dataset, labels) in columns.items()
        if dataset in runs[model]
    ]


def _compare(
    model: ModelReading,
    rows: Sequence[Row],
    hst_rows: Sequence[Row] | None,
    column: str,
    labels: set[int] | None,
) -> Comparison:
    hits = hits_by_group(rows, labels)
    title = MODEL_TITLES[model[0]] if model[1] == "paper" else model[1].replace("-", " ")
    difference = None
    if hst_rows and model != DEFAULT_HST:
        baseline = hits_by_group(hst_rows, labels)
        if hits.shape != baseline.shape or (hits[..., 1] != baseline[..., 1]).any():
            raise ValueError(f"{title} and HST were not tested on the same {column} videos")
        difference = bootstrap(hits, baseline)
    return Comparison(title, column, bootstrap(hits), difference)


def _rank(model: ModelReading) -> tuple:
    """Return the sort key of a model: HST, baselines, trunk alone, other readings."""
    _, reading = model
    return model != DEFAULT_HST, reading != "paper", reading != "trunk-alone", *model


def wilson_interval(accuracy: float, count: int) -> Interval:
    """Return Wilson's 95 % interval of an accuracy, for independent videos.

    Args:
        accuracy: Accuracy as a fraction in [0, 1].
        count: Number of videos.

    Returns:
        Accuracy and interval, in percent.
    """
    z = 1.96
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    return Interval(100 * accuracy, 100 * (centre - half), 100 * (centre + half))
