"""Which rows may stand in Tables 2 and 4, and why the others may not."""

from collections.abc import Sequence
from functools import cache

from hstlib.book.paper import PAPER_ROWS
from hstlib.config import TrainConfig, project_path
from hstlib.training.identity import SAME_RUN, differing_settings
from hstlib.training.plan import planned_runs, read_plan
from hstlib.training.rows import Row

PAPER_PLAN = "workflow/params/paper.yaml"
"""The plan with the paper's settings."""
OFFICIAL_LISTS: dict[str, dict[int, set[str]]] = {
    "hmdb51": {1: {"44c98343e9d6d88d"}, 2: {"399efd7b51fce0f9"}, 3: {"d993ac32fa7c9838"}},
    "ucf101": {
        1: {"7847e03aebe8f598", "bbb6555aaa0906bc"},
        2: {"5ec8ed9414057fd3", "e6f5c87408022fe4"},
        3: {"163dc950d14e1e10", "26944db71386f3b6"},
    },
}
"""Values of :attr:`hstlib.data.datasets.VideoSet.split_id` of the official lists, by data set and
split. UCF101 has two of each: its archives write HandStandPushups or HandstandPushups."""
MAX_UNUSABLE = 0.01
"""Share of the videos that may be missing or unreadable."""


def paper_rows(table: int, rows: Sequence[Row]) -> tuple[dict[str, list[Row]], list[str]]:
    """Choose the rows of Table 2 or Table 4.

    A row counts if its settings are those of the paper's plan, except for split, seed and
    :data:`hstlib.training.identity.SAME_RUN`, if its lists are official, and if at most
    :data:`MAX_UNUSABLE` of its videos could not be used.

    Args:
        table: Number of the table, 2 or 4.
        rows: Finished runs.

    Returns:
        Rows by model, every seed with the same splits; and a line for each row on the table's data
        set that was left out, with the reason.
    """
    cells = [paper for paper in PAPER_ROWS if paper.table == table]
    (dataset,) = {paper.dataset for paper in cells}
    chosen: dict[str, list[Row]] = {paper.model: [] for paper in cells}
    left_out = []
    for row in rows:
        if row.config.dataset == dataset:
            if reason := _reason(row):
                left_out.append(f"{row.run_id}: {reason}")
            else:
                chosen[row.config.model].append(row)
    for model, of_model in chosen.items():
        chosen[model], incomplete = complete_grid(of_model)
        left_out += incomplete
    return chosen, left_out


def complete_grid(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Choose rows of one model so that every seed was tested on the same splits, each once.

    Args:
        rows: Finished runs of one model with equal settings.

    Returns:
        The rows, and a line for each row that was left out, with the reason.
    """
    runs: dict[tuple[int, int], Row] = {}
    left_out = []
    for row in rows:
        key = row.config.seed, row.config.split
        if key in runs:
            left_out.append(f"{row.run_id}: another row of seed {key[0]} and split {key[1]}")
        runs.setdefault(key, row)
    splits: dict[int, set[int]] = {}
    for seed, split in runs:
        splits.setdefault(seed, set()).add(split)
    most = max(splits.values(), key=lambda s: (len(s), *(-split for split in s)), default=set())
    chosen = []
    for (seed, split), row in sorted(runs.items()):
        if most <= splits[seed] and split in most:
            chosen.append(row)
        else:
            left_out.append(
                f"{row.run_id}: seed {seed} was tested on splits {sorted(splits[seed])}, not on "
                f"{sorted(most)}"
            )
    return chosen, left_out


def _reason(row: Row) -> str:
    """Return why a row may not stand in the table of its data set; empty if it may."""
    config = row.config
    expected = _paper_settings().get((config.dataset, config.model))
    if expected is None:
        return f"model {config.model} is not in {PAPER_PLAN}"
    settings = config.model_dump(), expected.model_dump()
    if differences := differing_settings(*settings, but={*SAME_RUN, "split", "seed"}):
        return f"settings: {differences}"
    if row.split_id not in OFFICIAL_LISTS[config.dataset][config.split]:
        return f"lists {row.split_id or 'unknown'} are not those of official split {config.split}"
    unusable = max(row.missing, row.problems)
    total = row.train_videos + row.test["videos"]
    if unusable > MAX_UNUSABLE * total:
        return f"{unusable} of {total} videos are missing or unreadable, over {MAX_UNUSABLE:.0%}"
    return "" if row.videos else "it does not have the answer for every test video"


@cache
def _paper_settings() -> dict[tuple[str, str], TrainConfig]:
    """Return the settings of the paper's runs by data set and model, at any split and seed."""
    runs = planned_runs(read_plan(project_path(PAPER_PLAN)))
    return {(run.dataset, run.model): run for run in runs.values()}
