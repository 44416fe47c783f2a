"""Measurements of a training run, epoch by epoch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

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


class Progress(BaseModel):
    """Measurements of an epoch so far.

    Attributes:
        losses: Loss of each part of a batch that the model was trained on.
        correct: Number of training samples that were classified correctly.
        seconds: Time so far.
        waited: Time in which the loop waited for the loader, in seconds.
        random: States of torch's random generators in hexadecimal, by device.
    """

    model_config = ConfigDict(extra="forbid")

    losses: list[float] = []
    correct: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    random: dict[str, str] = {}

    def record(self, epoch: int, samples: int, learning_rate: float) -> EpochRecord:
        """Return the record of the epoch, which is complete and had this number of samples."""
        return EpochRecord(
            epoch=epoch,
            loss=float(np.mean(self.losses)),
            train_top1=self.correct / samples,
            learning_rate=learning_rate,
            seconds=self.seconds,
            clips_per_second=samples / self.seconds,
            wait_share=self.waited / self.seconds,
        )

    def keep_random(self, device: torch.device) -> None:
        """Keep the states of the generators that training on the device draws from."""
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        self.random = {name: state.numpy().tobytes().hex() for name, state in states.items()}

    def restore_random(self, device: torch.device) -> None:
        """Give the generators the states that were kept, once; the device may have changed."""
        for name in {"cpu", device.type} & {*self.random}:
            state = torch.frombuffer(bytearray.fromhex(self.random[name]), dtype=torch.uint8)
            torch.set_rng_state(state) if name == "cpu" else torch.cuda.set_rng_state(state, device)
        self.random = {}


def write_epochs(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write ``epochs.jsonl``, one line per epoch, atomically."""
    with complete(folder / EPOCHS) as unfinished:
        unfinished.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


def read_epochs(folder: Path) -> list[EpochRecord]:
    """Read the epochs of a run that is finished, interrupted or still training.

    Args:
        folder: Folder of the run.

    Raises:
        ValueError: If the folder has no epochs.
    """
    path = folder / EPOCHS
    lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        raise ValueError(
            f"{path}: no epochs; name the folder of a run that has finished one, such as "
            "results/<run id>"
        )
    return [EpochRecord(**json.loads(line)) for line in lines]


def write_tensorboard(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write the measurements of each epoch as TensorBoard events, in place of earlier ones.

    Args:
        folder: Folder of the events; TensorBoard names the run after it.
        records: Epochs of the run.

    Raises:
        ValueError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TensorBoard is not installed; run `pip install tensorboard`, which is the extra "
            "hstlib[tensorboard]"
        ) from error
    with SummaryWriter(str(folder), purge_step=0) as writer:  # purges earlier events
        for record in records:
            for name, value in asdict(record).items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, record.epoch + 1)


def stops_early(records: Sequence[EpochRecord], patience: int) -> bool:
    """Return whether the last ``patience`` epochs brought no better validation accuracy.

    It follows from the records alone, so that a resumed run stops where an uninterrupted one does.

    Args:
        records: All epochs so far.
        patience: Number of epochs; 0: never stop.
    """
    scores = [r.validation_top1 for r in records if r.validation_top1 is not None]
    if not patience or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= patience


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
