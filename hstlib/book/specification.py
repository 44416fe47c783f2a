"""The specification curve: many combined readings of the paper, trained alike, and what each costs.

A fractional factorial design combines the free choices of :func:`hstlib.model.readings.combinable`,
so that a few runs tell the effect of every choice apart from those of the others.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hstlib.book.statistics import (
    ALPHA,
    Interval,
    confidence_interval,
    hits_by_group,
    holm,
    largest_alpha,
    same_videos,
    t_quantile,
)
from hstlib.book.study import Difference, Result, differences_from_hst, results
from hstlib.model.readings import READINGS, combinable
from hstlib.training.rows import Row

RUNS = 64
"""Combined readings of the design; the first half is a design of its own."""


def design() -> list[str]:
    """Return the combined readings of the design, as values of the setting ``reading``.

    A reading is one row of a two-level design of resolution IV: a choice with one alternative has
    one column, which says whether the alternative is taken. A choice with two alternatives has two
    columns, each for one alternative; where both or neither is set, none is taken. So the effect of
    no choice is mixed up with that of another choice, or with what two choices do together.
    """
    columns = iter(_columns())
    choices = [
        [(name, next(columns)) for name in alternatives] for alternatives in combinable().values()
    ]
    readings = []
    for run in range(RUNS):
        taken = []
        for alternatives in choices:
            here = [name for name, column in alternatives if (run & column).bit_count() % 2]
            taken += here if len(here) == 1 else []
        readings.append("+".join(taken) or "paper")
    return readings


def _columns() -> list[int]:
    """Return columns as sets of bits of a run's number, whose parity is the column's level.

    The lower five bits of the first 16 are odd in number, and so are bits 0 and 5 in all of them:
    the first keeps choices and pairs of choices apart in the first half of the runs, the second in
    all of them.
    """
    low = [bits for bits in range(1, RUNS // 2) if bits.bit_count() % 2] + [3]
    return [bits if bits % 2 else bits | RUNS // 2 for bits in low]


@dataclass(frozen=True)
class Effect:
    """What one alternative adds to the accuracy, over all combinations with the other choices.

    Attributes:
        reading: Name of the alternative.
        interval: Top-1 with it minus top-1 with the paper's step, in percentage points.
        corrected: p-value after Holm's correction for all alternatives.
    """

    reading: str
    interval: Interval
    corrected: float


@dataclass(frozen=True)
class Standing:
    """Where the readings of the paper stand against one other model.

    Attributes:
        title: Title of the other model.
        other: The other model.
        ahead: Number of readings with a higher top-1 on the same videos.
        clearly_ahead: Number of those whose difference Holm's correction leaves.
        behind: Number of readings with a lower top-1.
        clearly_behind: Number of those whose difference the correction leaves.
    """

    title: str
    other: Result
    ahead: int
    clearly_ahead: int
    behind: int
    clearly_behind: int


def is_faithful(row: Row) -> bool:
    """Return whether a run is HST in a reading that the paper's words allow."""
    names = [] if row.config.reading == "paper" else row.config.reading.split("+")
    return row.config.model == "hst" and all(READINGS[name].factor for name in names)


def shared_runs(rows: Iterable[Row]) -> list[Row]:
    """Return the runs at the splits and seeds that all faithful readings were run on."""
    rows = list(rows)
    pairs: dict[str, set[tuple[int, int]]] = {}
    for row in rows:
        if is_faithful(row):
            pairs.setdefault(row.config.reading, set()).add((row.config.split, row.config.seed))
    shared = set.intersection(*pairs.values()) if pairs else set()
    return [row for row in rows if (row.config.split, row.config.seed) in shared]


def curve(rows: Iterable[Row]) -> list[Result]:
    """Return the faithful readings on the runs that they share, least accurate first.

    Raises:
        ValueError: If the runs differ in more than model, reading, rate, split and seed.
    """
    found = results(row for row in shared_runs(rows) if is_faithful(row))
    return sorted(found, key=lambda result: result.accuracy.mean)


def held_out_runs(rows: Sequence[Row]) -> list[Row]:
    """Return the runs of the most accurate fitted reading that had no part in its choice.

    It is chosen on the runs that all readings share; these are its others.
    """
    if not (readings := comparable(rows)):
        return []
    best = readings[-1].rows[0].config.reading
    shared = {row.run_id for row in shared_runs(rows)}
    own = [row for row in rows if is_faithful(row) and row.config.reading == best]
    return [row for row in own if row.run_id not in shared]


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Compare every fitted faithful reading with every other fitted model, on the same videos.

    Holm's correction is for all of these comparisons together.
    """
    readings = comparable(rows)
    others = results(row for row in shared_runs(rows) if row.config.model != "hst")
    others = [other for other in others if other.fitted]
    hits = {result.title: hits_by_group(result.rows) for result in (*readings, *others)}
    differences = {
        (reading.title, other.title): confidence_interval(hits[reading.title], hits[other.title])
        for reading, other in product(readings, others)
        if same_videos(hits[reading.title], hits[other.title])
    }
    corrected = holm({pair: d.p_value for pair, d in differences.items()})
    stands = []
    for other in others:
        own = {pair: d.mean for pair, d in differences.items() if pair[1] == other.title}
        ahead = {pair for pair, mean in own.items() if mean > 0}
        behind = {pair for pair, mean in own.items() if mean < 0}
        clear = {pair for pair in own if corrected[pair] < ALPHA}
        counts = map(len, (ahead, clear & ahead, behind, clear & behind))
        stands.append(Standing(other.title, other, *counts))
    return stands


def effects(rows: Iterable[Row]) -> list[Effect]:
    """Estimate what each alternative adds, by least squares over the faithful readings.

    Every run counts the correct answers of each source of test videos. A source's counts are a
    sum of a constant and of the alternatives that a run takes. The variance of an estimate is that
    between sources plus that of the residuals between runs; as in
    :func:`hstlib.book.statistics.confidence_interval`, each is multiplied by the square of its own
    quantile of Student's t.

    Args:
        rows: Runs of one data set and protocol. Only those that all readings share count.

    Returns:
        One effect per alternative; none as long as the readings do not tell all of them apart.
    """
    readings = comparable(rows)
    hits = [hits_by_group(result.rows) for result in readings]
    taken = [{*result.rows[0].config.reading.split("+")} for result in readings]
    names = [name for name, reading in READINGS.items() if reading.factor]
    if len(readings) <= len(names) + 1:
        return []
    design_matrix = np.array([[1, *(name in here for name in names)] for here in taken], float)
    if np.linalg.matrix_rank(design_matrix) < len(names) + 1:
        return []
    videos = sum(part.videos.sum() for part in hits[0])
    shares = np.array([np.concatenate([p.correct.mean(0) for p in of]) for of in hits]) / videos
    found = {
        name: _interval(design_matrix, shares, column) for column, name in enumerate(names, start=1)
    }
    corrected = holm({name: interval.p_value for name, interval in found.items()})
    return [Effect(name, interval, corrected[name]) for name, interval in found.items()]


def comparable(rows: Iterable[Row]) -> list[Result]:
    """Return the fitted readings of :func:`curve` with the same test videos as HST as built."""
    readings = [result for result in curve(rows) if result.fitted]
    built = [result for result in readings if result.rows[0].config.reading == "paper"]
    return [
        result
        for result in readings
        if built and same_videos(hits_by_group(result.rows), hits_by_group(built[0].rows))
    ]


def _interval(design_matrix: np.ndarray, shares: np.ndarray, column: int) -> Interval:
    """Estimate one coefficient of a regression.

    Args:
        design_matrix: Shape (readings, coefficients).
        shares: What each source adds to each reading's accuracy, shape (readings, sources).
        column: Index of the coefficient.
    """
    inverse = np.linalg.inv(design_matrix.T @ design_matrix)
    by_source = (inverse @ design_matrix.T @ shares)[column]
    sources = len(by_source)
    mean = float(by_source.sum())
    between_sources = ((by_source - mean / sources) ** 2).sum() * sources / max(sources - 1, 1)
    total = shares.sum(1)
    residuals = total - design_matrix @ (inverse @ design_matrix.T @ total)
    freedom = design_matrix.shape[0] - design_matrix.shape[1]
    between_runs = (residuals**2).sum() / max(freedom, 1) * inverse[column, column]

    def half_width(alpha: float) -> float:
        parts = (between_sources, sources - 1), (between_runs, freedom)
        return math.sqrt(sum(v * t_quantile(alpha, f) ** 2 if f else math.inf for v, f in parts))

    half = half_width(ALPHA)
    return Interval(
        100 * mean, 100 * (mean - half), 100 * (mean + half), largest_alpha(half_width, mean)
    )


def contributions(rows: Iterable[Row]) -> list[Difference]:
    """Compare HST as built with each change that the paper's words do not allow.

    Each is compared on the runs that both have; the p-values are corrected for all of them.
    """
    kept = [row for row in rows if row.config.model == "hst"]
    return differences_from_hst(
        row for row in kept if row.config.reading == "paper" or not is_faithful(row)
    )


def changes(rows: Sequence[Row]) -> dict[str, tuple[Interval, float]]:
    """Return what each change of HST adds to top-1, with its corrected p-value, by its name."""
    found = {effect.reading: (effect.interval, effect.corrected) for effect in effects(rows)}
    for difference in contributions(rows):
        if difference.fitted:
            name = difference.other.rows[0].config.reading
            found[name] = difference.interval.reversed, difference.corrected
    return found


def describe_changes(rows: Sequence[Row]) -> dict[str, str]:
    """Say in a clause what came out of each change of HST, a reading or an ablation, by name."""
    found, combined = changes(rows), len(comparable(rows))
    tried = {name for row in rows for name in row.config.reading.split("+")}
    said = {}
    for name, reading in READINGS.items():
        if name in found:
            beside = "HST as built"
            if reading.factor:
                beside = f"the paper's step, over {combined} combined readings"
            said[name] = f"{_decide(*found[name])} beside {beside}"
        elif name not in tried:
            said[name] = "not trained"
        elif reading.factor:
            said[name] = "not trained in enough combinations"
        else:
            said[name] = "no verdict, as it or HST as built has not fitted its training videos"
    return said


def _decide(interval: Interval, corrected: float) -> str:
    verdict = "undecided"
    if corrected < ALPHA:
        verdict = "more accurate" if interval.mean > 0 else "less accurate"
    return f"{verdict}, {interval.points}, corrected p {corrected:.2f},"
