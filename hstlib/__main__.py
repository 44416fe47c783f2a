"""``python -m hstlib``: what notebooks and batch jobs share, from a shell."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hstlib.config import ClipConfig, DatasetName, Protocol, TrainConfig, data_root

app = tyro.extras.SubcommandApp()
Positional = tyro.conf.Positional


@app.command
def demo(seed: int = 0) -> None:
    """Draw the demo corpora into <data root>/demo, unless they are there.

    Args:
        seed: Same seed, same videos.
    """
    from hstlib.demo import APPEARANCE, make_demo

    for name in APPEARANCE:
        print(make_demo(data_root() / name.replace("-", "/"), name, seed))


@app.command
def download(dataset: Positional[Literal["hmdb51", "ucf101"]], archive: Path | None = None) -> None:
    """Fetch and unpack a data set, unless it is there; an interrupted download goes on.

    Args:
        dataset: Which; it goes to its place under the data root.
        archive: Zip or RAR of the videos that was fetched by other means.
    """
    from hstlib.datasets import load_dataset
    from hstlib.download import download_dataset

    root = download_dataset(dataset, archive)
    data = load_dataset(dataset)
    print(f"{root}: {len(data.samples)} videos, {len(data.missing)} of them missing")


@app.command
def prepare(
    dataset: Positional[DatasetName],
    clip: Annotated[ClipConfig, tyro.conf.arg(name="")],
    data_dir: str = "",
    workers: int | None = None,
) -> None:
    """Decode a data set and compute its flow once; list the files that cannot be used.

    Args:
        dataset: Which data set; `folder` takes one folder per class from --data-dir.
        clip: How clips are cut.
        data_dir: Where it lies; by default its place under the data root.
        workers: Processes; by default one per core.
    """
    from hstlib.datasets import load_dataset
    from hstlib.experiment import list_problems, open_store

    data = load_dataset(dataset, data_dir)
    store = open_store(data, clip, workers)
    print(f"{store.folder}: {len(data.samples) - len(store.problems)} videos")
    print(*list_problems(store, shown=len(store.problems)), sep="\n")


@app.command
def verify(
    dataset: Positional[DatasetName], data_dir: str = "", workers: int | None = None
) -> None:
    """Decode every file of a data set once, write its manifest, and list what is wrong.

    That is what is missing, unusable, mislabelled or stray. A second look reads only what changed.

    Args:
        dataset: Which data set; `folder` takes one folder per class from --data-dir.
        data_dir: Where it lies; by default its place under the data root.
        workers: Processes; by default one per core.
    """
    from collections import Counter

    from hstlib.verify import verify

    manifest = verify(dataset, data_dir, workers)
    for problem in manifest.problems:
        print(problem)
    kinds = Counter(problem.kind for problem in manifest.problems)
    usable = sum(entry["fault"] is None for entry in manifest.files.values())
    print(f"{manifest.dataset}: {usable} of {len(manifest.files)} videos can be used")
    print(f"sha256 of names and contents: {manifest.sha256}")
    if kinds:
        raise SystemExit(", ".join(f"{count} {kind}" for kind, count in kinds.items()))


@app.command
def leakage(
    dataset: Positional[DatasetName],
    data_dir: str = "",
    split: int = 1,
    protocol: Protocol = "official",
    num_windows: int = 4,
) -> None:
    """Count the test clips that come from the same source as a training clip.

    The lists are enough, the videos need not be there.

    Args:
        dataset: Which data set; `folder` takes one folder per class from --data-dir.
        data_dir: Where it lies; by default its place under the data root.
        split: 1-3.
        protocol: How the split is made.
        num_windows: Clips of each video, for random-by-clip.
    """
    from hstlib.datasets import load_dataset
    from hstlib.leakage import leakage_table, rules_of

    data = load_dataset(dataset, data_dir, split, protocol=protocol, num_windows=num_windows)
    table = leakage_table(data)
    print(table.to_string())
    for rule, meaning in rules_of(data).items():
        leaked, total = table[rule].sum(), len(data.test)
        print(f"{rule}, {meaning}: {leaked} of {total} test clips leak, {leaked / total:.1%}")


@app.command
def params() -> None:
    """Print parameters of all models at the paper's sizes beside Tables 2 and 4.

    Under each row stands the sum that makes it, block by block.
    """
    from textwrap import wrap

    import torch

    from hstlib.architecture import parameter_sum
    from hstlib.datasets import NUM_CLASSES
    from hstlib.metrics import count_parameters
    from hstlib.models import build_model
    from hstlib.paper import PAPER_ROWS

    for row in PAPER_ROWS:
        with torch.device("meta"):
            model = build_model(row.model, NUM_CLASSES[row.dataset], row.backbone)
        ours = count_parameters(model)
        print(
            f"Table {row.table}  {row.title:9} {row.backbone:9} "
            f"paper {row.parameters:>6} M   ours {ours / 1e6:6.2f} M   {ours:>11,}"
        )
        for name, block in model.named_children():
            if formula := parameter_sum(block):
                text = f"{name.replace('_', ' ')}: {count_parameters(block):,} = {formula}"
                print(*wrap(text, 98, initial_indent="    ", subsequent_indent="      "), sep="\n")


@app.command
def train(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")], results: Path = Path("results")
) -> None:
    """Train and evaluate one model; the defaults are the paper's settings.

    Args:
        config: The run.
        results: Gets the results row and the checkpoint.
    """
    from hstlib.experiment import run
    from hstlib.train import STATE

    row = run(config, results)
    (results / row.run_id / STATE).unlink(missing_ok=True)
    print(f"{row.run_id}: test top-1 {row.test['top1']:.4f} of {row.test['videos']} videos")


@app.command
def evaluate(checkpoint: Positional[Path], data_dir: str = "") -> None:
    """Score a checkpoint on the test set of its own data set and split.

    Args:
        checkpoint: A .safetensors file written by train.
        data_dir: Where the data set lies, if not where it was trained from.
    """
    from hstlib.checkpoint import check_split, load_checkpoint
    from hstlib.evaluate import average_views, score_views, summarise
    from hstlib.experiment import open_dataset, open_store

    model, config, classes = load_checkpoint(checkpoint, _device())
    data = open_dataset(config, data_dir)
    check_split(checkpoint, data)
    store = open_store(data, config.clip)
    views = score_views(model, data.test, store, crop=config.augment.crop, crops=config.crops)
    scores = average_views(views, len(classes))
    summary = summarise(scores, [sample.label for sample in data.test], views)
    print(*(f"{name} {value:.4g}" for name, value in summary.items()), sep="\n")


@app.command
def predict(
    videos: Positional[list[Path]],
    checkpoint: Path,
    top: int = 5,
    annotated: Path | None = None,
) -> None:
    """Classify video files.

    Args:
        videos: The files.
        checkpoint: A .safetensors file written by train.
        top: How many classes to print for each.
        annotated: Gets a copy of the one video with the answer on it: .mp4, .webm, .avi or .gif.
    """
    from hstlib.checkpoint import load_checkpoint
    from hstlib.evaluate import predict_video
    from hstlib.overlay import annotate_video, check_target
    from hstlib.video import VideoError

    if annotated:
        if len(videos) != 1:
            raise ValueError(f"--annotated {annotated} takes one video, not {len(videos)}")
        check_target(videos[0], annotated)
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
            print(error, file=sys.stderr)
            continue
        best = probabilities.argsort()[::-1][:top]
        print(path, *(f"{classes[i]} {probabilities[i]:.3f}" for i in best), sep="  ")
    if failed:
        raise SystemExit(f"{failed} of {len(videos)} files cannot be used")


@app.command
def export(checkpoint: Positional[Path], onnx: Positional[Path | None] = None) -> None:
    """Write a checkpoint as an ONNX file, which needs neither hstlib nor torch.

    Args:
        checkpoint: A .safetensors file written by train.
        onnx: The file; by default beside the checkpoint.
    """
    from hstlib.checkpoint import load_checkpoint
    from hstlib.export import export_onnx

    model, config, classes = load_checkpoint(checkpoint)
    path = onnx or checkpoint.with_suffix(".onnx")
    export_onnx(path, model, config, classes)
    print(path)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Run a command; an error of the user's is one line, not a traceback."""
    from hstlib.train import TrainingError

    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be anything
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, datefmt="%H:%M:%S")
    try:
        app.cli(prog="python -m hstlib", config=(tyro.conf.OmitArgPrefixes,))
    except (ValueError, OSError, TrainingError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
