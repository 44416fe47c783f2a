"""Tables of results: the paper's numbers beside ours, and our runs on the drawn corpora."""

from collections.abc import Sequence

import pandas as pd

from hstlib.book.paper import ALL_TITLES, BACKBONE_TITLES, DATASET_TITLES, PAPER_ROWS, PaperRow
from hstlib.training.rows import Row

NOT_RUN = "not run"


def comparison_table(table: int, rows: Sequence[Row], parameters: dict[str, int]) -> pd.DataFrame:
    """Build Table 2 or Table 4: parameters and accuracy, the paper's and ours.

    Args:
        table: Number of the table, 2 or 4.
        rows: Finished runs. The table averages over those on the real data set, in the paper's
            setting (backbone, reading, official splits), without missing files.
        parameters: Our parameter count of each model at this table's size.

    Returns:
        One row per model, as strings for display.
    """
    return pd.DataFrame(
        [
            {
                "model": row.title,
                "data set": DATASET_TITLES[row.dataset],
                "backbone": BACKBONE_TITLES[row.backbone],
                "params, paper (M)": row.parameters,
                "params, ours (M)": f"{parameters[row.model] / 1e6:.2f}",
                "accuracy, paper (%)": row.accuracy,
                "accuracy, ours (%)": _accuracy(row, rows),
            }
            for row in PAPER_ROWS
            if row.table == table
        ]
    )


def _accuracy(paper: PaperRow, rows: Sequence[Row]) -> str:
    """Write our mean accuracy for a row of the paper, with the number of runs and their budget."""
    setting = (paper.dataset, paper.model, paper.backbone)
    runs = [
        row
        for row in rows
        if (row.config.dataset, row.config.model, row.config.backbone) == setting
        and _is_default_protocol(row)
        and row.missing == 0
    ]
    if not runs:
        return NOT_RUN
    budgets = {f"{row.config.epochs} epochs, {row.config.size} pixels" for row in runs}
    return f"{_mean_top1(runs):.2f} (runs: {len(runs)}; {' and '.join(sorted(budgets))})"


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
