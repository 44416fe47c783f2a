"""Commands that count, train and evaluate models."""

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

    Run the same command again to resume an interrupted run after its last complete epoch.

    Args:
        settings: Settings of the run.
        results: Folder of all runs; row, log and checkpoint are written to a folder in it.
    """
    from hstlib.training.experiment import run_experiment
    from hstlib.training.plan import check_reading

    data_dir = setting_of_path(settings.data_dir)
    config = TrainConfig.from_flat({**vars(settings), "data_dir": data_dir})
    results = results.expanduser()
    check_reading(config.model, config.backbone, config.reading)  # before it names a folder
    row = run_experiment(config, results)
    say(f"{row.run_id}: test top-1 {row.test['top1']:.4f} of {row.test['videos']} videos")


def evaluate(checkpoint: Positional[Path], data_dir: str = "") -> None:
    """Evaluate a checkpoint on the test set of its own data set and split.

    Args:
        checkpoint: A .safetensors file written by train.
        data_dir: Folder of the data set; by default the one that the model was trained on.
    """
    from hstlib.training.checkpoint import check_split, load_checkpoint
    from hstlib.training.evaluate import average_views, score_views, summarise
    from hstlib.training.experiment import open_dataset, open_store

    model, config, classes = load_checkpoint(checkpoint, device())
    data = open_dataset(config, setting_of_path(data_dir))
    check_split(checkpoint, data)
    store = open_store(data, config.clip)
    views = score_views(
        model, data.test, store, crop_size=config.crop_size, num_crops=config.num_crops
    )
    scores = average_views(views, len(classes))
    summary = summarise(scores, [sample.label for sample in data.test], views)
    say(*(f"{name} {value:.4g}" for name, value in summary.items()))


def device() -> str:
    """Return the device of evaluation and prediction: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
