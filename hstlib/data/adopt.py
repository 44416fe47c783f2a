"""Look at a folder of videos: what it is, in words and a table, and as a list to check and edit."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hstlib.config import LIST_NAME, project_path
from hstlib.data.datasets import VideoSet, load_splits
from hstlib.data.guess import describe_guess, guess_sources
from hstlib.data.layouts import Layout, read_folders
from hstlib.data.lists import (
    GUESS,
    SPLIT_COLUMNS,
    ListedVideo,
    check_split,
    roles_of,
    video_set,
    write_list,
)
from hstlib.data.naming import known_source
from hstlib.data.official import OFFICIAL_LISTS


def look_at(folder: Path, classes: Sequence[str] = ()) -> Layout:
    """Find out what a folder of videos is; a list ``videos.csv`` in it is not read.

    Args:
        folder: Folder with official split lists, class folders or a ready split.
        classes: Classes to use; empty: all.

    Raises:
        ValueError: If the folder holds no videos, or not the classes.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no folder; adopt takes the folder of the videos")
    layout = next(
        (
            _official_layout(name, folder)
            for name, lists in OFFICIAL_LISTS.items()
            if (folder / lists).exists()
        ),
        None,
    ) or _name_deeper_lists(read_folders(folder), folder)
    known = {video.class_name for video in layout.videos}
    if unknown := sorted(set(classes) - known):
        raise ValueError(f"{folder}: no class {unknown[0]!r}; it has {', '.join(sorted(known))}")
    chosen = set(classes) or known
    videos = tuple(video for video in layout.videos if video.class_name in chosen)
    return replace(layout, videos=videos)


def _name_deeper_lists(layout: Layout, folder: Path) -> Layout:
    """Say among what is ignored where official lists are, if they are not in the folder itself."""
    for name, lists in OFFICIAL_LISTS.items():
        for place in sorted([*folder.glob(f"*/{lists}/"), *folder.glob(f"*/*/{lists}/")]):
            reason = f"folder with the official lists of {name}: adopt {place.parent} to use them"
            layout.ignored[reason] += 1
    return layout


def _official_layout(name: str, folder: Path) -> Layout:
    """Read official lists, and use the listed videos that exist."""
    splits = load_splits(name, folder)
    roles: dict[Path, list[str | None]] = defaultdict(lambda: [None] * len(splits))
    samples = {}
    for index, data in enumerate(splits):
        for role in ("train", "test", "unused"):
            for sample in getattr(data, role):
                roles[sample.path][index] = role
                samples[sample.path] = sample
    missing = set(splits[0].missing)
    names = splits[0].classes
    videos = [
        ListedVideo(path, names[sample.label], sample.group, tuple(roles[path]))
        for path, sample in sorted(samples.items())
        if path not in missing
    ]
    if not videos:
        raise ValueError(
            f"{folder}: the lists {OFFICIAL_LISTS[name]} name {len(samples)} videos, but none of "
            "them is in the folder; put the videos anywhere below it"
        )
    kind = f"official lists of {name} ({OFFICIAL_LISTS[name]})"
    ignored = Counter({"listed videos that are missing": len(missing)} if missing else {})
    return Layout(kind, splits[0].folder, tuple(videos), ignored)


def describe(layout: Layout) -> str:
    """Describe a layout: its kind, its sources, its split, what is ignored, and its classes."""
    videos = layout.videos
    classes = {video.class_name for video in videos}
    ignored = [f"{count} {reason}" for reason, count in sorted(layout.ignored.items())]
    lines = {
        "layout": f"{layout.kind}, in {layout.folder}",
        "videos": f"{len(videos)} in {len(classes)} classes",
        "sources": _describe_sources(videos),
        "split": _describe_split(videos),
        "ignored": ", ".join(ignored) or "nothing",
    }
    if problems := _problems(layout):
        lines["problem"] = problems[0]
    text = [f"{name:9}{value}" for name, value in lines.items()]
    return "\n".join([*text, "", class_table(videos).to_string()])


def _describe_sources(videos: Sequence[ListedVideo]) -> str:
    unknown = [video for video in videos if video.source is None]
    if videos[0].source and len(videos[0].roles) > 1:
        return f"{len({video.source for video in videos})}, as the official lists keep them apart"
    if any(video.source and video.source.startswith(GUESS) for video in videos):
        return describe_guess(videos)
    if len(unknown) == len(videos):
        return (
            f"unknown: file names such as {unknown[0].path.name} do not give them. If several "
            "videos were cut from one recording, fill in the column group, or let --find-sources "
            "guess"
        )
    example = next(video for video in videos if video.source)
    by_name = known_source(example.path.name) is not None
    sure = "by a known naming scheme" if by_name else "a guess (the name up to the last underscore)"
    text = f"{len({v.source for v in videos} - {None})}, {sure}: {example.source!r} of "
    text += example.path.name
    return f"{text}; unknown for {len(unknown)} videos" if unknown else text


def _describe_split(videos: Sequence[ListedVideo]) -> str:
    if videos[0].roles:
        count = len(videos[0].roles)
        return "one, as it is" if count == 1 else f"{count}, as they are"
    if all(video.source for video in videos):
        return "3 computed folds: every third source is tested"
    if any(video.source for video in videos):
        return "3 computed folds: every third source, and every third video without a source"
    return "3 computed folds by video: every third video of a class is tested"


def _problems(layout: Layout) -> list[str]:
    """Return why splits of a layout cannot be used."""
    problems = []
    for split in range(1, len(roles_of(layout.videos)[0]) + 1):
        try:
            check_split(_split_of(layout, split), split, layout.folder)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _split_of(layout: Layout, split: int) -> VideoSet:
    return video_set(layout.folder.name, layout.folder, layout.videos, split, layout.folder)


def class_table(videos: Sequence[ListedVideo]) -> pd.DataFrame:
    """Count the videos, the sources and the parts of every split, by class.

    Args:
        videos: Rows of a list.

    Returns:
        One row per class. A split is counted as ``train/test``, or ``train/validation/test`` if it
        has validation videos.
    """
    roles = roles_of(videos)
    names = SPLIT_COLUMNS[: len(roles[0])] if len(roles[0]) > 1 else ["split"]
    has_validation = any("validation" in row for row in roles)
    parts = ["train", "validation", "test"] if has_validation else ["train", "test"]
    rows = {}
    for class_name in sorted({video.class_name for video in videos}):
        own = [i for i, video in enumerate(videos) if video.class_name == class_name]
        sources = {videos[i].source for i in own}
        rows[class_name] = {
            "videos": len(own),
            "sources": "unknown" if None in sources else len(sources),
        }
        for index, name in enumerate(names):
            counts = Counter(roles[i][index] for i in own)
            rows[class_name][name] = "/".join(str(counts[part]) for part in parts)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename(columns={name: f"{name} {'/'.join(parts)}" for name in names})


def adopt(
    folder: str | Path,
    out: str | Path | None = None,
    classes: Sequence[str] = (),
    *,
    find_sources: bool = False,
    force: bool = False,
) -> Path:
    """Print what a folder of videos is, and write its list.

    Args:
        folder: Folder of the videos.
        out: List to write; None: ``videos.csv`` in the folder.
        classes: Classes to use; empty: all.
        find_sources: Whether sources that are unknown are guessed by colours.
        force: Whether an existing list is replaced.

    Returns:
        The list.

    Raises:
        ValueError: If the folder holds no videos, or the list exists already.
    """
    folder = project_path(folder)
    file = project_path(out) if out else folder / LIST_NAME
    layout = look_at(folder, classes)
    if find_sources:
        layout = replace(layout, videos=tuple(guess_sources(layout.videos)))
    print(describe(layout))
    if file.exists() and not force:
        raise ValueError(f"{file} exists; use --force to replace it, or --out for another place")
    write_list(file, layout.videos)
    place = file.parent if file.name == LIST_NAME else file
    print(f"\n{file}: to train on it, use --dataset folder --data-dir {place}")
    return file
