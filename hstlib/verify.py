"""Check a data set file by file: what is there, what decodes, and what does not belong.

What was found is kept in a manifest, one JSON file under the data root, so that a second look, or
one after a kill, reads only the files that are new or have changed.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from hstlib.config import data_root
from hstlib.datasets import HMDB51_TAGS, VideoSet, hmdb51_tags, load_dataset
from hstlib.files import complete, lock, remove_leftovers
from hstlib.inspection import inspect_files, stamp
from hstlib.video import NO_FILE, printable

SECONDS_PER_SAVE = 30
"""At most so much work is lost by a kill."""
VERSION = 1
"""Of what is noted about a file; to be raised when that changes."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        kind: ``missing``, ``unusable``, ``mislabelled`` or ``stray``.
        name: The file or folder, relative to the folder of the videos.
        reason: What is wrong with it.
    """

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: {self.reason}"


@dataclass(frozen=True)
class Manifest:
    """What a data set consists of.

    Attributes:
        dataset: Name of the data set.
        decoder: What the files were decoded with.
        sha256: See :func:`content_sha256`; none as long as not all files have been looked at.
        problems: What is wrong.
        files: By name relative to the folder of the videos, every listed file: its class, group,
            HMDB51 tags, role in splits 1-3, and what :func:`hstlib.inspection.inspect_file` found.
    """

    dataset: str
    decoder: str
    sha256: str | None
    problems: list[Problem]
    files: dict[str, dict]


def manifest_path(data: VideoSet) -> Path:
    """Return where the manifest of a data set lies: under the data root, by the set's name."""
    return data_root() / "manifests" / f"{data.name}.json"


def verify(name: str, data_dir: str | Path = "", workers: int | None = None) -> Manifest:
    """Look at every file of a data set that is new or has changed, and write the manifest.

    Args:
        name: See :func:`hstlib.datasets.load_dataset`.
        data_dir: Where it lies; empty: its place under the data root.
        workers: Processes; none: one per core.

    Raises:
        ValueError: If the lists are not there or are damaged.
    """
    splits = [load_dataset(name, data_dir, split) for split in (1, 2, 3)]
    data, path = splits[0], manifest_path(splits[0])
    with lock(path):
        remove_leftovers(path)
        files = _described(splits)
        _add_known(files, data, path)
        _inspect_rest(files, data, path, workers or os.cpu_count() or 1)
        problems = [*_file_problems(files, data), *_strays(data, at_top=name != "folder")]
        manifest = Manifest(data.name, _decoder(), content_sha256(files), problems, files)
        _save(manifest, path)
    return manifest


def content_sha256(files: dict[str, dict]) -> str:
    """Return one hash of the names and contents of all files that can be read.

    It is the hash of what ``sha256sum`` prints for them in the order of their names.
    """
    lines = [f"{e['sha256']}  {name}\n" for name, e in sorted(files.items()) if "sha256" in e]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verified_sha256(data: VideoSet) -> str | None:
    """Return the hash of a data set from its manifest.

    Returns:
        None if it was not verified to the end, or a file was added, removed or changed since.
    """
    content, paths = _load(manifest_path(data)), _paths(data)
    files = content.get("files", {})
    current = paths.keys() == files.keys() and all(
        stamp(paths[name]) == (entry.get("bytes"), entry.get("mtime_ns"))
        for name, entry in files.items()
    )
    return content["sha256"] if current else None


def _name(path: Path, data: VideoSet) -> str:
    return printable(path.relative_to(data.folder).as_posix())


def _paths(data: VideoSet) -> dict[str, Path]:
    return {_name(path, data): path for path in data.paths}


def _described(splits: Sequence[VideoSet]) -> dict[str, dict]:
    """Return what the lists and names say of every file."""
    files: dict[str, dict] = {}
    for data in splits:
        parts = {"train": data.train, "test": data.test, "unused": data.unused}
        for role, samples in parts.items():
            for sample in samples:
                entry = files.setdefault(
                    _name(sample.path, data),
                    {
                        "class": printable(data.classes[sample.label]),
                        "group": printable(sample.group),
                        "tags": hmdb51_tags(sample.path.name),
                        "roles": [],
                    },
                )
                entry["roles"].append(role)
    return dict(sorted(files.items()))


def _decoder() -> str:
    return f"{VERSION}, OpenCV {cv2.__version__}, FFMPEG"


def _load(path: Path) -> dict:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path}: not a manifest ({error}); delete it") from error


def _add_known(files: dict[str, dict], data: VideoSet, path: Path) -> None:
    """Add what an earlier manifest says of the files that have not changed."""
    old = _load(path)
    if old.get("decoder") != _decoder():
        return
    for name, file in _paths(data).items():
        known = old["files"].get(name, {})
        if "sha256" in known and stamp(file) == (known["bytes"], known["mtime_ns"]):
            files[name] = known | files[name]


def _inspect_rest(files: dict[str, dict], data: VideoSet, path: Path, workers: int) -> None:
    paths = {file: name for name, file in _paths(data).items() if "sha256" not in files[name]}
    saved = time.monotonic()
    with tqdm(total=len(files), desc="verify", unit="file", disable=None) as bar:
        bar.update(len(files) - len(paths))
        for file, facts in inspect_files(list(paths), workers):
            files[paths[file]] |= facts
            bar.update()
            if time.monotonic() - saved >= SECONDS_PER_SAVE:
                _save(Manifest(data.name, _decoder(), None, [], files), path)
                saved = time.monotonic()


def _save(manifest: Manifest, path: Path) -> None:
    content = vars(manifest) | {"problems": [vars(problem) for problem in manifest.problems]}
    with complete(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1))


def _file_problems(files: dict[str, dict], data: VideoSet) -> Iterator[Problem]:
    classes = {name.lower(): name for name in data.classes}
    for sample in data.samples:
        name = _name(sample.path, data)
        if fault := files[name]["fault"]:
            yield Problem("missing" if fault == NO_FILE else "unusable", name, fault)
        if reason := _wrong_class(sample.path, data.classes[sample.label], classes):
            yield Problem("mislabelled", name, reason)


def _wrong_class(path: Path, listed: str, classes: dict[str, str]) -> str | None:
    """Compare the class with the one that the folder and the file's name say, if they say one."""
    by_folder = classes.get(path.parent.name.lower(), listed)
    by_name = _class_in_name(path.name, classes) or listed
    for place, said in (("folder", by_folder), ("name", by_name)):
        if said != listed:
            return f"its {place} says {said}, but it is listed as {listed}; move or rename it"
    return None


def _class_in_name(file_name: str, classes: dict[str, str]) -> str | None:
    """Return the class in a file name as HMDB51 or UCF101 has them, if there is one."""
    ucf101 = re.match(r"v_(.+)_g\d+_c\d+\.", file_name, re.IGNORECASE)
    words = (ucf101[1] if ucf101 else HMDB51_TAGS.split(file_name)[0]).lower().split("_")
    ends = ("_".join(words[i:]) for i in range(len(words)))  # the longest first
    return next((classes[end] for end in ends if end in classes), None)


def _strays(data: VideoSet, at_top: bool) -> Iterator[Problem]:
    """Find what lies among the videos and belongs to no class.

    Args:
        data: The data set.
        at_top: Whether files beside the class folders count.
    """
    listed = set(data.paths)
    parents = {parent for path in listed for parent in path.parents}
    for place, folders, files in os.walk(data.folder, followlinks=True):
        here = Path(place)
        for folder in sorted({here / f for f in folders} - parents - listed):
            count = sum(len(inner) for _, _, inner in os.walk(folder))
            reason = f"a folder with {count} files of no video in the lists; move it away"
            yield Problem("stray", _name(folder, data), reason)
        folders[:] = sorted(f for f in folders if here / f in parents)
        if at_top or here != data.folder:
            for file in sorted({here / f for f in files} - listed):
                yield Problem("stray", _name(file, data), "not part of the data set; move it away")
