"""Commands that count, train and evaluate models, and draw how they learned."""

from pathlib import Path

import tyro

from hstlib.commands.output import say
from hstlib.config import TrainConfig
from hstlib.options import options_of, setting_of_path

Positional = tyro.conf.Positional
TrainOptions = options_of(TrainConfig)


def params() -> None:
    """Print the parameters of all models at the paper's sizes, beside Tables 2 and 4.

    Each row is followed by its sum, block by block.
    """
    from textwrap import wrap

    import torch

    from hstlib.book.architecture import parameter_sum
    from hstlib.book.paper import PAPER_ROWS
    from hstlib.data.datasets import NUM_CLASSES
    from hstlib.model.registry import build_model
    from hstlib.training.metrics import count_parameters

    for row in PAPER_ROWS:
        with torch.device("meta"):
            model = build_model(row.model, NUM_CLASSES[row.dataset], row.backbone)
        ours = count_parameters(model)
        say(
            f"Table {row.table}  {row.title:9} {row.backbone:9} "
            f"paper {row.parameters:>6} M   ours {ours / 1e6:6.2f} M   {ours:>11,}"
        )
        for name, block in model.named_children():
            if formula := parameter_sum(block):
                text = f"{name.replace('_', ' ')}: {count_parameters(block):,} = {formula}"
                say(*wrap(text, 98, initial_indent="    ", subsequent_indent="      "))


def train(settings: TrainOptions, results: Path = Path("results")) -> None:
    """Train and evaluate one model; the defaults are the paper's settings.

    Run the same command again to resume an interrupted run from its last state: after its last
    complete epoch, or after the step in which it was stopped by Ctrl-C or SIGTERM. At the end, the
    learning curves are written as curves.csv and curves.png.

    Args:
        settings: Settings of the run.
        results: Folder of all runs; row, log and checkpoint are written to a folder in it.
    """
    from hstlib.data.reports import best_shortcut
    from hstlib.training.experiment import run_experiment
    from hstlib.training.plan import check_reading

    paths = {name: setting_of_path(getattr(settings, name)) for name in ("data_dir", "from_")}
    config = TrainConfig.from_flat({**vars(settings), **paths})
    results = results.expanduser()
    check_reading(config.model, config.backbone, config.reading)  # before it names a folder
    row = run_experiment(config, results)
    _draw_curves(results / row.run_id)
    say(f"{row.run_id}: test top-1 {row.test['top1']:.4f} of {row.test['videos']} videos")
    if best := best_shortcut(row.config, row.split_id):
        say(best)


def curves(run: Positional[Path], tensorboard: Path | None = None) -> None:
    """Write the learning curves of a run as curves.csv and curves.png, also while it is training.

    Args:
        run: Folder of the run.
        tensorboard: Folder of TensorBoard events; the run gets a folder in it.
    """
    from hstlib.training.epochs import read_epochs, write_tensorboard

    if tensorboard:
        write_tensorboard(tensorboard.expanduser() / run.resolve().name, read_epochs(run))
    say(*_draw_curves(run))


def _draw_curves(run: Path) -> list[Path]:
    """Write the measurements of all epochs as a table and as a picture, and return both files."""
    import pandas as pd

    from hstlib.files import complete
    from hstlib.training.epochs import read_epochs

    table = pd.DataFrame(read_epochs(run)).dropna(axis=1, how="all")
    table["epoch"] += 1
    table = table.set_index("epoch")
    with complete(run / "curves.csv") as unfinished:
        table.to_csv(unfinished)
    shares = [name for name in ("train_top1", "validation_top1") if name in table]
    axes = table[["loss", *shares]].plot(
        subplots=[("loss",), tuple(shares)],
        marker="o",
        markersize=3,
        figsize=(6, 6),
        title=run.name,
    )
    axes[-1].set_ylim(0, 1)
    axes[-1].locator_params(axis="x", integer=True)
    with complete(run / "curves.png") as unfinished:
        axes[0].figure.savefig(unfinished, format="png")
    return [run / "curves.csv", run / "curves.png"]


def evaluate(checkpoint: Positional[Path], on: str = "") -> None:
    """Evaluate a checkpoint on the test set of its own data set and split, or on other clips.

    Other clips are matched to the model's classes by name. Those that the model was trained on are
    found by content, whatever their name, and reported.

    Args:
        checkpoint: A .safetensors file written by train.
        on: Name of a data set, of which the test set is read; or a folder with one folder per
            class, or a list. The lists of the model's own data set, wherever it is stored, give its
            own test set. By default the data that the model was trained on.
    """
    from hstlib.data.reports import best_shortcut
    from hstlib.training.checkpoint import check_split, load_checkpoint, read_checkpoint
    from hstlib.training.evaluate import average_views, score_views
    from hstlib.training.experiment import open_store
    from hstlib.training.foreign import (
        class_lines,
        describe_clips,
        open_foreign,
        open_own,
        place_of,
        summary_lines,
        trained_clips,
    )

    model, config, classes = load_checkpoint(checkpoint, device())
    stored, on = read_checkpoint(checkpoint), place_of(on)
    data, foreign, trained = open_own(on, stored), None, None
    if data:
        check_split(checkpoint, data)
    else:
        foreign = open_foreign(on, config, classes)
        data = foreign.data
    store = open_store(data, config.clip)
    if foreign:
        trained = trained_clips(stored, foreign)
        say(*describe_clips(foreign, trained))
    views = score_views(
        model, data.test, store, crop_size=config.crop_size, num_crops=config.num_crops
    )
    scores = average_views(views, len(classes))
    say(*summary_lines(scores, views, data.test, trained))
    if foreign:
        say(*class_lines(scores, data.test, classes))
    elif best := best_shortcut(config, data.split_id):
        say(best)


def device() -> str:
    """Return the device of evaluation and prediction: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
