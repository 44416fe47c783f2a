"""The list of J-HMDB: its files and their places in HMDB51's official splits."""

import csv
import logging
import re
from pathlib import Path

from hstlib.data.datasets import load_dataset
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
    tags = _official_tags(hmdb51)
    rows = []
    for file in sorted(videos.glob("*/[!.]*.avi")):
        class_name, key = file.parent.name, _key(file.name)
        title = file.name.rpartition(f"_{class_name}_")[0]
        rows.append(
            (f"{class_name}/{file.name}", class_name, title, *tags.get(key, [NOT_LISTED] * 3))
        )
    listed = sum(_key(Path(row[0]).name) in tags for row in rows)
    if not listed:
        raise ValueError(
            f"{videos}: HMDB51's lists in {hmdb51} name none of its {len(rows)} files; it should "
            "hold J-HMDB's folders, one per class"
        )
    with complete(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    log.info("%s: %d of %d files are in HMDB51's official lists", path, listed, len(rows))


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
