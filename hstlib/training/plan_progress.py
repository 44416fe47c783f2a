"""How far the runs of a plan are, from their rows on the disk."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hstlib.config import TrainConfig
from hstlib.training.identity import differing_settings
from hstlib.training.rows import RECORD, ROW, load_row

FINISHED = "finished"


def run_state(config: TrainConfig, results: Path) -> str:
    """Return how far a run is, from its row on the disk.

    Args:
        config: Settings of the run.
        results: Folder of all runs.

    Returns:
        :data:`FINISHED`, ``begun``, ``not begun``, or, if the row has other epochs or another place
        of the data or the first weights, which the run itself has to judge, ``finished with``
        those.

    Raises:
        ValueError: If the folder has a row of a run with other settings, or one that cannot be
            read. The message names the folder, and each setting with both values.
    """
    folder = results / config.run_id
    if not (folder / ROW).is_file():
        return "begun" if (folder / RECORD).is_file() else "not begun"
    row = load_row(folder / ROW)
    now, then = config.model_dump(), row.config.model_dump()
    if differences := differing_settings(then, now):
        raise ValueError(f"{folder} holds a run with other settings ({differences})")
    other = [
        f"{name} {then[name]!r} instead of {now[name]!r}"
        for name in ("epochs", "data_dir", "from_")
        if now[name] != then[name]
    ]
    return f"finished with {' and '.join(other)}" if other else FINISHED


def finished_runs(runs: Iterable[TrainConfig], results: Path) -> set[str]:
    """Return the ids of the runs that are :data:`FINISHED`."""
    finished = set()
    for run in runs:
        with suppress(ValueError):  # the run itself reports what is wrong
            if run_state(run, results) == FINISHED:
                finished.add(run.run_id)
    return finished
