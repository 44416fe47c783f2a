"""Result rows on disk: one JSON file per run, or one line per run in a published file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hstlib.config import TrainConfig
from hstlib.files import complete
from hstlib.training.identity import Ancestor, DataIdentity

RECORD, ROW = "run.json", "row.json"


class RunRecord(BaseModel):
    """Settings and provenance of a run, written when it starts.

    Attributes:
        run_id: Name of the run, :attr:`hstlib.config.TrainConfig.run_id`.
        config: Settings of the run.
        class_names: Class names, in the order of the labels; empty in old rows.
        split_id: Hash of the lists, :attr:`hstlib.data.datasets.VideoSet.split_id`; empty in old
            rows.
        train_contents: Hash of the training videos' contents; empty in old rows.
        test_contents: Hash of the test videos' contents; empty in old rows.
        ancestor: Checkpoint that the run started from; None: random weights.
        manifest: sha256 of the data set. None if it was not verified, or changed since.
        started: Start time, UTC.
        version: Version of hstlib; empty in old rows.
        commit: Commit of hstlib's own checkout; "unknown" if it was installed without one.
        dirty: Whether tracked files differed from the commit.
        environment: Versions and hardware.
        test_evaluations: Time of every evaluation on the test set, UTC. There is more than one if
            the run was interrupted during evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    config: TrainConfig
    class_names: tuple[str, ...] = ()
    split_id: str = ""
    train_contents: str = ""
    test_contents: str = ""
    ancestor: Ancestor | None = None
    manifest: str | None = None
    started: str = ""
    version: str = ""
    commit: str
    dirty: bool
    environment: dict[str, str]
    test_evaluations: list[str] = []

    @property
    def data(self) -> DataIdentity | None:
        """Lists and contents of the run's data; None in old rows."""
        fields = {name: getattr(self, name) for name in DataIdentity.model_fields}
        return DataIdentity(**fields) if self.class_names else None


CURVE = ("epoch", "loss", "train_top1", "validation_top1")
"""What a published row keeps of every epoch but the last."""


class Row(RunRecord):
    """Result of one finished run.

    Attributes:
        parameters: Trainable parameters of the model.
        classes: Number of classes.
        train_videos: Number of videos in the training list.
        missing: Number of listed files that were not on disk.
        problems: Number of files that were missing or could not be decoded.
        training_top1: Top-1 of the evaluated weights on the training videos; None in old rows.
        test: Metrics from :func:`hstlib.training.evaluate.summarise`.
        videos: Label, prediction and group of every test video, as integers. The prediction is -1
            for an unreadable video.
        confidences: Probability of the predicted class of every test video. None for an unreadable
            video.
        tags: HMDB51 only: correct predictions and videos, by tag of the file name and its value.
        kinds: Demo corpora only: :func:`hstlib.training.answers.kind_accuracy`, and the same
            with the frames of every clip shuffled in time.
        epochs: Fields of :class:`hstlib.training.epochs.EpochRecord`, one mapping per epoch.
        replanned: Numbers of finished epochs at which ``epochs`` was changed.
        weights: SHA-256 of the evaluated checkpoint; empty in old rows.
        seconds: Duration of the run, or of its last part if it was interrupted.
        finished: End time, UTC.
    """

    parameters: int
    classes: int
    train_videos: int
    missing: int
    problems: int
    training_top1: float | None = None
    test: dict[str, float | int]
    videos: list[tuple[int, int, int]] = []
    confidences: list[float | None] = []
    tags: dict[str, dict[str, tuple[int, int]]] = {}
    kinds: dict[str, float]
    epochs: list[dict[str, float | int | None]]
    replanned: list[int] = []
    weights: str = ""
    seconds: float
    finished: str

    @property
    def steps(self) -> int:
        """Number of optimiser steps; a last incomplete batch of an epoch is dropped."""
        epochs = self.epochs[-1]["epoch"] + 1 if self.config.patience else self.config.epochs
        return epochs * (self.train_videos // self.config.batch_size)


Record = TypeVar("Record", bound=RunRecord)


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write a record to ``<folder>/run.json``, atomically."""
    return _write(record, folder / RECORD)


def load_record(folder: Path) -> RunRecord | None:
    """Read the record of :func:`write_record`; None if there is no such file."""
    path = folder / RECORD
    return _parse(RunRecord, path.read_bytes(), path) if path.is_file() else None


def write_row(row: Row, folder: Path) -> Path:
    """Write a row to ``<folder>/<run id>/row.json``, atomically."""
    return _write(row, folder / row.run_id / ROW)


def load_row(path: Path) -> Row:
    """Read one row.

    Raises:
        ValueError: If the file is not a row, or was written by an earlier version of hstlib. The
            message names the file.
    """
    return _parse(Row, path.read_bytes(), path)


def publish_rows(rows: Sequence[Row], path: Path, curves: bool = False) -> None:
    """Write rows to one ``.jsonl`` file, one line each, atomically.

    Args:
        rows: Finished runs.
        path: Path of the file.
        curves: Write the values of :data:`CURVE` of all epochs, to four significant digits, beside
            all of the last epoch.

    Raises:
        ValueError: If the code of a run is in no commit, so that nobody can repeat it.
    """
    for row in rows:
        if row.dirty or row.commit == "unknown":
            raise ValueError(
                f"{row.run_id} cannot be published: it was trained at commit {row.commit} with "
                "uncommitted changes or outside a checkout; commit, and train it again"
            )
    with complete(path) as unfinished, unfinished.open("w") as file:
        for row in rows:
            epochs = [
                {name: _shortened(epoch[name]) for name in CURVE if epoch.get(name) is not None}
                for epoch in (row.epochs[:-1] if curves else [])
            ]
            published = row.model_copy(update={"epochs": [*epochs, *row.epochs[-1:]]})
            file.write(published.model_dump_json() + "\n")


def _shortened(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def load_rows(folder: Path) -> list[Row]:
    """Read all rows of a folder, ordered by run id.

    Args:
        folder: Folder with subfolders of :func:`write_row`, ``.jsonl`` files of
            :func:`publish_rows`, or both.

    Raises:
        ValueError: If the folder does not exist or a file does not contain rows. The message names
            the folder or the file.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder.absolute()} to read result rows from")
    rows = [load_row(path) for path in folder.glob(f"*/{ROW}")]
    for path in folder.glob("*.jsonl"):
        rows += [_parse(Row, line, path) for line in path.read_bytes().splitlines()]
    return sorted(rows, key=lambda row: row.run_id)


def _write(record: RunRecord, path: Path) -> Path:
    with complete(path) as unfinished:
        unfinished.write_text(record.model_dump_json(indent=1) + "\n")
    return path


def _parse(kind: type[Record], text: bytes, path: Path) -> Record:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        details = error.errors()
        settings = [d for d in details if d["loc"][:1] == ("config",) and len(d["loc"]) > 1]
        refuse_nested_settings({str(d["loc"][-1]): d["input"] for d in settings}, path)
        reasons = (": ".join([*map(str, d["loc"]), d["msg"]]) for d in details)
        raise ValueError(
            f"{path}: not a results row: {'; '.join(reasons)}; restore it, or move it away"
        ) from error


def parse_settings(settings: Mapping[str, Any], source: Path) -> TrainConfig:
    """Read settings that an earlier run stored.

    Args:
        settings: Stored mapping.
        source: File it comes from, for error messages.

    Raises:
        ValueError: If an earlier version of hstlib wrote them, or a name or a value is not allowed.
    """
    refuse_nested_settings(settings, source)
    try:
        return TrainConfig.from_flat(settings)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def refuse_nested_settings(settings: Mapping[str, Any], source: Path) -> None:
    """Raise ValueError if an earlier version of hstlib stored the settings, in nested groups."""
    if any(isinstance(value, Mapping) for value in settings.values()):
        raise ValueError(
            f"{source} was written by an earlier version of hstlib, whose settings this version "
            "cannot read; move it away and train again"
        )
