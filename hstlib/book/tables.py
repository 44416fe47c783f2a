"""Tables of results: the paper's numbers beside ours, and our runs on the drawn corpora."""

from collections.abc import Sequence

import pandas as pd

from hstlib.book.changes import code_since
from hstlib.book.paper import ALL_TITLES, BACKBONE_TITLES, DATASET_TITLES, PAPER_ROWS
from hstlib.book.selection import paper_rows
from hstlib.book.statistics import Interval, confidence_interval, hits_by_group, same_videos
from hstlib.training.rows import Row

NOT_RUN = "not run"


def comparison_table(table: int, rows: Sequence[Row], parameters: dict[str, int]) -> pd.DataFrame:
    """Build Table 2 or Table 4: parameters and accuracy, the paper's and ours.

    Args:
        table: Number of the table, 2 or 4.
        rows: Finished runs; :func:`hstlib.book.selection.paper_rows` chooses among them, and
            :func:`left_out` lists the rest.
        parameters: Our parameter count of each model at this table's size.

    Returns:
        One row per model, as strings for display: our accuracy over all splits and seeds with its
        95 % interval, the mean of each split, the difference from R3D with its interval over the
        seeds and splits of both, and whether the code of the runs has changed since.
    """
    chosen, _ = paper_rows(table, rows)
    return pd.DataFrame(
        [
            {
                "model": row.title,
                "data set": DATASET_TITLES[row.dataset],
                "backbone": BACKBONE_TITLES[row.backbone],
                "params, paper (M)": row.parameters,
                "params, ours (M)": f"{parameters[row.model] / 1e6:.2f}",
                "accuracy, paper (%)": row.accuracy,
                **_summarise_cell(chosen[row.model], chosen["r3d"]),
            }
            for row in PAPER_ROWS
            if row.table == table
        ]
    )


def left_out(rows: Sequence[Row]) -> list[str]:
    """List the rows on HMDB51 and UCF101 that are not in Table 2 and Table 4, with the reasons."""
    return [line for table in (2, 4) for line in paper_rows(table, rows)[1]]


def _summarise_cell(runs: Sequence[Row], baseline: Sequence[Row]) -> dict[str, str]:
    """Return the columns of a model that come from its runs."""
    names = ("accuracy, ours (%)", "by split (%)", "minus R3D (%)", "runs", "code")
    if not runs:
        return dict(zip(names, (NOT_RUN, *[""] * 4), strict=True))
    difference = "" if runs == baseline else paired_difference(runs, baseline) or NOT_RUN
    values = (
        confidence_interval(hits_by_group(runs)),
        describe_splits(runs),
        difference,
        len(runs),
        describe_code(runs),
    )
    return dict(zip(names, map(str, values), strict=True))


def describe_splits(rows: Sequence[Row]) -> str:
    """Return the mean top-1 of each split, in percent, such as ``1: 52.1, 2: 50.3``."""
    splits: dict[int, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.config.split, []).append(row)
    return ", ".join(f"{split}: {_mean_top1(splits[split]):.1f}" for split in sorted(splits))


def describe_code(rows: Sequence[Row]) -> str:
    """Return what :func:`hstlib.book.changes.code_since` says about runs, each value once."""
    return ", ".join(sorted({code_since(row) for row in rows}))


def paired_difference(rows: Sequence[Row], baseline: Sequence[Row]) -> Interval | None:
    """Estimate the difference of two models on the seeds and splits that both have.

    Args:
        rows: Runs of a model, every seed on the same splits.
        baseline: Runs of the model whose accuracy is subtracted, likewise.

    Returns:
        The difference with its interval; None if they have no seed and split in common, or were
        not tested on the same videos there.
    """
    keys = [{(row.config.seed, row.config.split) for row in of} for of in (rows, baseline)]
    common = keys[0] & keys[1]
    if not common:
        return None
    first, second = (
        hits_by_group([row for row in of if (row.config.seed, row.config.split) in common])
        for of in (rows, baseline)
    )
    return confidence_interval(first, second) if same_videos(first, second) else None


def demo_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Summarise runs on the drawn corpora. They say nothing about HMDB51 or UCF101.

    Args:
        rows: Finished runs; those on other data are left out.

    Returns:
        One row per corpus and model. Accuracies are in percent, averaged over seeds.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.config.dataset.startswith("demo-") and _is_default_protocol(row):
            groups.setdefault((row.config.dataset, row.config.model), []).append(row)
    models = list(ALL_TITLES)
    ordered = sorted(groups, key=lambda group: (group[0], models.index(group[1])))
    return pd.DataFrame([_summarise_demo(*group, groups[group]) for group in ordered])


def _summarise_demo(dataset: str, model: str, runs: Sequence[Row]) -> dict[str, str | int]:
    kinds = pd.DataFrame([row.kinds for row in runs]).mean() * 100
    return {
        "corpus": DATASET_TITLES[dataset],
        "model": ALL_TITLES[model],
        "params (M)": f"{runs[0].parameters / 1e6:.3f}",
        "runs": len(runs),
        "epochs": runs[0].config.epochs,
        "top-1 (%)": f"{_mean_top1(runs):.1f}",
        "motion (%)": f"{kinds['motion']:.1f}",
        "appearance (%)": f"{kinds['appearance']:.1f}",
        "direction (%)": f"{kinds['direction']:.1f}",
        "direction, shuffled (%)": f"{kinds['direction_shuffled']:.1f}",
    }


def _is_default_protocol(row: Row) -> bool:
    """Return whether a run has the default reading of the paper and an official split."""
    return (row.config.reading, row.config.protocol) == ("paper", "official")


def _mean_top1(rows: Sequence[Row]) -> float:
    """Return the mean top-1 accuracy of runs, in percent."""
    return 100 * sum(row.test["top1"] for row in rows) / len(rows)
