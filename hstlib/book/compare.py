"""Comparison of all models that were trained on a data set, for the command line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hstlib.book.paper import ALL_TITLES
from hstlib.book.selection import complete_grid
from hstlib.book.statistics import ALPHA, Interval, confidence_interval, hits_by_group, holm
from hstlib.book.study import FITTED, training_top1
from hstlib.book.tables import describe_code, describe_splits, paired_difference
from hstlib.config import TrainConfig
from hstlib.data.reports import best_shortcut
from hstlib.training.identity import SAME_RUN
from hstlib.training.rows import Row

VARYING = {*SAME_RUN, "split", "seed", "variant"}
"""Settings in which runs of one model may differ."""


@dataclass(frozen=True)
class Comparison:
    """All models that were trained on one data set.

    Attributes:
        dataset: Name of the data set, and of the protocol if it is not the official one.
        models: One row per model: top-1 with its interval, splits, training accuracy, steps.
        differences: One row for HST and each other model, or for each pair if there is no HST:
            difference with its interval, p-value, the same after Holm's correction for all rows
            with a verdict, and the verdict.
        no_network: The best shortcut at each split, one line each; none for drawn videos.
        left_out: Rows that were not used, one line each with the reason.
    """

    dataset: str
    models: pd.DataFrame
    differences: pd.DataFrame
    no_network: list[str]
    left_out: list[str]


def compare_rows(rows: Sequence[Row]) -> list[Comparison]:
    """Compare the models of every data set, over sources of test videos and seeds.

    Args:
        rows: Finished runs, on any data sets.
    """
    datasets: dict[str, list[Row]] = {}
    for row in rows:
        datasets.setdefault(_dataset_name(row.config), []).append(row)
    return [_compare(name, datasets[name]) for name in sorted(datasets)]


def _dataset_name(config: TrainConfig) -> str:
    name = Path(config.data_dir).name if config.dataset == "folder" else config.dataset
    return name if config.protocol == "official" else f"{name}, {config.protocol}"


def _compare(dataset: str, rows: Sequence[Row]) -> Comparison:
    usable, left_out = _same_lists(rows)
    runs: dict[str, list[Row]] = {}
    for title, of_model in _by_model(usable).items():
        chosen, incomplete = complete_grid(of_model)
        runs[title] = chosen
        left_out += incomplete
    models = pd.DataFrame({title: _summarise(of_model) for title, of_model in runs.items()}).T
    best = {row.config.split: best_shortcut(row.config, row.split_id) for row in usable}
    no_network = [f"split {split}, {line}" for split, line in sorted(best.items()) if line]
    return Comparison(dataset, models, _differences(runs), no_network, left_out)


def _same_lists(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Choose the rows with answers and, at each split, with the lists that most rows have."""
    lists: dict[int, Counter[str]] = {}
    for row in rows:
        lists.setdefault(row.config.split, Counter())[row.split_id] += 1
    common = {split: counts.most_common(1)[0][0] for split, counts in lists.items()}
    usable, left_out = [], []
    for row in rows:
        expected = common[row.config.split]
        if not row.videos:
            left_out.append(f"{row.run_id}: it does not have the answer for every test video")
        elif row.split_id != expected:
            left_out.append(f"{row.run_id}: lists {row.split_id!r} instead of {expected!r}")
        else:
            usable.append(row)
    return usable, left_out


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by title: model, reading, and settings in which runs of that model differ."""
    models: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        models.setdefault((row.config.model, row.config.reading), []).append(row)
    order = ["hst", *ALL_TITLES]
    grouped: dict[str, list[Row]] = {}
    for model, reading in sorted(models, key=lambda key: (key[1] != "paper", order.index(key[0]))):
        title = ALL_TITLES[model] if reading == "paper" else f"{ALL_TITLES[model]} ({reading})"
        settings = [row.config.model_dump(exclude=VARYING) for row in models[model, reading]]
        names = [name for name in settings[0] if len({str(s[name]) for s in settings}) > 1]
        for row, values in zip(models[model, reading], settings, strict=True):
            differing = ", ".join(f"{name} {values[name]}" for name in names)
            grouped.setdefault(f"{title}: {differing}" if names else title, []).append(row)
    return grouped


def _is_hst(config: TrainConfig) -> bool:
    return (config.model, config.reading) == ("hst", "paper")


def _is_fitted(rows: Sequence[Row]) -> bool:
    return min(map(training_top1, rows)) >= FITTED


def _summarise(rows: Sequence[Row]) -> dict[str, Any]:
    hits = hits_by_group(rows)
    trained = [training_top1(row) for row in rows]
    steps = sorted({row.steps for row in rows})
    return {
        "top-1 (%)": str(confidence_interval(hits)),
        "by split (%)": describe_splits(rows),
        "training top-1 (%)": f"{100 * np.mean(trained):.1f}"
        + (f" ({100 * min(trained):.1f} to {100 * max(trained):.1f})" if len(trained) > 1 else ""),
        "steps": " to ".join(map(str, dict.fromkeys((steps[0], steps[-1])))),
        "runs": len(rows),
        "seeds": len({row.config.seed for row in rows}),
        "sources": sum(len(part.videos) for part in hits),
        "learning rate": rows[0].config.learning_rate,
        "code": describe_code(rows),
        "": "" if _is_fitted(rows) else "not fitted",
    }


def _differences(runs: dict[str, list[Row]]) -> pd.DataFrame:
    """Tabulate the difference of every pair of models that has HST; without HST, of every pair."""
    hst = {title for title, rows in runs.items() if _is_hst(rows[0].config)}
    pairs = {
        (first, second): paired_difference(runs[first], runs[second])
        for first, second in combinations(runs, 2)
        if not hst or first in hst  # HST comes first
    }
    fitted = {title for title, rows in runs.items() if _is_fitted(rows)}
    family = {
        pair: difference.p_value
        for pair, difference in pairs.items()
        if difference and fitted.issuperset(pair)
    }
    corrected = holm(family)
    rows = [_pair_row(pair, pairs[pair], corrected.get(pair)) for pair in pairs]
    columns = ["models", "difference (points)", "p", "p, corrected", "verdict"]
    return pd.DataFrame(rows, columns=columns).set_index("models")


def _pair_row(
    pair: tuple[str, str], difference: Interval | None, corrected: float | None
) -> tuple[str, ...]:
    title = " minus ".join(pair)
    if difference is None:
        return title, "", "", "", "no seeds, splits and test videos in common"
    if corrected is None:
        return title, str(difference), "", "", "none: not fitted"
    verdict = "differ" if corrected < ALPHA else "undecided"
    return title, str(difference), f"{difference.p_value:.4f}", f"{corrected:.4f}", verdict
