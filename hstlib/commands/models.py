"""Commands that count, train, evaluate, use and export models."""

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

    model, config, classes = load_checkpoint(checkpoint, _device())
    data = open_dataset(config, setting_of_path(data_dir))
    check_split(checkpoint, data)
    store = open_store(data, config.clip)
    views = score_views(
        model, data.test, store, crop_size=config.crop_size, num_crops=config.num_crops
    )
    scores = average_views(views, len(classes))
    summary = summarise(scores, [sample.label for sample in data.test], views)
    say(*(f"{name} {value:.4g}" for name, value in summary.items()))


def predict(
    videos: Positional[list[Path]],
    checkpoint: Path,
    top: int = 5,
    annotated: Path | None = None,
    force: bool = False,
) -> None:
    """Classify video files.

    Args:
        videos: Video files.
        checkpoint: A .safetensors file written by train.
        top: Number of classes to print for each video.
        annotated: Write a copy of the video with the prediction drawn on it, as .mp4, .webm, .avi
            or .gif; takes one video.
        force: Replace an existing copy.
    """
    from hstlib.data.container import VideoError
    from hstlib.data.overlay import annotate_video, check_target
    from hstlib.training.checkpoint import load_checkpoint
    from hstlib.training.evaluate import predict_video

    if annotated:
        if len(videos) != 1:
            raise ValueError(f"--annotated {annotated} takes one video, not {len(videos)}")
        check_target(videos[0], annotated)
        _refuse_existing(annotated, force)
    model, config, classes = load_checkpoint(checkpoint, _device())
    failed = 0
    for path in videos:
        try:
            probabilities = predict_video(model, path, config)
            if annotated:
                first = int(probabilities.argmax())
                annotate_video(path, annotated, classes[first], probabilities[first])
        except VideoError as error:
            failed += 1
            say(error, to_errors=True)
            continue
        best = probabilities.argsort()[::-1][:top]
        guesses = (f"{classes[i]} {probabilities[i]:.3f}" for i in best)
        say("  ".join([str(path), *guesses]))
    if failed:
        raise SystemExit(f"{failed} of {len(videos)} files cannot be used")


def export(
    checkpoint: Positional[Path], onnx: Positional[Path | None] = None, force: bool = False
) -> None:
    """Export a checkpoint as an ONNX file, which can be used without hstlib and torch.

    Args:
        checkpoint: A .safetensors file written by train.
        onnx: File to write; by default next to the checkpoint.
        force: Replace an existing file.
    """
    from hstlib.training.checkpoint import load_checkpoint
    from hstlib.training.export import export_onnx

    path = onnx or checkpoint.with_suffix(".onnx")
    _refuse_existing(path, force)
    model, config, classes = load_checkpoint(checkpoint)
    export_onnx(path, model, config, classes)
    say(path)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ValueError(f"{path} exists; name another file, or replace it with --force")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
