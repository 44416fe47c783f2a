"""Results rows on disk, and the tables made of them beside the paper's numbers."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from hstlib.config import TrainConfig
from hstlib.files import complete
from hstlib.paper import BACKBONE_TITLES, DATASET_TITLES, MODEL_TITLES, PAPER_ROWS, PaperRow

NOT_RUN = "not run"


class Row(BaseModel):
    """One finished run.

    Attributes:
        run_id: See :attr:`hstlib.config.TrainConfig.run_id`.
        config: The run's settings.
        parameters: Trainable parameters of the model.
        classes: Number of classes.
        train_videos: Length of the training list.
        missing: Files of the lists that were not on disk.
        problems: Files that were missing or could not be decoded.
        test: ``top1`` and ``top5`` as fractions of ``videos``, of which ``unreadable`` count as
            wrong.
        videos: Label, prediction and group of every test video, each as a number; an unreadable
            one is predicted as -1.
        kinds: Demo corpora: :func:`hstlib.experiment.kind_accuracy`, and the same with the frames
            of every clip shuffled in time.
        epochs: Loss, training top-1, learning rate and seconds of every epoch.
        seconds: Of the whole run.
        finished: UTC.
        commit: Of the checkout; ``dirty`` if tracked files differed from it.
        dirty: See ``commit``.
        environment: Versions and hardware.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    config: TrainConfig
    parameters: int
    classes: int
    train_videos: int
    missing: int
    problems: int
    test: dict[str, float | int]
    videos: list[tuple[int, int, int]] = []
    kinds: dict[str, float]
    epochs: list[dict[str, float | int]]
    seconds: float
    finished: str
    commit: str
    dirty: bool
    environment: dict[str, str]


def write_row(row: Row, folder: Path) -> Path:
    """Write a row to ``<folder>/<run id>.json``, atomically."""
    path = folder / f"{row.run_id}.json"
    with complete(path) as unfinished:
        unfinished.write_text(row.model_dump_json(indent=1) + "\n")
    return path


def load_rows(folder: Path) -> list[Row]:
    """Read all rows of a folder, in the order of their names.

    Raises:
        ValueError: If a file is not a row; the message names it.
    """
    return [load_row(path) for path in sorted(folder.glob("*.json"))]


def load_row(path: Path) -> Row:
    """Read one row.

    Raises:
        ValueError: If the file is not a row; the message names it.
    """
    try:
        return Row.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: not a results row: {error}") from error


def comparison_table(table: int, rows: Sequence[Row], parameters: dict[str, int]) -> pd.DataFrame:
    """Build Table 2 or Table 4: the paper's parameters and accuracy, and ours.

    Args:
        table: 2 or 4.
        rows: Finished runs. Only runs at full size on the real data set, with no file missing,
            are shown; of several, the mean.
        parameters: Our parameter count of each model at this table's size.

    Returns:
        One row per model; strings, ready to be shown.
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
    found = [
        row
        for row in rows
        if (row.config.dataset, row.config.model, row.config.backbone)
        == (paper.dataset, paper.model, paper.backbone)
        and row.missing == 0
    ]
    if not found:
        return NOT_RUN
    mean = sum(row.test["top1"] for row in found) / len(found)
    settings = {f"{r.config.epochs} epochs, {r.config.clip.size} pixels" for r in found}
    return f"{100 * mean:.2f} (runs: {len(found)}; {' and '.join(sorted(settings))})"


def demo_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Summarise the runs on the drawn corpora; they say nothing about HMDB51 or UCF101.

    Args:
        rows: Finished runs; those on other data are left out.

    Returns:
        One row per corpus and model; accuracies in percent, the mean over seeds.
    """
    demo = [row for row in rows if row.config.dataset.startswith("demo-")]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in demo:
        groups.setdefault((row.config.dataset, row.config.model), []).append(row)
    order = list(MODEL_TITLES)
    table = []
    for (dataset, model), group in sorted(
        groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
    ):
        kinds = pd.DataFrame([row.kinds for row in group]).mean() * 100
        table.append(
            {
                "corpus": DATASET_TITLES[dataset],
                "model": MODEL_TITLES[model],
                "params (M)": f"{group[0].parameters / 1e6:.3f}",
                "runs": len(group),
                "epochs": group[0].config.epochs,
                "top-1 (%)": f"{100 * sum(r.test['top1'] for r in group) / len(group):.1f}",
                "motion (%)": f"{kinds['motion']:.1f}",
                "appearance (%)": f"{kinds['appearance']:.1f}",
                "direction (%)": f"{kinds['direction']:.1f}",
                "direction, shuffled (%)": f"{kinds['direction_shuffled']:.1f}",
            }
        )
    return pd.DataFrame(table)
