"""List files: one CSV defines a data set of any videos.

Columns, in any order, other columns are ignored::

    file     path of the video, relative to the folder of the list
    class    name of its class
    group    source that it was cut from, never divided between training and test; or ``source``
    subset   train, test, validation or unused; or split1, split2 and split3, with the same words
             or the numbers of HMDB51: 1 train, 2 test, 0 unused, -1 left out

Without a column of subsets, every third source is tested, as for a folder of class folders. Without
a column of groups, file names of HMDB51, UCF101 and Kinetics give the sources. Other usual names of
the first three columns are understood, such as ``clip_path``, ``label`` and ``tag``.
"""

import csv
import io
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hstlib.data.naming import NUM_FOLDS, choose_fold, known_source
from hstlib.data.samples import Sample, VideoSet
from hstlib.files import complete

GUESS = "guess-"
"""Start of the names of guessed sources."""
ROLES = ("train", "test", "validation", "unused")
ROLE_OF_NUMBER = {"1": "train", "2": "test", "0": "unused", "-1": None}
ALIASES = {
    "file": ("clip_path", "video_path", "file_path", "path", "file_name", "filename", "video_name",
             "clip_name", "video"),
    "class": ("label", "tag", "class_name", "category", "action"),
    "group": ("source",),
}  # fmt: skip
"""Other names of the columns; the first that a list has is used."""
log = logging.getLogger("hstlib")
SPLIT_COLUMNS = tuple(f"split{split}" for split in range(1, NUM_FOLDS + 1))


@dataclass(frozen=True)
class ListedVideo:
    """One row of a list.

    Attributes:
        path: Video file; it may be missing.
        class_name: Name of its class.
        source: Source that it was cut from; None if unknown.
        roles: Role in each split, one of :data:`ROLES`, or None where it is left out. A list with
            one split has one. Empty: the split is computed.
    """

    path: Path
    class_name: str
    source: str | None = None
    roles: tuple[str | None, ...] = ()


def read_text(file: Path) -> str:
    """Read a text file in UTF-8 or, if it starts with a byte order mark, in UTF-16.

    Raises:
        ValueError: If it is in another encoding; the message names the line.
    """
    content = file.read_bytes()
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise ValueError(
            f"{file}:{line}: not a text file in UTF-8 or UTF-16 (byte {content[error.start]:#04x})"
            "; save it as UTF-8, or fetch it again"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{file}:{line}: not a text file in UTF-8 (a zero byte); save it as UTF-8")
    return text


def read_list(file: Path) -> list[ListedVideo]:
    """Read the rows of a list.

    Raises:
        ValueError: If a column is missing, or a row is damaged; the message names file and line.
    """
    rows = _rows(file)
    _, header = next(rows, ("", {}))
    splits = ["subset"] if "subset" in header else [n for n in SPLIT_COLUMNS if n in header]
    videos, lines = [], {}
    for place, row in rows:
        for name in ("file", "class"):
            if not row[name]:
                raise ValueError(
                    f"{place}: the column {name!r} is empty; fill it, or delete the row"
                )
        path = _path(file.parent, row["file"])
        if path in lines:
            raise ValueError(f"{place}: {row['file']!r} is also in {lines[path]}; delete one row")
        lines[path] = place
        roles = tuple(_role(row[name], f"{place}: {name}") for name in splits)
        source = row["group"] if "group" in header else known_source(path.name)
        videos.append(ListedVideo(path, row["class"], source or None, roles))
    if not videos:
        raise ValueError(f"{file}: no videos; every row after the first line names one")
    check_class_names((video.class_name for video in videos), file)
    return videos


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the column names, then every row that is not blank, each after its place."""
    text = read_text(file)
    first = next(iter(text.splitlines()), "")
    # newline: a quoted name may have a line break in it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    names = _column_names(file, [name.strip().lower() for name in next(reader, [])])
    if missing := {"file", "class"} - set(names):
        raise ValueError(
            f"{file}:1: no column {' and no column '.join(sorted(missing))} in {first[:100]!r}; a "
            "list starts with a line such as file,class,group,subset"
        )
    yield f"{file}:1", dict.fromkeys(names, "")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{file}:{reader.line_num}"
        if len(cells) != len(names):
            raise ValueError(f"{place}: {len(cells)} cells, but the first line has {len(names)}")
        yield place, dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _column_names(file: Path, names: list[str]) -> list[str]:
    """Return the column names of a list with those that are understood under their usual names."""
    usual = {}
    for column, aliases in ALIASES.items():
        alias = next((alias for alias in aliases if alias in names), None)
        if column not in names and alias:
            usual[alias] = column
    understood = [f"{alias} as {column}" for alias, column in usual.items() if alias != "source"]
    if understood:
        log.info("%s: reads the column %s", file, ", ".join(understood))
    return [usual.get(name, name) for name in names]


def _path(folder: Path, name: str) -> Path:
    path = Path(os.path.normpath(folder / name))
    if name.startswith("/") and not path.exists():  # some lists start every path at their folder
        path = Path(os.path.normpath(folder / name.lstrip("/")))
    if "\\" in name and not path.exists():  # written on Windows
        path = Path(os.path.normpath(folder / name.replace("\\", "/")))
    return path


def _role(word: str, place: str) -> str | None:
    role = ROLE_OF_NUMBER.get(word, word.lower())
    if role is not None and role not in ROLES:
        raise ValueError(
            f"{place} is {word!r}; use {', '.join(ROLES)}, or 1 (train), 2 (test), 0 (unused) or "
            "-1 (left out)"
        )
    return role


def check_class_names(names: Iterable[str], place: Path) -> None:
    """Refuse classes whose names differ in capitals only, which are one class by mistake.

    Args:
        names: Names of the classes.
        place: List or folder that has them, for the error message.

    Raises:
        ValueError: If there are any; the message names them.
    """
    twins = defaultdict(set)
    for name in names:
        twins[name.casefold()].add(name)
    for same in twins.values():
        if len(same) > 1:
            raise ValueError(
                f"{place}: the classes {' and '.join(map(repr, sorted(same)))} differ only in "
                "capitals; give them one name, or two that differ in letters"
            )


def write_list(file: Path, videos: Sequence[ListedVideo]) -> None:
    """Write a list; the files are named relative to its folder.

    A split that is computed is written as it is computed now, in all three folds.

    Raises:
        ValueError: If a file name is not valid UTF-8.
    """
    roles = roles_of(videos)
    columns = SPLIT_COLUMNS[: len(roles[0])] if len(roles[0]) > 1 else ("subset",)
    numbers = {role: number for number, role in ROLE_OF_NUMBER.items()}
    with complete(file) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "class", "group", *columns])
        for video, row in zip(videos, roles, strict=True):
            name = Path(os.path.relpath(video.path, file.parent)).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{ascii(name)}: the name is not valid UTF-8; rename it"
                ) from error
            words = [numbers[None] if role is None else role for role in row]
            writer.writerow([name, video.class_name, video.source or "", *words])


def roles_of(videos: Sequence[ListedVideo]) -> list[tuple[str | None, ...]]:
    """Return the role of every video in every split, given or computed."""
    if videos[0].roles:
        return [video.roles for video in videos]
    return list(zip(*(fold_roles(videos, n + 1) for n in range(NUM_FOLDS)), strict=True))


def fold_roles(videos: Sequence[ListedVideo], split: int) -> list[str]:
    """Return the computed role of every video in one of three folds."""
    tested = choose_fold(
        [str(video.path) for video in videos],
        [video.class_name for video in videos],
        [video.source for video in videos],
        split,
    )
    return ["test" if is_tested else "train" for is_tested in tested]


def count_splits(videos: Sequence[ListedVideo]) -> int:
    """Return the number of splits of a list: the given ones, or the computed folds."""
    return len(videos[0].roles) or NUM_FOLDS


def video_set(
    name: str, folder: Path, videos: Sequence[ListedVideo], split: int, place: Path
) -> VideoSet:
    """Give every listed video its label and its role in a split; :func:`check_split` checks it.

    Args:
        name: Name of the data set.
        folder: Folder of the videos.
        videos: Rows of a list.
        split: Split 1-3.
        place: File or folder that the rows come from, for error messages.

    Raises:
        ValueError: If the list has no such split.
    """
    if split > count_splits(videos):
        raise ValueError(
            f"{place}: split is {split}, but the list has {count_splits(videos)}; use 1"
            f"{'' if count_splits(videos) == 1 else ' or 2'}"
        )
    classes = tuple(sorted({video.class_name for video in videos}))
    labels = {class_name: label for label, class_name in enumerate(classes)}
    given = bool(videos[0].roles)
    roles = [v.roles[split - 1] for v in videos] if given else fold_roles(videos, split)
    parts: dict[str | None, list[Sample]] = {role: [] for role in (*ROLES, None)}
    for video, role in zip(videos, roles, strict=True):
        group = video.source or f"{video.class_name}/{video.path.name}"
        parts[role].append(Sample(video.path, labels[video.class_name], group))
    train, test, validation, unused = (tuple(parts[role]) for role in ROLES)
    used = [v for v, role in zip(videos, roles, strict=True) if role is not None]
    known = all(video.source and not video.source.startswith(GUESS) for video in used)
    if not test:
        test, validation = validation, ()  # a data set of train and validation alone
    return VideoSet(name, classes, train, test, unused, folder, validation, known)


def check_split(data: VideoSet, split: int, place: Path) -> None:
    """Refuse a split without training or test videos, or with a tested class that is not trained.

    Raises:
        ValueError: If the split cannot be used; the message names the remedy.
    """
    remedy = (
        "give the class videos of another source, or choose the split in a list (`python -m hstlib "
        f"adopt {place.parent if place.is_file() else place}` writes one to edit)"
    )
    if not data.train or not data.test:
        raise ValueError(
            f"{place}: {len(data.train)} training and {len(data.test)} test videos in split "
            f"{split}; three sources or more are needed: {remedy}"
        )
    trained = {sample.label for sample in data.train}
    if untrained := sorted({sample.label for sample in data.test} - trained):
        raise ValueError(
            f"{place}: split {split} tests {[data.classes[label] for label in untrained]}, but has "
            f"no training video of them; {remedy}"
        )
