"""The list of J-HMDB: its files and their places in HMDB51's official splits."""

import csv
import logging
import re
from pathlib import Path

from hstlib.data.datasets import load_dataset
from hstlib.data.lists import read_text
from hstlib.files import complete

log = logging.getLogger("hstlib")

COLUMNS = ("file", "class", "source", "split1", "split2", "split3")
NOT_LISTED = -1


def write_splits(path: Path, videos: Path, hmdb51: Path) -> None:
    """Write the list of J-HMDB's files with the tags of HMDB51's official splits, by file name.

    Columns: ``file`` (``<class>/<name>``), ``class``, ``source`` (title of the film), ``split1`` to
    ``split3`` (1 train, 2 test, 0 unused, -1 in no list).

    Args:
        path: CSV file to create.
        videos: Folder with J-HMDB's class folders.
        hmdb51: Folder of HMDB51; only its split lists are needed.

    Raises:
        ValueError: If the lists are missing or damaged, or name none of the files.
    """
    _write(path, videos, _official_tags(hmdb51), hmdb51)


def write_own_splits(path: Path, videos: Path, lists: Path) -> None:
    """Write the list of J-HMDB's files with the three splits that J-HMDB itself publishes.

    They are another protocol than HMDB51's: train on the list with ``--dataset folder --data-dir
    <list>``. Its sources are film and class, as in HMDB51.

    Args:
        path: CSV file to create, in ``videos``, with the columns of :func:`write_splits`.
        videos: Folder with J-HMDB's class folders.
        lists: Folder of J-HMDB's lists, ``<class>_test_split<n>.txt``: per line a file and 1
            (train) or 2 (test).

    Raises:
        ValueError: If the lists are missing or damaged, or name none of the files.
    """
    tags: dict[str, list[int]] = {}
    for file in sorted(lists.glob("[!.]*_test_split[123].txt")):
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            name, _, tag = line.strip().rpartition(" ")
            if line.strip() and (tag not in ("1", "2") or not name):
                raise ValueError(f"{file}:{number}: {line!r} is not '<file> <1 or 2>'")
            if name:
                splits = tags.setdefault(_key(name.strip()), [NOT_LISTED] * 3)
                splits[int(file.stem[-1]) - 1] = int(tag)
    _write(path, videos, tags, lists, "_{}")


def _write(
    path: Path, videos: Path, tags: dict[str, list[int]], lists: Path, suffix: str = ""
) -> None:
    """Write a list; a source is the title of the film and ``suffix``, with its class inserted."""
    rows = []
    for file in sorted(videos.glob("*/[!.]*.avi")):
        class_name, key = file.parent.name, _key(file.name)
        title = file.name.rpartition(f"_{class_name}_")[0]
        source = title + suffix.format(class_name)
        splits = tags.get(key, [NOT_LISTED] * 3)
        rows.append((f"{class_name}/{file.name}", class_name, source, *splits))
    listed = sum(_key(Path(row[0]).name) in tags for row in rows)
    if not listed:
        raise ValueError(
            f"{videos}: the lists in {lists} name none of its {len(rows)} files; it should hold "
            "J-HMDB's folders, one per class"
        )
    with complete(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    log.info("%s: %d of %d files are in the lists of %s", path, listed, len(rows), lists)


def _official_tags(hmdb51: Path) -> dict[str, list[int]]:
    """Read HMDB51's tags of each file in splits 1 to 3."""
    tags: dict[str, list[int]] = {}
    for index in range(3):
        data = load_dataset("hmdb51", hmdb51, index + 1)
        for tag, samples in enumerate((data.unused, data.train, data.test)):
            for sample in samples:
                tags.setdefault(_key(sample.path.name), [NOT_LISTED] * 3)[index] = tag
    return tags


def _key(file_name: str) -> str:
    """Return a file name as J-HMDB writes it: HMDB51's ``#`` and ``&`` are ``@`` there."""
    return re.sub("[#&]", "@", file_name).lower()
