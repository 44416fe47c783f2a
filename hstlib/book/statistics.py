"""Confidence intervals of accuracies, paired comparisons of models, and Holm's correction."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hstlib.training.rows import Row

ModelReading = tuple[str, str]
"""Names of a model and of its reading of the paper."""

DEFAULT_HST: ModelReading = ("hst", "paper")


ALPHA = 0.05
"""Probability that an interval misses the truth; all intervals are 95 % intervals."""

NORMAL = math.inf
"""Degrees of freedom of the normal distribution, as a limit of Student's t."""


@dataclass(frozen=True)
class Interval:
    """An accuracy or a difference of accuracies with its 95 % interval, all in percent.

    Attributes:
        mean: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p_value: Probability of a difference at least as far from 0 if the models do not differ. It
            is below 0.05 exactly where the interval excludes 0. None for an accuracy.
    """

    mean: float
    low: float
    high: float
    p_value: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"

    @property
    def points(self) -> str:
        """A difference in words, with its sign."""
        return f"{self.mean:+.1f} points [{self.low:+.1f}, {self.high:+.1f}]"

    @property
    def reversed(self) -> "Interval":
        """The same difference, seen from the other side."""
        return Interval(-self.mean, -self.high, -self.low, self.p_value)


@dataclass(frozen=True, eq=False)
class SplitHits:
    """Correct predictions of one model on one split, by run and by source of the test videos.

    Attributes:
        correct: Number of correct predictions, shape (runs, sources). A run is one seed.
        videos: Number of videos, shape (sources,).
    """

    correct: np.ndarray
    videos: np.ndarray


Hits = list[SplitHits]
"""Correct predictions of one model, a member for each split; splits may have different seeds."""


def hits_by_group(rows: Sequence[Row]) -> Hits:
    """Count correct predictions and videos by split, seed and source of the test videos.

    A source is the group of a video. In the drawn corpora, a film gives its background and colours
    to one group of every class, so there a source is a film: all groups with the same look.

    Args:
        rows: Runs of one model, one for each split and seed.

    Returns:
        The counts, ordered by split, seed and source. Sources of different splits are counted
        apart.

    Raises:
        ValueError: If the seeds of a split were not tested on the same videos.
    """
    splits: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.config.split, row.config.seed)):
        splits[row.config.split].append(row)
    return [_hits_on_split(runs) for runs in splits.values()]


def _hits_on_split(rows: Sequence[Row]) -> SplitHits:
    counts: list[dict[int, list[int]]] = []
    for row in rows:
        sources, by_source = _sources(row), {}
        for label, prediction, group in row.videos:
            count = by_source.setdefault(sources[group], [0, 0])
            count[0] += prediction == label
            count[1] += 1
        counts.append(by_source)
    keys = sorted({key for by_source in counts for key in by_source})
    table = np.array([[by_source.get(key, [0, 0]) for key in keys] for by_source in counts])
    if (table[..., 1] != table[:1, :, 1]).any():
        raise ValueError(f"{rows[0].run_id}: its seeds were not tested on the same videos")
    return SplitHits(table[..., 0], table[0, :, 1])


def same_videos(hits: Hits, baseline: Hits) -> bool:
    """Return whether two results count as many splits and runs, and the same sources and videos."""
    return len(hits) == len(baseline) and all(
        own.correct.shape == other.correct.shape and np.array_equal(own.videos, other.videos)
        for own, other in zip(hits, baseline, strict=True)
    )


def _sources(row: Row) -> dict[int, int]:
    """Return the source of each group of a row's test videos.

    A row numbers its groups, and in a drawn corpus a group is a film and a class. Official lists
    take the same films from every class, and the names of a class's groups are ordered by film, so
    the rank of a group in its class is its film. Elsewhere, and where the classes do not have
    equally many groups of their own, each group is its own source.
    """
    groups: dict[int, set[int]] = defaultdict(set)
    for label, _, group in row.videos:
        groups[label].add(group)
    same = {group: group for members in groups.values() for group in members}
    drawn = row.config.dataset.startswith("demo-") and row.config.protocol == "official"
    sizes = [len(members) for members in groups.values()]
    if not drawn or len(set(sizes)) > 1 or sum(sizes) > len(same):
        return same
    return {group: i for members in groups.values() for i, group in enumerate(sorted(members))}


def confidence_interval(hits: Hits, baseline: Hits | None = None) -> Interval:
    """Estimate an accuracy, or the difference of two, for new sources and new training runs.

    Videos of one source are not independent evidence, and neither are answers of one training run:
    one seed on one split. So the variance of the mean is that between the sources of a split, plus
    that between its runs, minus that of single cells, which both contain. A split with one run has
    the variance between runs that the others show. Each of the three has few degrees of freedom, so
    each is multiplied by the square of its own quantile of Student's t before they are summed. The
    root is half the width of the interval of a difference. An accuracy has Wilson's interval for
    the number of independent videos that would have this width, which keeps it within 0 to 100 %.

    Runs within splits need as many degrees of freedom as the splits have. Where they have fewer,
    as with one seed, a difference has the interval of the splits' own differences, which vary with
    sources and runs, if that is wider than the one from sources; the interval of an accuracy, and
    everything on one split with one run, then holds for these runs only. With one source, or if all
    sources and runs agree, nothing varies: then each source counts as one independent video.

    ``tests/test_statistics.py`` simulates the coverage: between 94 and 99.5 %, mostly above 95 %,
    with 1 to 5 seeds on three splits or 3 to 5 seeds on one, and 10 or 48 sources of equal size.
    With sources of very different sizes it stays above 92 %, and near 0 or 100 % of correct answers
    it approaches 100 %.

    Args:
        hits: Result of :func:`hits_by_group`.
        baseline: The same of another model, with as many runs on every split and the same sources.
            If given, its accuracy is subtracted.

    Returns:
        Mean and interval, in percent. A difference has a p-value.
    """
    compared = [0] * len(hits) if baseline is None else [part.correct for part in baseline]
    parts = [
        SplitHits(part.correct - other, part.videos)
        for part, other in zip(hits, compared, strict=True)
    ]
    spread = _Spread(parts, between=baseline is not None)
    if baseline is None:
        low, high = _wilson(spread.mean, spread.independent_videos())
        return Interval(100 * spread.mean, 100 * low, 100 * high)
    half = spread.half_width(ALPHA)
    low, high = max(-1.0, spread.mean - half), min(1.0, spread.mean + half)
    return Interval(100 * spread.mean, 100 * low, 100 * high, spread.p_value())


class _Spread:
    """Mean over splits, runs and sources, and its variance by cause."""

    def __init__(self, parts: Hits, between: bool):
        """Compute the variances of the mean; all values are fractions.

        Args:
            parts: Correct predictions of each split, or differences of two such counts.
            between: If splits have too few runs, let the splits' own means vary.
        """
        videos = np.array([part.videos.sum() for part in parts])
        runs = np.array([len(part.correct) for part in parts])
        shares = videos / videos.sum()
        means = np.array([part.correct.sum() for part in parts]) / (runs * videos)
        self.mean = float(shares @ means)
        self.sources = sum(len(part.videos) for part in parts)
        pooled = min(len(part.videos) for part in parts) == 1  # no variance within a split
        centres = np.full_like(means, self.mean) if pooled else means
        cells = [
            (part.correct - centre * part.videos) / (count * videos.sum())
            for part, centre, count in zip(parts, centres, runs, strict=True)
        ]
        by_source = [cell.sum(0) for cell in cells]
        by_source = [np.concatenate(by_source)] if pooled else by_source
        freedom = int((runs - 1).sum())
        by_run = rest = by_split = 0.0, 0
        if freedom >= max(len(parts) - 1, 1):
            spread = sum(np.square(_of_runs(part)).sum() for part in parts) / freedom
            by_run = float(spread * (shares**2 @ (1 / runs))), freedom
            rest = _sum([_variance(*_rest(cell)) for cell in cells if len(cell) > 1])
        elif between:
            by_split = _variance(shares * (means - self.mean), len(parts) - 1)
        of_sources = _sum([_variance(sums, len(sums) - 1) for sums in by_source])
        self.terms = of_sources, by_run, rest, by_split  # variance and degrees of freedom
        self.varies = self.sources > 1 and sum(variance for variance, _ in self.terms) > 1e-12

    def half_width(self, alpha: float) -> float:
        """Return half the width of the interval that misses the truth with a probability."""
        if not self.varies:
            square = t_quantile(alpha, NORMAL) ** 2
            unseen = square / (self.sources + square)  # Wilson's bound on what no source shows
            return (1 + abs(self.mean)) * unseen  # sources of the opposite result
        by_source, by_run, rest, by_split = (
            variance * t_quantile(alpha, freedom) ** 2 if freedom else 0.0
            for variance, freedom in self.terms
        )
        return math.sqrt(max(by_source + by_run - rest, by_source, by_run, by_split))

    def independent_videos(self) -> float:
        """Return the number of independent videos whose accuracy would vary as much."""
        if not self.varies:
            return self.sources
        binomial = t_quantile(ALPHA, NORMAL) ** 2 * self.mean * (1 - self.mean)
        return binomial / self.half_width(ALPHA) ** 2

    def p_value(self) -> float:
        """Return the largest alpha whose interval reaches 0."""
        return largest_alpha(self.half_width, self.mean)


def largest_alpha(half_width: Callable[[float], float], mean: float) -> float:
    """Return the largest alpha whose interval reaches 0, by bisection of its logarithm.

    Args:
        half_width: Half the width of the interval that misses the truth with probability alpha.
        mean: Centre of the interval.
    """
    low, high = math.log(1e-12), 0.0
    for _ in range(40):
        middle = (low + high) / 2
        reaches = half_width(math.exp(middle)) >= abs(mean)
        low, high = (middle, high) if reaches else (low, middle)
    return math.exp(high)


def _of_runs(part: SplitHits) -> np.ndarray:
    """Return the accuracy of each run of a split minus their mean, shape (runs,)."""
    accuracies = part.correct.sum(1) / part.videos.sum()
    return accuracies - accuracies.mean()


def _rest(cells: np.ndarray) -> tuple[np.ndarray, int]:
    """Return what runs and sources of a split leave of its cells, and the degrees of freedom."""
    runs, sources = cells.shape
    cells = cells - cells.mean()
    rest = cells - cells.mean(0) - cells.mean(1)[:, None]
    return rest, (runs - 1) * (sources - 1)


def _sum(terms: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """Add variances, and their degrees of freedom."""
    return sum(variance for variance, _ in terms), sum(freedom for _, freedom in terms)


def _variance(parts: np.ndarray, freedom: int) -> tuple[float, int]:
    """Return the variance of a sum of parts whose mean is 0, and its degrees of freedom."""
    return float((parts**2).sum() * parts.size / freedom) if freedom else 0.0, freedom


def _wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's interval of a share among a number of independent videos."""
    square = t_quantile(ALPHA, NORMAL) ** 2
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(square * share * (1 - share) / count + square**2 / (4 * count**2))
    half = spread / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def t_quantile(alpha: float, freedom: float) -> float:
    """Return the value that a t-distributed variable exceeds, in size, with a probability."""
    values, tails = _t_tails(freedom)
    return float(np.interp(-math.log(alpha), tails, values))


@cache
def _t_tails(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Tabulate Student's t: values, and minus the logarithm of the probability beyond them.

    The density is summed over the inverse hyperbolic sine of the value, whose steps suit heavy
    tails; beyond the last value it falls as a power.
    """
    steps, width = np.linspace(0, 12, 6001, retstep=True)
    values = np.sinh(steps)
    if math.isinf(freedom):
        exponent, beyond = -(values**2) / 2, 0.0
    else:
        exponent, beyond = -(freedom + 1) / 2 * np.log1p(values**2 / freedom), 1 / freedom
    density = np.exp(exponent) * np.cosh(steps)
    pieces = width * (density[1:] + density[:-1]) / 2
    tails = np.append(np.cumsum(pieces[::-1])[::-1], 0) + beyond * density[-1]
    return values, -np.log(np.maximum(tails / tails[0], 1e-300))


Key = Hashable


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjust the p-values of a family of comparisons by Holm's step-down procedure.

    Calling different what has an adjusted p-value below 0.05 makes one or more false claims in the
    whole family with a probability below 5 %.

    Args:
        p_values: p-values of all comparisons of the family, by name.

    Returns:
        Adjusted p-values by name, in the order of the argument.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
