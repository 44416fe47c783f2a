"""Measurements of a training run, epoch by epoch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hstlib.files import complete

EPOCHS = "epochs.jsonl"


@dataclass
class EpochRecord:
    """Measurements of one epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        loss: Mean cross-entropy over the training samples.
        train_top1: Training accuracy, a fraction.
        learning_rate: Learning rate at the end of the epoch.
        seconds: Duration without validation.
        clips_per_second: Training samples per second, over all processes.
        wait_share: Fraction of the time in which the loop waited for the loader.
        validation_top1: Validation accuracy, a fraction; None without validation.
    """

    epoch: int
    loss: float
    train_top1: float
    learning_rate: float
    seconds: float
    clips_per_second: float
    wait_share: float
    validation_top1: float | None = None


def write_epochs(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write ``epochs.jsonl``, one line per epoch, atomically."""
    with complete(folder / EPOCHS) as unfinished:
        unfinished.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


def format_record(record: EpochRecord, epochs: int) -> str:
    """Return the line of the log for an epoch, out of ``epochs``."""
    validation = ""
    if record.validation_top1 is not None:
        validation = f" validation top-1 {record.validation_top1:.3f}"
    return (
        f"epoch {record.epoch + 1}/{epochs} loss {record.loss:.4f} "
        f"train top-1 {record.train_top1:.3f}{validation} {record.seconds:.1f} s, "
        f"{record.clips_per_second:.1f} clips/s, waiting {100 * record.wait_share:.0f} %"
    )
