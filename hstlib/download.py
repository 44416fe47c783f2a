"""Fetch HMDB51 and UCF101: mirrors in order, resumed downloads, checked hashes."""

import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from pooch.hashes import hash_matches
from tqdm import tqdm

from hstlib.config import data_root
from hstlib.files import lock, remove, remove_leftovers
from hstlib.unpack import archive_kind, rar_program, unpack, wanted_files

log = logging.getLogger("hstlib")

CHUNK = 1 << 20
"""Bytes that are written to disk at once."""
TIMEOUT = (20, 60)
"""Seconds to wait for a connection, and for the next bytes."""
TRIES = 4
"""Attempts in a row that may bring no new byte."""
PAUSE = 2.0
"""Seconds before the second of these attempts; each further pause is longer by as many."""
DROPPED = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""How a connection breaks in the middle."""


@dataclass(frozen=True)
class Mirror:
    """One place of an archive.

    Attributes:
        url: Ends in the archive's name.
        size: Bytes; those of the .rar files of HMDB51 are rough.
        hash: ``sha256:...`` or ``md5:...``; none if it is not known.
    """

    url: str
    size: int
    hash: str | None


@dataclass(frozen=True)
class Source:
    """One folder of a data set, and where it comes from.

    Attributes:
        folders: Its name, and other names that are as good.
        pattern: Of the names of the files that it holds.
        unpacked: Bytes that it takes, at most.
        mirrors: In the order in which they are tried.
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
    """Put a data set where :func:`hstlib.datasets.load_dataset` looks for it.

    The split lists come first, then the videos. A folder that is there is taken as it is; an
    archive that was fetched in part is fetched from where it ends.

    Args:
        name: ``hmdb51`` or ``ucf101``.
        archive: Of the videos, zip or RAR; it is unpacked as it is, and nothing fetched for it.

    Returns:
        The folder of the data set, under the data root.

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
    """Fetch and unpack a folder, unless it is there."""
    if _is_there(source, root):
        return
    target = root / source.folders[0]
    remove_leftovers(target)
    packed = archive or _fetch_any(source, root)
    _check_disk(root, source.unpacked)
    unpack(packed, target, source.pattern, source.unpacked)
    for mirror in source.mirrors:
        remove(_part(mirror, root))
    if not archive:
        log.info("%s is not needed any more", packed)


def _is_there(source: Source, root: Path) -> bool:
    """Tell whether the folder of a source is there, under any of its names."""
    for folder in (root / name for name in source.folders):
        if os.path.lexists(folder):
            if not wanted_files(folder, source.pattern):
                raise ValueError(f"{folder} exists and holds no {source.pattern}; move it away")
            log.info("%s is there", folder)
            return True
    return False


def _check_disk(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot be finished."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: {needed:,} bytes are needed, {free:,} are free; "
            "make room, or let HST_DATA name a folder on a larger disk"
        )


def _fetch_any(source: Source, root: Path) -> Path:
    """Fetch an archive from the first mirror that works."""
    failures = []
    for mirror in source.mirrors:
        try:
            return _fetch(mirror, root, source.unpacked)
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{mirror.url}: {error}")
            log.warning("%s", failures[-1])
    raise ValueError(
        f"{root / source.folders[0]}: no mirror works; fetch it by other means and unpack it "
        f"there, or name an archive of the videos by --archive. Tried {'; '.join(failures)}"
    )


def _part(mirror: Mirror, root: Path) -> Path:
    """Return where an unfinished download lies."""
    return root / f"{mirror.url.rpartition('/')[2]}.part"


def _fetch(mirror: Mirror, root: Path, unpacked: int) -> Path:
    """Fetch an archive, or the rest of it, and check it; one that is there is only checked."""
    part = _part(mirror, root)
    archive = part.with_suffix("")
    if archive.suffix == ".rar":
        rar_program()
    if mirror.hash is None:
        log.warning("%s: no hash is known of this archive, so it cannot be checked", mirror.url)
    if archive.is_file() and hash_matches(archive, mirror.hash):
        return archive
    _check_disk(root, max(mirror.size - _size(part), 0) + unpacked)
    log.info("fetching %s", mirror.url)
    _download(mirror, part)
    try:
        hash_matches(part, mirror.hash, strict=True, source=archive.name)
        archive_kind(part)
    except ValueError:
        part.unlink()
        raise
    return part.replace(archive)


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _download(mirror: Mirror, part: Path) -> None:
    """Fetch what is missing of a file, again and again as long as that brings new bytes."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _continue(mirror, part)
        except DROPPED as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == TRIES or failures and isinstance(error, requests.exceptions.SSLError):
                raise
            log.warning("%s: %s; going on at byte %d", mirror.url, error, _size(part))
            time.sleep(PAUSE * failures)


def _continue(mirror: Mirror, part: Path) -> None:
    """Ask once for what is missing of a file, and append it."""
    held = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(mirror.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        offset, total = _span(response)
        if response.status_code == requests.codes.range_not_satisfiable:
            if total == held:
                return
            part.unlink()
            raise requests.ConnectionError(f"{held:,} bytes were held of {total:,}")
        response.raise_for_status()
        _check_offer(response, total, mirror)
        bar = tqdm(
            desc=part.stem, initial=offset, total=total or None,
            unit="B", unit_scale=True, disable=None,
        )  # fmt: skip
        with part.open("ab") as file, bar:
            file.truncate(offset)
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
    if _size(part) < total:
        raise requests.ConnectionError(f"connection closed after {_size(part):,} of {total:,}")


def _span(response: requests.Response) -> tuple[int, int]:
    """Return where in the file a response begins, and the size of the file, 0 if not told."""
    told = response.headers.get("Content-Range", "")
    if span := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", told):
        return int(span[1] or 0), int(span[2])
    return 0, int(response.headers.get("Content-Length", 0))


def _check_offer(response: requests.Response, total: int, mirror: Mirror) -> None:
    """Refuse a web page in place of an archive before it overwrites what is held of one."""
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") or total and not mirror.size / 2 < total < mirror.size * 2:
        raise ValueError(
            f"the answer is {total:,} bytes of {kind or 'unknown type'}, "
            f"not an archive of about {mirror.size:,}"
        )
