"""Results rows on disk, and the tables made of them beside the paper's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from hstlib.config import TrainConfig
from hstlib.files import complete
from hstlib.paper import BACKBONE_TITLES, DATASET_TITLES, MODEL_TITLES, PAPER_ROWS, PaperRow

NOT_RUN = "not run"
RECORD, ROW = "run.json", "row.json"


class RunRecord(BaseModel):
    """What a run is: written when it starts.

    Attributes:
        run_id: See :attr:`hstlib.config.TrainConfig.run_id`.
        config: The run's settings.
        split_id: Of the lists, see :attr:`hstlib.datasets.VideoSet.split_id`; empty in old rows.
        manifest: sha256 of the data set, if it was verified and nothing changed since.
        started: UTC.
        commit: Of the checkout; ``dirty`` if tracked files differed from it.
        dirty: See ``commit``.
        environment: Versions and hardware.
        test_readings: UTC of every evaluation on the test set; more than one if the run was
            interrupted in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    config: TrainConfig
    split_id: str = ""
    manifest: str | None = None
    started: str = ""
    commit: str
    dirty: bool
    environment: dict[str, str]
    test_readings: list[str] = []


class Row(RunRecord):
    """One finished run.

    Attributes:
        parameters: Trainable parameters of the model.
        classes: Number of classes.
        train_videos: Length of the training list.
        missing: Files of the lists that were not on disk.
        problems: Files that were missing or could not be decoded.
        test: Of :func:`hstlib.evaluate.summarise`.
        videos: Label, prediction and group of every test video, each as a number; an unreadable
            one is predicted as -1.
        confidences: Probability of the prediction of every test video; none: unreadable.
        tags: HMDB51: right answers and videos by tag of the file name and its value.
        kinds: Demo corpora: :func:`hstlib.experiment.kind_accuracy`, and the same with the frames
            of every clip shuffled in time.
        epochs: Of :class:`hstlib.train.EpochRecord`.
        seconds: Of the whole run, or of its last part if it was interrupted.
        finished: UTC.
    """

    parameters: int
    classes: int
    train_videos: int
    missing: int
    problems: int
    test: dict[str, float | int]
    videos: list[tuple[int, int, int]] = []
    confidences: list[float | None] = []
    tags: dict[str, dict[str, tuple[int, int]]] = {}
    kinds: dict[str, float]
    epochs: list[dict[str, float | int | None]]
    seconds: float
    finished: str


Record = TypeVar("Record", bound=RunRecord)


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write a record to ``<folder>/run.json``, atomically."""
    return _write(record, folder / RECORD)


def load_record(folder: Path) -> RunRecord | None:
    """Read what :func:`write_record` wrote, if there is something."""
    path = folder / RECORD
    return _parse(RunRecord, path.read_bytes(), path) if path.is_file() else None


def write_row(row: Row, folder: Path) -> Path:
    """Write a row to ``<folder>/<run id>/row.json``, atomically."""
    return _write(row, folder / row.run_id / ROW)


def _write(record: RunRecord, path: Path) -> Path:
    with complete(path) as unfinished:
        unfinished.write_text(record.model_dump_json(indent=1) + "\n")
    return path


def publish_rows(rows: Sequence[Row], path: Path, curves: bool = False) -> None:
    """Write rows into one ``.jsonl`` file, a line each.

    Args:
        rows: Finished runs.
        path: The file.
        curves: Keep all epochs, not the last one alone.
    """
    with complete(path) as unfinished, unfinished.open("w") as file:
        for row in rows:
            kept = row if curves else row.model_copy(update={"epochs": row.epochs[-1:]})
            file.write(kept.model_dump_json() + "\n")


def load_rows(folder: Path) -> list[Row]:
    """Read all rows of a folder, in the order of their run ids.

    Args:
        folder: Holds folders of :func:`write_row`, ``.jsonl`` files of :func:`publish_rows`, or
            both.

    Raises:
        ValueError: If a file does not hold rows; the message names it.
    """
    rows = [load_row(path) for path in folder.glob(f"*/{ROW}")]
    for path in folder.glob("*.jsonl"):
        rows += [_parse(Row, line, path) for line in path.read_bytes().splitlines()]
    return sorted(rows, key=lambda row: row.run_id)


def load_row(path: Path) -> Row:
    """Read one row.

    Raises:
        ValueError: If the file is not a row; the message names it.
    """
    return _parse(Row, path.read_bytes(), path)


def _parse(kind: type[Record], text: bytes, path: Path) -> Record:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{path}: not a results row: {error}") from error


def comparison_table(table: int, rows: Sequence[Row], parameters: dict[str, int]) -> pd.DataFrame:
    """Build Table 2 or Table 4: the paper's parameters and accuracy, and ours.

    Args:
        table: 2 or 4.
        rows: Finished runs. Only runs at full size on the real data set, on its official splits,
            with no file missing, are shown; of several, the mean.
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
        and (row.config.reading, row.config.protocol) == ("paper", "official")
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
    demo = [
        row
        for row in rows
        if row.config.dataset.startswith("demo-")
        and (row.config.reading, row.config.protocol) == ("paper", "official")
    ]
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


@dataclass(frozen=True)
class Interval:
    """A mean and the range that holds 95 % of its bootstrap samples."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


def hits_by_group(rows: Sequence[Row], labels: set[int] | None = None) -> np.ndarray:
    """Count right answers and videos of every seed and every group of test videos.

    Args:
        rows: Runs of one model: some seeds, on the same folds.
        labels: Count videos of these classes only; none: all.

    Returns:
        int64, shape (seeds, groups, 2): right answers, and videos. A group is one of one fold.

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
    table = np.array([[seeds[s].get(key, [0, 0]) for key in keys] for s in sorted(seeds)])
    if (table[..., 1] != table[:1, :, 1]).any():
        raise ValueError(f"{rows[0].run_id}: its seeds were not tested on the same videos")
    return table


def bootstrap(hits: np.ndarray, baseline: np.ndarray | None = None) -> Interval:
    """Estimate an accuracy, or a difference of two, in percent.

    Seeds and groups are drawn with replacement, 4000 times: videos of one group are cut from one
    source, so they are no independent evidence.

    Args:
        hits: Of :func:`hits_by_group`.
        baseline: Of another model at the same seeds and groups, to be subtracted pair by pair.
    """
    rng = np.random.default_rng(0)
    seeds, groups = hits.shape[:2]
    drawn_seeds = rng.integers(seeds, size=(4000, seeds, 1))
    drawn_groups = rng.integers(groups, size=(4000, 1, groups))

    def accuracy(table: np.ndarray) -> tuple[float, np.ndarray]:
        samples = table[drawn_seeds, drawn_groups].sum((1, 2))
        right, videos = table.sum((0, 1))
        return 100 * right / videos, 100 * samples[:, 0] / samples[:, 1]

    mean, samples = accuracy(hits)
    if baseline is not None:
        other, others = accuracy(baseline)
        mean, samples = mean - other, samples - others
    return Interval(mean, *np.percentile(samples, [2.5, 97.5]))


@dataclass(frozen=True)
class Comparison:
    """One model on one set of test videos, in percent.

    Attributes:
        name: Of the model or of the reading.
        column: Which videos.
        accuracy: Top-1.
        difference: To HST as it is built; none for HST itself.
    """

    name: str
    column: str
    accuracy: Interval
    difference: Interval | None


def compare_readings(
    rows: Sequence[Row], columns: dict[str, tuple[str, set[int] | None]]
) -> list[Comparison]:
    """Compare every reading of HST, and the baselines, with HST as it is built.

    Args:
        rows: Finished runs at equal budgets.
        columns: Title, and the data set and labels that it stands for (none: all labels).

    Returns:
        HST first, then the baselines, the trunk alone and the other readings, each in the order of
        the columns; what was not run is left out.

    Raises:
        ValueError: If two models were not tested on the same videos.
    """
    built = ("hst", "paper")

    def order(model: tuple[str, str]) -> tuple:
        return model != built, model[1] != "paper", model[1] != "trunk-alone", *model

    runs: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.config.dataset, row.config.model, row.config.reading)
        runs.setdefault(key, []).append(row)
    found = []
    for model in sorted({key[1:] for key in runs}, key=order):
        name = MODEL_TITLES[model[0]] if model[1] == "paper" else model[1].replace("-", " ")
        for column, (dataset, labels) in columns.items():
            if (dataset, *model) not in runs:
                continue
            hits = hits_by_group(runs[dataset, *model], labels)
            difference = None
            if model != built and (dataset, *built) in runs:
                other = hits_by_group(runs[dataset, *built], labels)
                if hits.shape != other.shape or (hits[..., 1] != other[..., 1]).any():
                    raise ValueError(f"{name} and HST were not tested on the same {column} videos")
                difference = bootstrap(hits, other)
            found.append(Comparison(name, column, bootstrap(hits), difference))
    return found
