"""Check a data set file by file: which files exist, decode and belong to it.

The findings are stored in a manifest, one JSON file, so that verifying again,
also after an interruption, reads only files that are new or have changed.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hstlib.data.cache import cache_root
from hstlib.data.container import MOMENTARY, FaultKind, printable
from hstlib.data.datasets import HMDB51_TAGS, VideoSet, hmdb51_tags, load_splits
from hstlib.data.inspection import Inspection, inspect_files, size_and_mtime
from hstlib.data.layouts import is_left_behind
from hstlib.data.official import OFFICIAL_LISTS
from hstlib.data.progress import progress
from hstlib.data.video import decoder_version
from hstlib.files import complete, lock, remove_leftovers

SECONDS_PER_SAVE = 30
"""Time between saves of the manifest: the most work that an interruption can lose."""
VERSION = 4
"""Format version of an inspection; increment it when the same file would give another one."""


class Problem(BaseModel):
    """One thing that is wrong with a data set.

    Attributes:
        kind: Kind of problem. An ``unread`` file may be sound: it could not be read this time.
        name: File or folder, relative to the folder of the videos.
        reason: What is wrong with it.
        fault: Kind of fault of a file that is missing, unusable or unread.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["missing", "unusable", "unread", "mislabelled", "stray"]
    name: str
    reason: str
    fault: FaultKind | None = None

    def __str__(self) -> str:
        kind = self.kind if self.fault in (None, "missing") else f"{self.kind} ({self.fault})"
        return f"{kind}: {self.name}: {self.reason}"


class ManifestFile(Inspection):
    """One listed file: its description in the split lists, and its inspection.

    Attributes:
        class_name: Name of the class; ``class`` in JSON.
        group: Source that the video was cut from.
        tags: HMDB51 tags of the file name, by kind.
        roles: Role in each split: ``train``, ``test``, ``validation`` or ``unused``.
    """

    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class")
    group: str
    tags: dict[str, str]
    roles: list[str]

    def with_inspection(self, inspection: Inspection) -> "ManifestFile":
        """Return the same description with the fields of an inspection."""
        names = Inspection.model_fields
        return self.model_copy(update={name: getattr(inspection, name) for name in names})


class Manifest(BaseModel):
    """Files and problems of a data set.

    Attributes:
        dataset: Name of the data set.
        decoder: Version of the inspection and of the decoder.
        sha256: Hash of :func:`content_sha256`; None if not all files have been inspected yet.
        problems: What is wrong.
        files: All listed files, by name relative to the folder of the videos.
    """

    dataset: str
    decoder: str
    sha256: str | None
    problems: list[Problem]
    files: dict[str, ManifestFile]


def manifest_path(data: VideoSet) -> Path:
    """Return the path of a data set's manifest, under the root of what is written."""
    return cache_root() / "manifests" / f"{data.name}.json"


def verify(name: str, data_dir: str | Path = "", workers: int | None = None) -> Manifest:
    """Inspect every file of a data set that is new or has changed, and write the manifest.

    Args:
        name: Name of the data set, as for :func:`hstlib.data.datasets.load_dataset`.
        data_dir: Folder of the data set; empty: its place under the data root.
        workers: Number of processes; None: one per core.

    Raises:
        ValueError: If the split lists or the manifest are missing or damaged.
    """
    splits = load_splits(name, data_dir)
    data, path = splits[0], manifest_path(splits[0])
    with lock(path):
        remove_leftovers(path)
        files = _describe(splits)
        _add_known(files, data, path)
        _inspect_rest(files, data, path, workers)
        strays = [] if data.from_list else _strays(data, at_top=name != "folder")
        problems = [*_file_problems(files, data), *strays]
        manifest = _manifest(data, files, content_sha256(files), problems)
        _save(manifest, path)
    return manifest


def content_sha256(files: dict[str, ManifestFile]) -> str:
    """Return one hash of the names and contents of all files that can be read.

    It is the hash of what ``sha256sum`` prints for them in the order of their names.
    """
    lines = [f"{file.sha256}  {name}\n" for name, file in sorted(files.items()) if file.sha256]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe_times(manifest: Manifest) -> str:
    """Describe in one line where the times of all frames come from, and how uneven they are."""
    timed = {name: file for name, file in manifest.files.items() if file.timing}
    by_index = sum(file.timing == "index" for file in timed.values())
    line = (
        f"times of frames: {len(timed) - by_index} videos by timestamps, {by_index} by index / rate"
    )
    varying = [name for name, file in timed.items() if file.variable]
    if varying:
        longest = max(varying, key=lambda name: timed[name].largest_gap)
        gap = timed[longest].largest_gap
        line += f"; {len(varying)} have a variable rate, with gaps of up to {gap:g} s ({longest})"
    return line


def verified_sha256(data: VideoSet) -> str | None:
    """Return the hash of a data set from its manifest.

    Returns:
        None if the data set was not verified completely, or a file was added, removed or changed
        since.
    """
    manifest, paths = _load(manifest_path(data)), _paths(data)
    if manifest is None or paths.keys() != manifest.files.keys():
        return None
    unchanged = all(_is_unchanged(paths[name], file) for name, file in manifest.files.items())
    return manifest.sha256 if unchanged else None


def _is_unchanged(path: Path, inspection: Inspection) -> bool:
    return size_and_mtime(path) == (inspection.bytes, inspection.mtime_ns)


def _name(path: Path, data: VideoSet) -> str:
    return printable(path.relative_to(data.folder).as_posix())


def _paths(data: VideoSet) -> dict[str, Path]:
    return {_name(path, data): path for path in data.paths}


def _describe(splits: Sequence[VideoSet]) -> dict[str, ManifestFile]:
    """Describe every file by the split lists and its name."""
    files: dict[str, ManifestFile] = {}
    for data in splits:
        parts = {"train": data.train, "test": data.test, "validation": data.validation}
        for role, samples in {**parts, "unused": data.unused}.items():
            for sample in samples:
                new = ManifestFile(
                    class_name=printable(data.classes[sample.label]),
                    group=printable(sample.group),
                    tags=hmdb51_tags(sample.path.name),
                    roles=[],
                )
                files.setdefault(_name(sample.path, data), new).roles.append(role)
    return dict(sorted(files.items()))


def _decoder() -> str:
    return f"{VERSION}, {decoder_version()}"


def _manifest(
    data: VideoSet,
    files: dict[str, ManifestFile],
    sha256: str | None = None,
    problems: Sequence[Problem] = (),
) -> Manifest:
    return Manifest(
        dataset=printable(data.name),
        decoder=_decoder(),
        sha256=sha256,
        problems=problems,
        files=files,
    )


def _load(path: Path) -> Manifest | None:
    """Return the manifest in a file; None without a file."""
    try:
        return Manifest.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{path}: not a manifest ({reason}); delete it") from error


def _save(manifest: Manifest, path: Path) -> None:
    with complete(path) as unfinished:
        unfinished.write_bytes(manifest.model_dump_json(indent=1, by_alias=True).encode())


def _add_known(files: dict[str, ManifestFile], data: VideoSet, path: Path) -> None:
    """Add the inspections of an earlier manifest for the files that have not changed."""
    earlier = _load(path)
    if earlier is None or earlier.decoder != _decoder():
        return
    for name, file in _paths(data).items():
        known = earlier.files.get(name)
        if known is None or known.kind in MOMENTARY:
            continue
        if known.sha256 and _is_unchanged(file, known):
            files[name] = files[name].with_inspection(known)


def _inspect_rest(
    files: dict[str, ManifestFile], data: VideoSet, path: Path, workers: int | None
) -> None:
    """Inspect the files without an inspection, and save the manifest from time to time."""
    names = {
        file: name
        for name, file in _paths(data).items()
        if not files[name].sha256 or files[name].kind in MOMENTARY
    }
    saved = time.monotonic()
    with progress("verify", len(files), "file", len(files) - len(names)) as count:
        for file, inspection in inspect_files(list(names), workers):
            files[names[file]] = files[names[file]].with_inspection(inspection)
            count()
            if time.monotonic() - saved >= SECONDS_PER_SAVE:
                _save(_manifest(data, files), path)
                saved = time.monotonic()


def _file_problems(files: dict[str, ManifestFile], data: VideoSet) -> Iterator[Problem]:
    classes = {name.lower(): name for name in data.classes}
    for sample in data.samples:
        name = _name(sample.path, data)
        if reason := files[name].fault:
            fault = files[name].kind
            kind = "missing" if fault == "missing" else "unusable"
            kind = "unread" if fault in MOMENTARY else kind
            yield Problem(kind=kind, name=name, reason=reason, fault=fault)
        if reason := _wrong_class(sample.path, data.classes[sample.label], classes):
            yield Problem(kind="mislabelled", name=name, reason=printable(reason))


def _wrong_class(path: Path, listed: str, classes: dict[str, str]) -> str | None:
    """Compare the listed class with those of the folder and the file name, if they name one."""
    by_folder = classes.get(path.parent.name.lower(), listed)
    by_name = _class_in_name(path.name, classes) or listed
    for place, class_name in (("folder", by_folder), ("name", by_name)):
        if class_name != listed:
            return f"its {place} says {class_name}, but it is listed as {listed}; move or rename it"
    return None


def _class_in_name(file_name: str, classes: dict[str, str]) -> str | None:
    """Return the class in a file name of HMDB51 or UCF101; None without one."""
    ucf101 = re.match(r"v_(.+)_g\d+_c\d+\.", file_name, re.IGNORECASE)
    words = (ucf101[1] if ucf101 else HMDB51_TAGS.split(file_name)[0]).lower().split("_")
    endings = ("_".join(words[i:]) for i in range(len(words)))  # the longest first
    return next((classes[ending] for ending in endings if ending in classes), None)


def _strays(data: VideoSet, at_top: bool) -> Iterator[Problem]:
    """Find files and folders among the videos that are not in the lists.

    What operating systems leave behind is no problem.

    Args:
        data: The data set.
        at_top: Whether files next to the class folders count.
    """
    listed = {*data.paths, *(data.folder / lists for lists in OFFICIAL_LISTS.values())}
    parents = {parent for path in listed for parent in path.parents}
    for place, folders, files in os.walk(data.folder, followlinks=True):
        parent = Path(place)
        folders[:] = [name for name in folders if not is_left_behind(name)]
        files = [name for name in files if not is_left_behind(name)]
        for folder in sorted({parent / name for name in folders} - parents - listed):
            count = sum(len(inner) for _, _, inner in os.walk(folder))
            reason = f"a folder with {count} files, none of them in the lists; move it away"
            yield Problem(kind="stray", name=_name(folder, data), reason=reason)
        folders[:] = sorted(name for name in folders if parent / name in parents)
        if at_top or parent != data.folder:
            for file in sorted({parent / name for name in files} - listed):
                reason = "not part of the data set; move it away"
                yield Problem(kind="stray", name=_name(file, data), reason=reason)
