"""Download HMDB51 and UCF101: several mirrors, resumed downloads, verified hashes."""

import hashlib
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from hstlib.config import data_root
from hstlib.data.unpack import archive_kind, check_rar_program, unpack, wanted_files
from hstlib.files import check_disk_space, lock, remove, remove_leftovers

log = logging.getLogger("hstlib")

CHUNK = 1 << 20
"""Bytes per write to disk."""
TIMEOUT = (20, 60)
"""Time-outs for a connection and for the next bytes, in seconds."""
TRIES = 4
"""Give up after this many consecutive attempts without progress."""
PAUSE = 2.0
"""Pause after the first attempt without progress, in seconds; each later pause is longer by it."""
DROPPED = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""Errors of a connection that breaks during a download."""


@dataclass(frozen=True)
class Mirror:
    """One address of an archive.

    Attributes:
        url: Address; ends in the archive's file name.
        size: Size in bytes; approximate for the RAR archives of HMDB51.
        hash: ``sha256:...`` or ``md5:...``; None if no hash is known.
    """

    url: str
    size: int
    hash: str | None


@dataclass(frozen=True)
class Source:
    """One folder of a data set, and the mirrors of its archive.

    Attributes:
        folders: Name of the folder, and other accepted names.
        pattern: Pattern of the file names in it.
        unpacked: Maximum size of the folder, in bytes.
        mirrors: Mirrors, in the order in which they are tried.
    """

    folders: tuple[str, ...]
    pattern: str
    unpacked: int
    mirrors: tuple[Mirror, ...]


_HUB = "https://huggingface.co/datasets/"
_HMDB51 = _HUB + "MichiganNLP/hmdb/resolve/16eb4625d3bf20255526e1327ee9e2ea32d66c82/"
_UCF101 = _HUB + "quchenyuan/UCF101-ZIP/resolve/04d4e5ca1dc93606cb58752b0c08331e598743a4/"
_SERRE_LAB = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"
_CRCV = "https://www.crcv.ucf.edu/"
_UCF101_LISTS = "UCF101TrainTestSplits-RecognitionTask.zip"
_UCF101_LISTS_HASH = "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27"

SOURCES: dict[str, tuple[Source, Source]] = {
    "hmdb51": (
        Source(("testTrainMulti_7030_splits",), "*_test_split[123].txt", 5_000_000, (
            Mirror(_HMDB51 + "test_train_splits.zip", 222_848,
                   "sha256:12df0053bd9d570817edb10d2299030f43646969d5d42ff40200249b45ab2efa"),
            Mirror(_SERRE_LAB + "test_train_splits.rar", 200_000,
                   "md5:15e67781e70dcfbdce2d7dbb9b3344b5"),
        )),
        Source(("hmdb51_org",), "*.avi", 5_000_000_000, (
            Mirror(_HMDB51 + "hmdb51_org.zip", 4_246_812_958,
                   "sha256:2d652f386debd04ae8f83508faacb959c03c9cbf1176fc76848b73cda4d52e57"),
            Mirror(_SERRE_LAB + "hmdb51_org.rar", 2_100_000_000,
                   "md5:517d6f1f19f215c45cdd4d25356be1fb"),
        )),
    ),
    "ucf101": (
        Source(("ucfTrainTestlist",), "*.txt", 5_000_000, (
            Mirror(_UCF101 + _UCF101_LISTS, 113_943, _UCF101_LISTS_HASH),
            Mirror(_CRCV + "data/UCF101/" + _UCF101_LISTS, 113_943, _UCF101_LISTS_HASH),
            Mirror(_CRCV + "wp-content/uploads/2019/03/" + _UCF101_LISTS, 113_943,
                   _UCF101_LISTS_HASH),
        )),
        Source(("UCF-101", "UCF101"), "*.avi", 8_000_000_000, (
            Mirror("https://storage.googleapis.com/thumos14_files/UCF101_videos.zip", 6_960_400_115,
                   "sha256:dabf56f573cd19c79e096563529fec8126a2a34e18e10c72eb621dd687532b0d"),
            Mirror(_UCF101 + "UCF-101.zip", 6_957_373_664,
                   "sha256:eb77e54dfafd9c77e7b086f5e5ef7738cabd16a701b3f5c301a1f6c81fc4756e"),
            Mirror(_CRCV + "datasets/human-actions/ucf101/UCF101.rar", 6_932_971_618, None),
        )),
    ),
}  # fmt: skip
"""The split lists and the videos of each data set."""


def download_dataset(name: str, archive: Path | None = None) -> Path:
    """Download and unpack a data set, into its place under the data root.

    The split lists come first, then the videos. An existing folder is used as it is; an
    interrupted download is resumed.

    Args:
        name: ``hmdb51`` or ``ucf101``.
        archive: Zip or RAR archive of the videos to unpack instead of downloading one.

    Returns:
        Folder of the data set.

    Raises:
        ValueError: If no mirror works, or an archive is damaged, hostile or of an unknown kind.
        OSError: If the disk is too small.
    """
    if name not in SOURCES:
        raise ValueError(f"data set {name!r} cannot be downloaded; use one of {[*SOURCES]}")
    if archive and not archive.is_file():
        raise ValueError(f"--archive {archive} is not a file")
    root = data_root() / name
    with lock(root):
        root.mkdir(exist_ok=True)
        lists, videos = SOURCES[name]
        _provide(lists, root)
        _provide(videos, root, archive)
    return root


def _provide(source: Source, root: Path, archive: Path | None = None) -> None:
    """Download and unpack a folder, unless it exists."""
    if _exists(source, root):
        return
    target = root / source.folders[0]
    remove_leftovers(target)
    packed = archive or _fetch_any(source, root)
    check_disk_space(root, source.unpacked)
    unpack(packed, target, source.pattern, source.unpacked)
    for mirror in source.mirrors:
        remove(_part(mirror, root))
    if not archive:
        log.info("%s is no longer needed", packed)


def _exists(source: Source, root: Path) -> bool:
    """Return whether the folder of a source exists, under any of its names."""
    for folder in (root / name for name in source.folders):
        if os.path.lexists(folder):
            if not wanted_files(folder, source.pattern):
                raise ValueError(f"{folder} exists and holds no {source.pattern}; move it away")
            log.info("%s exists", folder)
            return True
    return False


def _fetch_any(source: Source, root: Path) -> Path:
    """Download an archive from the first mirror that works."""
    failures = []
    for mirror in source.mirrors:
        try:
            return _fetch(mirror, root, source.unpacked)
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{mirror.url}: {error}")
            log.warning("%s", failures[-1])
    raise ValueError(
        f"{root / source.folders[0]}: no mirror works; download it by other means and unpack it "
        f"there, or pass an archive of the videos as --archive. Tried {'; '.join(failures)}"
    )


def _part(mirror: Mirror, root: Path) -> Path:
    """Return the path of an unfinished download."""
    return root / f"{mirror.url.rpartition('/')[2]}.part"


def _fetch(mirror: Mirror, root: Path, unpacked: int) -> Path:
    """Download an archive and verify it, resuming a partial one; verify an existing one only."""
    part = _part(mirror, root)
    archive = part.with_suffix("")
    if archive.suffix == ".rar":
        check_rar_program()
    if mirror.hash is None:
        log.warning("%s: no hash is known for this archive, so it cannot be verified", mirror.url)
    if archive.is_file() and _hash_fault(archive, mirror.hash) is None:
        return archive
    missing = max(mirror.size - _size(part), 0)
    check_disk_space(root, missing + unpacked)
    log.info("downloading %s", mirror.url)
    _download(mirror, part)
    try:
        if fault := _hash_fault(part, mirror.hash):
            raise ValueError(fault)
        archive_kind(part)
    except ValueError:
        part.unlink()
        raise
    return part.replace(archive)


def _hash_fault(path: Path, known: str | None) -> str | None:
    """Return how the hash of a file differs from the known one; None if it is right or unknown."""
    if known is None:
        return None
    algorithm, _, expected = known.partition(":")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if actual == expected:
        return None
    return f"{algorithm.upper()} of {path.name} is {actual}, expected {expected}"


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 without a file."""
    return path.stat().st_size if path.exists() else 0


def _download(mirror: Mirror, part: Path) -> None:
    """Download the rest of a file, reconnecting for as long as each attempt makes progress."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _continue(mirror, part)
        except DROPPED as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == TRIES or failures and isinstance(error, requests.exceptions.SSLError):
                raise
            log.warning("%s: %s; resuming at byte %d", mirror.url, error, _size(part))
            time.sleep(PAUSE * failures)


def _continue(mirror: Mirror, part: Path) -> None:
    """Request the rest of a file once, and append it."""
    offset = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(mirror.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        start, total = _span(response)
        if response.status_code == requests.codes.range_not_satisfiable:
            if total == offset:
                return
            part.unlink()
            raise requests.ConnectionError(f"partial file of {offset:,} bytes, expected {total:,}")
        response.raise_for_status()
        _check_offer(response, total, mirror)
        bar = tqdm(
            desc=part.stem, initial=start, total=total or None,
            unit="B", unit_scale=True, disable=None,
        )  # fmt: skip
        with part.open("ab") as file, bar:
            file.truncate(start)
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
    if _size(part) < total:
        raise requests.ConnectionError(f"connection closed after {_size(part):,} of {total:,}")


def _span(response: requests.Response) -> tuple[int, int]:
    """Return the offset of a response in the file, and the size of the file; 0 if unknown."""
    content_range = response.headers.get("Content-Range", "")
    if span := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", content_range):
        return int(span[1] or 0), int(span[2])
    return 0, int(response.headers.get("Content-Length", 0))


def _check_offer(response: requests.Response, total: int, mirror: Mirror) -> None:
    """Refuse a web page in place of an archive, before it overwrites a partial download."""
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") or total and not mirror.size / 2 < total < mirror.size * 2:
        raise ValueError(
            f"the answer is {total:,} bytes of {kind or 'unknown type'}, "
            f"not an archive of about {mirror.size:,}"
        )
