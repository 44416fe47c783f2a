"""Unpack untrusted archives, zip and RAR."""

import errno
import logging
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Literal

import rarfile
from tqdm import tqdm

from hstlib.files import UNFINISHED

log = logging.getLogger("hstlib")

Packed = zipfile.ZipFile | rarfile.RarFile
Entry = zipfile.ZipInfo | rarfile.RarInfo

MAX_RATIO = 100
"""Largest accepted compression ratio (archive-bomb guard); the split lists reach 14, videos 1.1."""
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, rarfile.Error, EOFError, RuntimeError,
)  # fmt: skip
"""Errors of an archive that cannot be unpacked; RuntimeError: an encrypted zip."""
OF_NAMES = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Errors of the system for names in an archive that are too long or exclude each other."""


def unpack(archive: Path, target: Path, pattern: str, limit: int) -> None:
    """Unpack the wanted files of an archive to a new folder, atomically.

    Top-level folders that contain nothing but one folder are left out, so it does not matter
    whether the archive has one. A RAR of RARs is unpacked twice.

    Args:
        archive: Zip or RAR archive.
        target: Folder to create.
        pattern: Pattern of the wanted files' names; other files are not unpacked.
        limit: Maximum size of the unpacked files, in bytes.

    Raises:
        ValueError: If the archive is damaged or hostile, or holds no wanted file.
    """
    limit = min(limit, MAX_RATIO * archive.stat().st_size)
    log.info("unpacking %s", archive)
    with TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", suffix=UNFINISHED
    ) as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        _unpack_files(archive, folder, pattern, limit)
        if archive_kind(archive) == "rar" and not wanted_files(folder, pattern):
            _unpack_nested(archive, folder, pattern, limit)
        files = wanted_files(folder, pattern)
        if not files:
            raise ValueError(f"{archive}: holds no {pattern}; use another archive")
        Path(os.path.commonpath([path.parent for path in files])).rename(target)


def archive_kind(archive: Path) -> Literal["zip", "rar"]:
    """Return the kind of an archive, by its first bytes.

    Raises:
        ValueError: If it is neither zip nor RAR.
    """
    with archive.open("rb") as file:
        first_bytes = file.read(4)
    if first_bytes not in (b"PK\3\4", b"Rar!"):
        raise ValueError(
            f"{archive}: begins with {first_bytes!r}, so it is neither zip nor RAR; "
            "use another archive"
        )
    return "zip" if first_bytes == b"PK\3\4" else "rar"


def check_rar_program() -> None:
    """Check that a program for compressed RARs is installed.

    Raises:
        ValueError: If none is; the message says what to install.
    """
    try:
        # only these two: not every build of 7-Zip and bsdtar unpacks every RAR
        rarfile.tool_setup(sevenzip=False, sevenzip2=False, bsdtar=False, force=True)
    except rarfile.RarCannotExec:
        raise ValueError(
            "RAR needs unrar or unar, and neither is installed; "
            "on Debian: apt install unar, on macOS: brew install unar"
        ) from None


def wanted_files(folder: Path, pattern: str) -> list[Path]:
    """List the files below a folder whose names match a pattern."""
    return [path for path in folder.rglob(pattern) if _is_wanted(path.name, pattern)]


def _is_wanted(name: str, pattern: str) -> bool:
    """Return whether a name matches, except macOS's ``._x.avi`` next to ``x.avi``."""
    return fnmatch(name, pattern) and not name.startswith(".")


def _unpack_nested(archive: Path, folder: Path, pattern: str, limit: int) -> None:
    """Unpack the RARs in a RAR."""
    _unpack_files(archive, folder, "*.rar", limit)
    for inner in tqdm(sorted(folder.rglob("*.rar")), desc=archive.name, disable=None):
        limit -= _unpack_files(inner, inner.parent, pattern, limit)
        inner.unlink()


def _unpack_files(archive: Path, folder: Path, pattern: str, limit: int) -> int:
    """Unpack the wanted files of an archive, and return their size in bytes."""
    try:
        with _open(archive) as packed:
            entries = _safe_entries(archive, packed, pattern, limit)
            for entry in tqdm(entries, desc=archive.name, unit="file", disable=None):
                path = folder.joinpath(*PureWindowsPath(entry.filename).parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target)  # at most as many bytes as it declares
    except DAMAGED as error:
        raise ValueError(f"{archive}: cannot be unpacked: {error}; use another archive") from error
    except OSError as error:
        if error.errno is None:  # damaged bzip2
            reason = str(error)
        elif error.errno in OF_NAMES:
            reason = f"{error.strerror}, {Path(error.filename).name[:80]!r}"
        else:
            raise
        raise ValueError(f"{archive}: cannot be unpacked: {reason}; use another archive") from error
    return sum(entry.file_size for entry in entries)


def _open(archive: Path) -> Packed:
    if archive_kind(archive) == "zip":
        return zipfile.ZipFile(archive)
    check_rar_program()
    packed = rarfile.RarFile(archive, errors="strict")
    if packed.is_solid():
        log.warning("%s is a solid RAR: unpacking reads it once per file, which is slow", archive)
    return packed


def _safe_entries(archive: Path, packed: Packed, pattern: str, limit: int) -> list[Entry]:
    """Return the wanted entries of an archive, provided that none of all its entries is hostile."""
    wanted = []
    for entry in packed.infolist():
        path = PureWindowsPath(entry.filename)  # parses slashes, backslashes and drives
        if path.anchor or ".." in path.parts:
            raise ValueError(
                f"{archive}: {entry.filename!r} leads out of the folder; do not use this archive"
            )
        if not _is_plain(entry):
            raise ValueError(
                f"{archive}: {entry.filename!r} is a link or device; do not use this archive"
            )
        if _is_wanted(path.name, pattern) and not entry.is_dir():
            wanted.append(entry)
    total = sum(entry.file_size for entry in wanted)
    if total > limit:
        raise ValueError(
            f"{archive}: unpacks to {total:,} bytes, more than the {limit:,} that make sense; "
            "do not use this archive"
        )
    return wanted


def _is_plain(entry: Entry) -> bool:
    """Return whether an entry is a file or folder, not a link or device."""
    if isinstance(entry, rarfile.RarInfo):
        return entry.file_redir is None and (entry.is_file() or entry.is_dir())
    return stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
