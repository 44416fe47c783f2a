"""The command line, ``python -m hstlib``."""

import logging
import sys
from pathlib import Path
from typing import Literal

import tyro

from hstlib.config import ClipConfig, DatasetName, Protocol, TrainConfig
from hstlib.options import check_option_names, options_of, setting_of_path

Positional = tyro.conf.Positional
PublicName = Literal["hmdb51", "ucf101", "jhmdb"]
ClipOptions = options_of(ClipConfig)
TrainOptions = options_of(TrainConfig)


def demo(seed: int = 0) -> None:
    """Draw the demo corpora into <data root>/demo; finished corpora are kept.

    Args:
        seed: Seed of the videos; the same seed gives the same videos.
    """
    from hstlib.data.demo import APPEARANCE, make_demo

    for name in APPEARANCE:
        print(make_demo(name, seed=seed))


def download(dataset: Positional[PublicName], archive: Path | None = None) -> None:
    """Download and unpack a data set; an interrupted download is resumed.

    Args:
        dataset: Data set to download, to its place under the data root.
        archive: Zip or RAR archive of the videos, if you already have it.
    """
    from hstlib.data.datasets import load_dataset
    from hstlib.data.download import download_dataset, warn_of_other_lists

    root = download_dataset(dataset, archive)
    data = load_dataset(dataset)
    warn_of_other_lists(data)
    print(f"{root}: {len(data.samples)} videos, {len(data.missing)} of them missing")


def adopt(
    folder: Positional[Path],
    out: Path | None = None,
    classes: list[str] | None = None,
    find_sources: bool = False,
    force: bool = False,
) -> None:
    """Look at a folder of videos, print what it is, and write its list to check and edit.

    Args:
        folder: Folder with a folder per class, with train, val and test folders, or with the
            official lists of HMDB51, UCF101 or J-HMDB and videos anywhere below it.
        out: List to write; by default videos.csv in the folder.
        classes: Classes to use; by default all.
        find_sources: Guess sources that the file names do not give, by the colours of the videos.
        force: Replace an existing list.
    """
    from hstlib.data.adopt import adopt as adopt_folder

    place, target = (path and setting_of_path(str(path)) for path in (folder, out))
    adopt_folder(place, target, classes or (), find_sources=find_sources, force=force)


def prepare(
    dataset: Positional[DatasetName],
    settings: ClipOptions,
    data_dir: str = "",
    workers: int | None = None,
) -> None:
    """Decode all videos of a data set and compute their flow; list the files that cannot be used.

    Training does the same when it starts. An interrupted preparation is resumed.

    Args:
        dataset: Data set; `folder` reads videos of your own from --data-dir.
        settings: Settings of the clips, as for `train`.
        data_dir: Folder of the data set; by default its place under the data root.
        workers: Number of processes; by default one per core.
    """
    from hstlib.data.datasets import load_dataset
    from hstlib.training.experiment import list_problems, open_store

    clip = ClipConfig.from_flat(vars(settings))
    data = load_dataset(dataset, setting_of_path(data_dir))
    store = open_store(data, clip, workers)
    print(f"{store.folder}: {len(data.samples) - len(store.problems)} videos")
    print(*list_problems(store, len(store.problems)), sep="\n")


def verify(
    dataset: Positional[DatasetName], data_dir: str = "", workers: int | None = None
) -> None:
    """Decode every file of a data set once, write its manifest, and list the problems.

    Problems are missing, unusable, mislabelled and stray files. A second call reads only the files
    that changed.

    Args:
        dataset: Data set; `folder` reads videos of your own from --data-dir.
        data_dir: Folder of the data set; by default its place under the data root.
        workers: Number of processes; by default one per core.
    """
    from collections import Counter

    from hstlib.data.verify import verify

    manifest = verify(dataset, setting_of_path(data_dir), workers)
    for problem in manifest.problems:
        print(problem)
    kinds = Counter(problem.kind for problem in manifest.problems)
    usable = sum(file.fault is None for file in manifest.files.values())
    print(f"{manifest.dataset}: {usable} of {len(manifest.files)} videos can be used")
    print(f"sha256 of names and contents: {manifest.sha256}")
    if kinds:
        raise SystemExit(", ".join(f"{count} {kind}" for kind, count in kinds.items()))


def leakage(
    dataset: Positional[DatasetName],
    data_dir: str = "",
    split: int = 1,
    protocol: Protocol = "official",
    clips_per_video: int = 4,
) -> None:
    """Count the test clips that come from the same source as a training clip.

    This needs the lists of the data set, not the videos.

    Args:
        dataset: Data set; `folder` reads videos of your own from --data-dir.
        data_dir: Folder of the data set; by default its place under the data root.
        split: Split 1-3.
        protocol: How training and test set are split.
        clips_per_video: Clips of each video, for random-by-clip.
    """
    from hstlib.data.datasets import load_dataset
    from hstlib.data.leakage import leakage_summary, leakage_table

    root = setting_of_path(data_dir)
    data = load_dataset(dataset, root, split, protocol=protocol, clips_per_video=clips_per_video)
    print(leakage_table(data).to_string())
    print(*leakage_summary(data), sep="\n")


def shortcuts(
    dataset: Positional[DatasetName],
    data_dir: str = "",
    split: int = 1,
    protocol: Protocol = "official",
    json: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Measure what a nearest neighbour reaches on the test set without a network.

    Args:
        dataset: Data set; `folder` reads videos of your own from --data-dir.
        data_dir: Folder of the data set; by default its place under the data root.
        split: Split 1-3.
        protocol: How training and test set are split.
        json: File to write the results to.
        picture: File to draw the results to, such as shortcuts.png.
    """
    from hstlib.book.plots import shortcut_figure
    from hstlib.data.shortcuts import report_lines, report_title, shortcut_report

    report = shortcut_report(dataset, setting_of_path(data_dir), split, protocol, json)
    print(*report_lines(report), sep="\n")
    if picture:
        shortcut_figure(report["top1"], report_title(report)).savefig(picture.expanduser())


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
        print(
            f"Table {row.table}  {row.title:9} {row.backbone:9} "
            f"paper {row.parameters:>6} M   ours {ours / 1e6:6.2f} M   {ours:>11,}"
        )
        for name, block in model.named_children():
            if formula := parameter_sum(block):
                text = f"{name.replace('_', ' ')}: {count_parameters(block):,} = {formula}"
                print(*wrap(text, 98, initial_indent="    ", subsequent_indent="      "), sep="\n")


def train(settings: TrainOptions, results: Path = Path("results")) -> None:
    """Train and evaluate one model; the defaults are the paper's settings.

    Run the same command again to resume an interrupted run after its last complete epoch.

    Args:
        settings: Settings of the run.
        results: Folder of all runs; row, log and checkpoint are written to a folder in it.
    """
    from hstlib.training.experiment import run_experiment
    from hstlib.training.state import STATE

    data_dir = setting_of_path(settings.data_dir)
    config = TrainConfig.from_flat({**vars(settings), "data_dir": data_dir})
    results = results.expanduser()
    row = run_experiment(config, results)
    (results / row.run_id / STATE).unlink(missing_ok=True)
    print(f"{row.run_id}: test top-1 {row.test['top1']:.4f} of {row.test['videos']} videos")


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
    print(*(f"{name} {value:.4g}" for name, value in summary.items()), sep="\n")


def predict(
    videos: Positional[list[Path]],
    checkpoint: Path,
    top: int = 5,
    annotated: Path | None = None,
) -> None:
    """Classify video files.

    Args:
        videos: Video files.
        checkpoint: A .safetensors file written by train.
        top: Number of classes to print for each video.
        annotated: Write a copy of the video with the prediction drawn on it, as .mp4, .webm, .avi
            or .gif; takes one video.
    """
    from hstlib.data.container import VideoError
    from hstlib.data.overlay import annotate_video, check_target
    from hstlib.training.checkpoint import load_checkpoint
    from hstlib.training.evaluate import predict_video

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


def export(checkpoint: Positional[Path], onnx: Positional[Path | None] = None) -> None:
    """Export a checkpoint as an ONNX file, which can be used without hstlib and torch.

    Args:
        checkpoint: A .safetensors file written by train.
        onnx: File to write; by default next to the checkpoint.
    """
    from hstlib.training.checkpoint import load_checkpoint
    from hstlib.training.export import export_onnx

    model, config, classes = load_checkpoint(checkpoint)
    path = onnx or checkpoint.with_suffix(".onnx")
    export_onnx(path, model, config, classes)
    print(path)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


COMMANDS = (
    demo, download, adopt, verify, leakage, shortcuts, prepare, params, train, evaluate, predict,
    export,
)  # fmt: skip


def main() -> None:
    """Run a command. An error of the user is reported in one line, without a traceback."""
    from hstlib.training.loop import TrainingError

    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be anything
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, datefmt="%H:%M:%S")
    commands = {command.__name__: command for command in COMMANDS}
    if sys.argv[1:] and sys.argv[1] in commands:
        try:
            check_option_names(commands[sys.argv[1]], sys.argv[2:])
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="python -m hstlib",
            description="The HST model, its data and its training. Paths are relative to the "
            "working directory.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except (ValueError, OSError, TrainingError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
