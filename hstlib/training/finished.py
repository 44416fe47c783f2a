"""Whether a run is finished: its row, compared with what is asked for now."""

import logging
from pathlib import Path

from hstlib.config import TrainConfig
from hstlib.data.datasets import VideoSet
from hstlib.training.checkpoint import checkpoint_sha256
from hstlib.training.identity import differing_data, differing_settings
from hstlib.training.provenance import identify_data
from hstlib.training.rows import ROW, Row, load_row
from hstlib.training.state import has_state

log = logging.getLogger("hstlib")


def finished_row(folder: Path, config: TrainConfig, data: VideoSet, checkpoint: Path) -> Row | None:
    """Return the row of a finished run; None if there is no row, or more epochs are asked for.

    Args:
        folder: Folder of the run.
        config: Settings of the run now.
        data: Data set at the run's split now.
        checkpoint: Weights that the row was measured with.

    Raises:
        ValueError: If the row belongs to another run, or does not belong to the weights beside it.
    """
    if not (folder / ROW).is_file():
        return None
    row = load_row(folder / ROW)
    if row.data is None:
        raise ValueError(
            f"{folder / ROW} was written by an earlier version of hstlib, which did not store what "
            "the videos contain; move it away and train again"
        )
    settings = differing_settings(row.config.model_dump(), config.model_dump())
    of_data = differing_data(row.data, identify_data(data, config.clip))
    if differences := ", ".join(filter(None, (settings, of_data))):
        raise ValueError(
            f"{folder} holds another run ({differences}); move it away or choose another results "
            "folder"
        )
    if row.config.epochs > config.epochs:
        raise ValueError(
            f"{folder} is trained for {row.config.epochs} epochs, more than the {config.epochs} "
            "asked for; raise epochs or choose another results folder"
        )
    if row.config.epochs < config.epochs:
        _check_longer(folder, row.config.epochs, config.epochs)
        return None
    return _with_weights(folder, row, checkpoint)


def _check_longer(folder: Path, trained: int, epochs: int) -> None:
    """Check that a finished run can be given more epochs."""
    if not has_state(folder):
        raise ValueError(
            f"{folder} is finished after {trained} epochs, and without its state it cannot be "
            f"trained for {epochs}; move it away to train from the first epoch"
        )
    log.info("%s is finished after %d epochs; it is trained for %d", folder, trained, epochs)


def _with_weights(folder: Path, row: Row, checkpoint: Path) -> Row | None:
    """Return a row if its weights are whole; None if the state can give them again."""
    try:
        problem = ""
        if checkpoint_sha256(checkpoint) != row.weights:
            problem = f"{checkpoint} has not the weights that {folder / ROW} was measured with"
    except ValueError as error:
        problem = str(error).rpartition("; ")[0]  # without its remedy
    if problem and not has_state(folder):
        raise ValueError(f"{problem}; restore it, or move {folder} away to train again")
    if problem:
        log.warning("%s; they are written again from the state", problem)
        return None
    log.info("%s is finished, see %s", row.run_id, folder / ROW)
    return row
