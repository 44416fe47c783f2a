"""Download HMDB51, UCF101 and J-HMDB: several mirrors, resumed downloads, verified hashes."""

import hashlib
import logging
import os
import time
from pathlib import Path

import requests
from tqdm import tqdm

from hstlib.config import data_root
from hstlib.data import connection
from hstlib.data.datasets import VideoSet
from hstlib.data.jhmdb import write_own_splits, write_splits
from hstlib.data.sources import LISTED_VIDEOS, SOURCES, Mirror, Source
from hstlib.data.unpack import archive_kind, check_rar_program, unpack, wanted_files
from hstlib.files import check_disk_space, lock, remove, remove_leftovers

log = logging.getLogger("hstlib")

TRIES = 4
"""Give up after this number of consecutive attempts without progress."""
PAUSE = 2.0
"""Pause after the first attempt without progress, in seconds; each later pause is longer by it."""
MAX_PAUSE = 300.0
"""Longest pause that a server may ask for, in seconds."""


def download_dataset(name: str, archive: Path | None = None) -> Path:
    """Download and unpack a data set, into its place under the data root.

    The split lists come first, then the videos. An existing folder is used as it is; an
    interrupted download is resumed. J-HMDB also gets ``splits.csv``, HMDB51's official splits for
    its files; this needs HMDB51's lists, which are downloaded if they are missing. J-HMDB's own
    lists come last and may fail.

    Args:
        name: ``hmdb51``, ``ucf101`` or ``jhmdb``.
        archive: Zip or RAR archive of the videos to unpack instead of downloading one. It is left
            as it is, and so is everything next to it.

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
    lists, videos = SOURCES[name]
    if name == "jhmdb":
        return _provide_jhmdb(lists, videos, archive)
    _provide(lists, name)
    return _provide(videos, name, archive)


def _provide_jhmdb(lists: Source, videos: Source, archive: Path | None) -> Path:
    """Provide J-HMDB with its places in HMDB51's splits; its own lists may be out of reach."""
    root = _provide(videos, "jhmdb", archive)
    if not (root / "splits.csv").exists():
        hmdb51 = _provide(SOURCES["hmdb51"][0], "hmdb51")
        write_splits(root / "splits.csv", root / videos.folders[0], hmdb51)
    try:
        _provide(lists, "jhmdb")
        clips = root / videos.folders[0]
        write_own_splits(clips / "own_splits.csv", clips, root / lists.folders[0])
    except ValueError as error:
        log.warning("J-HMDB's own splits are not available: %s", error)
    return root


def warn_of_other_lists(data: VideoSet) -> None:
    """Warn if the lists of a data set name more or fewer videos than the published ones."""
    expected = LISTED_VIDEOS.get(data.name)
    if expected and len(data.paths) != expected:
        log.warning(
            "the split lists of %s name %s videos, the published ones %s; if you did not shorten "
            "them, move them away and download them again",
            data.name, f"{len(data.paths):,}", f"{expected:,}",
        )  # fmt: skip


def _provide(source: Source, name: str, archive: Path | None = None) -> Path:
    """Download and unpack a folder of a data set unless it exists, and return its parent."""
    root = data_root() / name
    with lock(root):
        root.mkdir(exist_ok=True)
        if not _exists(source, root):
            target = root / source.folders[0]
            remove_leftovers(target)
            packed = archive or _fetch_any(source, root)
            check_disk_space(root, source.unpacked)
            unpack(packed, target, source.pattern, source.unpacked)
            _warn_of_other_files(source, target)
            if not archive:
                for mirror in source.mirrors:
                    remove(_part(mirror, root))
                log.info("%s is no longer needed", packed)
    return root


def _exists(source: Source, root: Path) -> bool:
    """Return whether the folder of a source exists, under any of its names."""
    for folder in (root / name for name in source.folders):
        if os.path.lexists(folder):
            if not wanted_files(folder, source.pattern):
                raise ValueError(f"{folder} exists and holds no {source.pattern}; move it away")
            log.info("%s exists", folder)
            _warn_of_other_files(source, folder)
            return True
    return False


def _warn_of_other_files(source: Source, folder: Path) -> None:
    """Warn if a folder holds more or fewer files than the published one."""
    count = len(wanted_files(folder, source.pattern))
    if source.files and count != source.files:
        log.warning(
            "%s holds %s files %s, the published folder %s; for all of them move it away and "
            "download it again", folder, f"{count:,}", source.pattern, f"{source.files:,}",
        )  # fmt: skip


def _fetch_any(source: Source, root: Path) -> Path:
    """Download an archive from the first mirror that works."""
    failures = []
    for mirror in source.mirrors:
        try:
            return _fetch(mirror, root, source.unpacked)
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{mirror.address}: {error}")
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
    if archive.exists():
        if fault := _hash_fault(archive, mirror.hash):
            raise ValueError(f"{archive} exists and is another file: {fault}; move it away")
        return archive
    missing = max(mirror.size - _size(part), 0)
    check_disk_space(root, missing + unpacked)
    log.info("downloading %s", mirror.address)
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
        except connection.DROPPED as error:
            failures = 0 if _size(part) - before >= connection.PROGRESS else failures + 1
            if failures == TRIES or failures and isinstance(error, requests.exceptions.SSLError):
                raise
            pause = max(PAUSE * failures, getattr(error, "seconds", 0))
            if pause > MAX_PAUSE:
                raise ValueError(f"{error}, and for {pause:,.0f} s; try later") from error
            log.warning("%s: %s; resuming at byte %d", mirror.address, error, _size(part))
            time.sleep(pause)


def _continue(mirror: Mirror, part: Path) -> None:
    """Request the rest of a file once, and append it."""
    if _size(part) > mirror.limit:
        part.unlink()  # of another archive
    offset = _size(part)
    with connection.open_url(mirror.address, offset) as response:
        start, total = connection.span_of(response)
        if response.status_code == requests.codes.range_not_satisfiable:
            return _check_end(offset, total, mirror, part)
        _check_answer(response, start, total, offset, mirror)
        bar = tqdm(
            desc=part.stem, initial=offset, total=total or None,
            unit="B", unit_scale=True, disable=None,
        )  # fmt: skip
        size, skipped = offset, offset - start
        with part.open("ab") as file, bar:
            for chunk in connection.chunks(response):
                new = chunk[skipped:]  # a server that cannot resume sends everything again
                skipped = max(skipped - len(chunk), 0)
                size += len(new)
                if size > mirror.limit:
                    file.truncate(offset)
                    raise ValueError(f"more than the {mirror.limit:,} bytes of this archive")
                bar.update(file.write(new))
    expected = total or (0 if mirror.rough else mirror.size)
    if size < expected:
        raise requests.ConnectionError(f"connection closed after {size:,} of {expected:,}")


def _check_end(offset: int, total: int, mirror: Mirror, part: Path) -> None:
    """Check a partial file after the answer that nothing follows it; delete one that is longer."""
    if not mirror.fits(total) or offset < total:
        raise requests.ConnectionError(f"nothing is offered from byte {offset:,} of {total:,}")
    if offset > total:
        part.unlink()
        raise requests.ConnectionError(f"partial file of {offset:,} bytes, expected {total:,}")


def _check_answer(
    response: requests.Response, start: int, total: int, offset: int, mirror: Mirror
) -> None:
    """Refuse what cannot be the rest of the archive, before anything is written."""
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise connection.BusyError(status, connection.retry_after(response))
    response.raise_for_status()
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") or total and not mirror.fits(total):
        raise ValueError(
            f"the answer is {total:,} bytes of {kind or 'unknown type'}, "
            f"not an archive of {'about ' * mirror.rough}{mirror.size:,}"
        )
    if status not in (200, 206):
        raise ValueError(f"the answer has status {status}, not 200 or 206")
    if start not in (0, offset):
        raise ValueError(f"the answer begins at byte {start:,}, not at {offset:,}")
    if encoding := response.headers.get("Content-Encoding", "").replace("identity", ""):
        raise ValueError(f"the answer is encoded as {encoding!r}, which was not asked for")
