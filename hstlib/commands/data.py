"""Commands that draw, fetch, check and decode data sets."""

from pathlib import Path
from typing import Literal

import tyro

from hstlib.commands.output import say
from hstlib.config import ClipConfig, DatasetName, Protocol
from hstlib.options import options_of, setting_of_path

Positional = tyro.conf.Positional
PublicName = Literal["hmdb51", "ucf101", "jhmdb"]
ClipOptions = options_of(ClipConfig)


def demo(seed: int = 0) -> None:
    """Draw the demo corpora into <data root>/demo; finished corpora are kept.

    Args:
        seed: Seed of the videos; the same seed gives the same videos.
    """
    from hstlib.data.demo import APPEARANCE, make_demo

    for name in APPEARANCE:
        say(make_demo(name, seed=seed))


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
    say(f"{root}: {len(data.samples)} videos, {len(data.missing)} of them missing")


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
    say(f"{store.folder}: {len(data.samples) - len(store.problems)} videos")
    say(*list_problems(store, len(store.problems)))


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

    from hstlib.data.verify import describe_times, verify

    manifest = verify(dataset, setting_of_path(data_dir), workers)
    for problem in manifest.problems:
        say(problem)
    kinds = Counter(problem.kind for problem in manifest.problems)
    usable = sum(file.fault is None for file in manifest.files.values())
    say(f"{manifest.dataset}: {usable} of {len(manifest.files)} videos can be used")
    say(describe_times(manifest))
    say(f"sha256 of names and contents: {manifest.sha256}")
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
    say(*leakage_table(data).to_string().split("\n"))
    say(*leakage_summary(data))


def shortcuts(
    dataset: Positional[DatasetName],
    data_dir: str = "",
    split: int = 1,
    protocol: Protocol = "official",
    clips_per_video: int = 4,
    json: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Measure what a nearest neighbour reaches on the test set without a network.

    The best of it is kept, and stands beside the results of models at the same split.

    Args:
        dataset: Data set; `folder` reads videos of your own from --data-dir.
        data_dir: Folder of the data set; by default its place under the data root.
        split: Split 1-3.
        protocol: How training and test set are split.
        clips_per_video: Clips of each video, for random-by-clip.
        json: File to write the results to.
        picture: File to draw the results to, such as shortcuts.png.
    """
    from hstlib.book.plots import shortcut_figure
    from hstlib.data.reports import report_lines, report_title, shortcut_report

    root = setting_of_path(data_dir)
    if picture and picture.suffix not in (".pdf", ".png", ".svg"):
        raise ValueError(f"{picture}: suffix {picture.suffix!r} is none of .pdf, .png, .svg")
    report = shortcut_report(dataset, root, split, protocol, clips_per_video, json)
    say(*report_lines(report))
    if picture:
        shortcut_figure(report["top1"], report_title(report)).savefig(picture.expanduser())


def store(action: Positional[Literal["ls", "check", "gc"]]) -> None:
    """List the clip stores, check every stored clip, or remove what no store needs.

    Args:
        action: `ls` lists the stores and their sizes; `check` reads all clips and names those that
            changed on the disk; `gc` removes clips that no store needs, what killed processes left
            and stores of earlier formats. To remove a store, delete its folder, then run `gc`.
    """
    from hstlib.data.cache import check_stores, list_stores, remove_unused, store_root

    parent = store_root()
    if action == "ls":
        say(*list_stores(parent))
    elif action == "check":
        damaged = list(check_stores(parent))
        say(*damaged)
        if damaged:
            raise SystemExit(f"{len(damaged)} damaged")
    else:
        count, num_bytes = remove_unused(parent)
        say(f"{count} files removed, {num_bytes / 1e9:.2f} GB")
