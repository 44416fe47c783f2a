"""Result rows for tests, without training."""

from collections.abc import Sequence

from hstlib.book.selection import PAPER_PLAN
from hstlib.config import TrainConfig, project_path
from hstlib.training.plan import planned_runs, read_plan
from hstlib.training.rows import Row

PAPER_RUNS = list(planned_runs(read_plan(project_path(PAPER_PLAN))).values())
"""Settings of all runs of the paper's plan."""

KINDS = {"motion": 0.5, "appearance": 0.75, "direction": 0.625}


def make_row(
    top1: float = 0.25,
    missing: int = 0,
    videos: Sequence[tuple[int, int, int]] = (),
    split_id: str = "",
    train_top1: float = 0.1,
    **settings,
) -> Row:
    """Return a row with these results, and plausible values for everything else.

    Args:
        top1: Accuracy as a fraction.
        missing: Number of missing files.
        videos: Label, prediction and group of every test video.
        split_id: Hash of the lists.
        train_top1: Training accuracy in the last epoch, as a fraction.
        settings: Settings of the run.
    """
    config = TrainConfig(**settings)
    demo = config.dataset.startswith("demo-")
    return Row(
        run_id=config.run_id,
        config=config,
        split_id=split_id,
        parameters=35_544_530,
        classes=51,
        train_videos=3570,
        missing=missing,
        problems=missing,
        test={"top1": top1, "top5": 0.5, "videos": 1530, "unreadable": 0},
        videos=list(videos),
        kinds=KINDS | {f"{kind}_shuffled": 0.125 for kind in KINDS} if demo else {},
        epochs=[
            {
                "epoch": 0,
                "loss": 1.5,
                "train_top1": train_top1,
                "learning_rate": 0.01,
                "seconds": 2.0,
            }
        ],
        seconds=3.5,
        finished="2024-01-01T00:00:00+00:00",
        commit="0" * 40,
        dirty=False,
        environment={"torch": "2"},
    )


def paper_settings(dataset: str = "hmdb51", model: str = "hst") -> TrainConfig:
    """Return the settings of the first run of a model on a data set in the paper's plan."""
    return next(run for run in PAPER_RUNS if (run.dataset, run.model) == (dataset, model))


def answers(hits: Sequence[int], per_group: int = 10) -> list[tuple[int, int, int]]:
    """Return label, prediction and group of videos, of which so many in each group are correct."""
    return [
        (0, 0 if number < correct else 1, group)
        for group, correct in enumerate(hits)
        for number in range(per_group)
    ]
