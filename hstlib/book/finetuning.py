"""What fine-tuning adds: the same model from trained and from random weights, at equal steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hstlib.book.paper import ALL_TITLES, DATASET_TITLES
from hstlib.book.statistics import ALPHA, Interval, confidence_interval, hits_by_group
from hstlib.book.study import (
    FITTED,
    choose_rates,
    common_runs,
    describe_runs,
    rates_by_model,
    training_top1,
)
from hstlib.book.tables import describe_splits, paired_difference
from hstlib.training.rows import Row, load_rows

ROWS = "results/published/finetune"
SOURCE_ROWS = "results/published/study"
"""Folder of the runs that the trained weights come from."""


@dataclass(frozen=True)
class FineTuning:
    """The runs of one model from trained and from random weights, on the same splits and seeds.

    Attributes:
        trained: Runs that start from the weights of another data set.
        random: Runs that start from random weights.
        difference: Top-1 of the first minus that of the second, in percentage points.
    """

    trained: tuple[Row, ...]
    random: tuple[Row, ...]
    difference: Interval

    @property
    def title(self) -> str:
        """Title of the model."""
        return ALL_TITLES[self.trained[0].config.model]

    @property
    def source(self) -> str:
        """Data set that the trained weights come from."""
        run_id = self.trained[0].ancestor.run_id
        names = (title for name, title in DATASET_TITLES.items() if run_id.startswith(f"{name}-"))
        return next(names, run_id)

    @property
    def sentence(self) -> str:
        """What this comparison shows, and whether more steps may change it."""
        d = self.difference
        verdict = "makes no difference that these runs could show"
        if d.p_value < ALPHA:
            verdict = "helps" if d.mean > 0 else "harms"
        after, before = (
            confidence_interval(hits_by_group(rows)).mean for rows in (self.trained, self.random)
        )
        steps = f"{self.title}, {self.trained[0].steps} steps from either start"
        numbers = f"{d.points}, p {d.p_value:.3f}"
        text = (
            f"{steps}: starting from weights of {self.source} {verdict}: {after:.1f} % instead of "
            f"{before:.1f} %, a difference of {numbers}; {describe_runs(self.trained)}."
        )
        return f"{text} {self._unfitted}".rstrip()

    @property
    def _unfitted(self) -> str:
        """Say which start has runs that have not fitted their training clips; empty if none has."""
        parts = []
        for start, rows in {"random": self.random, self.source: self.trained}.items():
            low = min(map(training_top1, rows))
            if low < FITTED:
                parts.append(
                    f"from {start} weights, the training top-1 of a run is {100 * low:.0f} %"
                )
        if not parts:
            return ""
        return f"More steps may change this: {' and '.join(parts)}."


def describe_source(pair: FineTuning, published: Iterable[Row]) -> str:
    """Name the trained weights, and say whether a published run has them.

    Args:
        pair: Runs of a model.
        published: Rows of :data:`SOURCE_ROWS`.
    """
    ancestor = pair.trained[0].ancestor
    weights = {row.run_id: row.weights for row in published}.get(ancestor.run_id)
    text = f"{pair.title}: trained weights of {ancestor.run_id}, SHA-256 {ancestor.sha256[:16]}"
    if not weights:
        return f"{text}, of which {SOURCE_ROWS} has no hash."
    same = "the published ones" if weights == ancestor.sha256 else "not the published ones"
    return f"{text}, {same}."


def load_finetuning(root: Path) -> tuple[list[FineTuning], list[Row]]:
    """Read the published runs of a checkout; see :func:`compare_starts`."""
    rows = load_rows(root / ROWS)
    return compare_starts(rows), rows


def compare_starts(rows: Iterable[Row]) -> list[FineTuning]:
    """Pair the runs from trained weights with those from random weights, model by model.

    Args:
        rows: Runs on one data set; those of the protocol ``validation`` chose the learning rates.

    Raises:
        ValueError: If a run has another rate than the one that was chosen for its start, the runs
            of a model differ in their steps or their trained weights, or have no seed and split in
            common.
    """
    groups = _by_start(rows)
    rates = {
        key: next(iter(choose_rates(runs).values()))
        for key, runs in _by_start(rows, "validation").items()
    }
    for key, runs in groups.items():
        for row in runs:
            if row.config.learning_rate != rates.get(key):
                raise ValueError(
                    f"{row.run_id} was trained at {row.config.learning_rate:g}, but the rate "
                    f"chosen for its start is {rates.get(key)}"
                )
    models = dict.fromkeys(model for model, _ in groups)
    return [_compare(groups.get((m, True), []), groups.get((m, False), [])) for m in models]


def _by_start(rows: Iterable[Row], protocol: str = "official") -> dict[tuple[str, bool], list[Row]]:
    """Group rows by model, and by whether they started from trained weights."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        if row.config.protocol == protocol:
            groups.setdefault((row.config.model, row.ancestor is not None), []).append(row)
    return groups


def _compare(trained: Sequence[Row], random: Sequence[Row]) -> FineTuning:
    trained, random = common_runs(trained, random)
    if not trained:
        raise ValueError("no split and seed was run from both trained and random weights")
    for name, values in {
        "steps": {row.steps for row in (*trained, *random)},
        "trained weights": {row.ancestor.sha256 for row in trained},
    }.items():
        if len(values) > 1:
            raise ValueError(f"{trained[0].run_id} and its like differ in {name}: {sorted(values)}")
    difference = paired_difference(trained, random)
    if difference is None:
        raise ValueError(f"{trained[0].run_id} and {random[0].run_id}: other test videos")
    return FineTuning(tuple(trained), tuple(random), difference)


def start_table(pairs: Iterable[FineTuning]) -> pd.DataFrame:
    """Tabulate both starts of every model, with the difference in the row of the trained weights.

    Returns:
        One row per model and start: chosen learning rate, steps, top-1 on the training videos,
        top-1 with its interval over sources and seeds, and the mean of each split.
    """
    lines = []
    for pair in pairs:
        for start, rows in {"random": pair.random, pair.source: pair.trained}.items():
            fitted = [100 * training_top1(row) for row in rows]
            lines.append(
                {
                    "model": pair.title,
                    "weights": start,
                    "learning rate": rows[0].config.learning_rate,
                    "steps": str(rows[0].steps),
                    "training top-1 (%)": f"{min(fitted):.1f} to {max(fitted):.1f}",
                    "top-1 (%)": str(confidence_interval(hits_by_group(rows))),
                    "by fold (%)": describe_splits(rows),
                    "minus random": str(pair.difference) if rows is pair.trained else "",
                }
            )
    return pd.DataFrame(lines)


def rate_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Tabulate the search for learning rates: mean top-1 in percent on held-out training sources.

    Returns:
        One row per model and start, a column per rate.
    """
    lines = {}
    for (model, trained), runs in _by_start(rows, "validation").items():
        (by_rate,) = rates_by_model(runs).values()
        lines[ALL_TITLES[model], "trained" if trained else "random"] = {
            f"{rate:g}": f"{100 * np.mean([row.test['top1'] for row in tried]):.1f}"
            for rate, tried in by_rate.items()
        }
    table = pd.DataFrame.from_dict(lines, "index")
    return table.rename_axis(["model", "weights"]).reset_index()
