"""Unpack archives of strangers: zip, and RAR by a program that is installed."""

import logging
import os
import shutil
import stat
import subprocess
import zipfile
import zlib
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Literal

from tqdm import tqdm

from hstlib.files import UNFINISHED

log = logging.getLogger("hstlib")

MAX_RATIO = 100
"""Of unpacked to packed bytes; the split lists reach 14, videos 1.1."""
RAR_PROGRAMS = {
    "unar": "-quiet -no-directory -no-recursion -force-skip -output-directory {folder} {archive}",
    "unrar": "x -idq -o- -p- {archive} {folder}/",
}
"""Programs that unpack RAR, and their arguments; the first that is installed is used. Not bsdtar:
it unpacks a file that does not match its checksum without a word."""
POLL = 1.0
"""Seconds between two looks at what such a program has written."""


def unpack(archive: Path, target: Path, pattern: str, limit: int) -> None:
    """Unpack an archive to ``target``, which is there in the end with all files or not at all.

    Folders that hold nothing but one folder are left out, so it does not matter whether the
    archive has a top-level folder. A RAR of RARs is unpacked twice.

    Args:
        archive: A zip or RAR.
        target: Where to; nothing may be there.
        pattern: Of the names of the files that are wanted; a zip's others are not unpacked.
        limit: Bytes that the archive may unpack to, at most.

    Raises:
        ValueError: If the archive is damaged or hostile, or holds no wanted file.
    """
    limit = min(limit, MAX_RATIO * archive.stat().st_size)
    kind = archive_kind(archive)
    log.info("unpacking %s", archive)
    with TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", suffix=UNFINISHED
    ) as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        if kind == "zip":
            _unpack_zip(archive, folder, pattern, limit)
        else:
            _unpack_rars(archive, folder, pattern, limit)
        files = wanted_files(folder, pattern)
        if not files:
            raise ValueError(f"{archive}: holds no {pattern}; use another archive")
        Path(os.path.commonpath([path.parent for path in files])).rename(target)


def archive_kind(archive: Path) -> Literal["zip", "rar"]:
    """Tell the kind of an archive by its first bytes.

    Raises:
        ValueError: If it is neither zip nor RAR.
    """
    with archive.open("rb") as file:
        start = file.read(4)
    if start not in (b"PK\3\4", b"Rar!"):
        raise ValueError(
            f"{archive}: begins with {start!r}, so it is neither zip nor RAR; use another archive"
        )
    return "zip" if start == b"PK\3\4" else "rar"


def wanted_files(folder: Path, pattern: str) -> list[Path]:
    """List the files below a folder whose names match a pattern."""
    return [path for path in folder.rglob(pattern) if _wanted(path.name, pattern)]


def _wanted(name: str, pattern: str) -> bool:
    """Tell whether a name matches; macOS puts ``._x.avi`` beside ``x.avi``."""
    return fnmatch(name, pattern) and not name.startswith(".")


def _unpack_zip(archive: Path, folder: Path, pattern: str, limit: int) -> None:
    """Unpack the wanted files of a zip; of each, no more bytes are read than it declares."""
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = _safe_entries(archive, packed, pattern, limit)
            for entry in tqdm(entries, desc=archive.name, unit="file", disable=None):
                path = folder.joinpath(*PureWindowsPath(entry.filename).parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as read, path.open("xb") as write:
                    shutil.copyfileobj(read, write)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, FileExistsError) as error:
        raise ValueError(f"{archive}: cannot be unpacked: {error}; use another archive") from error


def _safe_entries(
    archive: Path, packed: zipfile.ZipFile, pattern: str, limit: int
) -> list[zipfile.ZipInfo]:
    """Return the wanted entries of a zip, if none of all its entries is hostile."""
    wanted = []
    for entry in packed.infolist():
        path = PureWindowsPath(entry.filename)  # knows slashes, backslashes and drives
        if path.anchor or ".." in path.parts:
            raise ValueError(
                f"{archive}: {entry.filename!r} leads out of the folder; do not use this archive"
            )
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(
                f"{archive}: {entry.filename!r} is a link or device; do not use this archive"
            )
        if _wanted(path.name, pattern) and not entry.is_dir():
            wanted.append(entry)
    _check_bytes(archive, sum(entry.file_size for entry in wanted), limit)
    return wanted


def _check_bytes(archive: Path, unpacked: int, limit: int) -> None:
    """Refuse what unpacks to more than makes sense."""
    if unpacked > limit:
        raise ValueError(
            f"{archive}: unpacks to {unpacked:,} bytes or more, {limit:,} at most make sense; "
            "do not use this archive"
        )


def rar_program() -> str:
    """Return the name of an installed program that unpacks RAR.

    Raises:
        ValueError: If there is none; the message says what to install.
    """
    for program in RAR_PROGRAMS:
        if shutil.which(program):
            return program
    raise ValueError(
        f"RAR needs {' or '.join(RAR_PROGRAMS)}, and neither is installed; "
        "on Debian: apt install unar, on macOS: brew install unar"
    )


def _unpack_rars(archive: Path, folder: Path, pattern: str, limit: int) -> None:
    """Unpack a RAR, and the RARs that it holds if it holds no wanted file."""
    _unpack_rar(archive, folder, folder, limit)
    if not wanted_files(folder, pattern):
        inner = sorted(folder.rglob("*.rar"))
        for rar in tqdm(inner, desc=archive.name, unit="archive", disable=None):
            _unpack_rar(rar, rar.parent, folder, limit)
            rar.unlink()


def _unpack_rar(archive: Path, into: Path, top: Path, limit: int) -> None:
    """Unpack one RAR, and stop it when all that lies in ``top`` is over the limit."""
    program = rar_program()
    arguments = [
        argument.format(archive=archive.resolve(), folder=into)
        for argument in RAR_PROGRAMS[program].split()
    ]
    with subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                _check_tree(archive, top, limit)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
        finally:
            process.kill()
    if process.returncode:
        raise ValueError(
            f"{archive}: {program} ended with status {process.returncode}; "
            "if the file is damaged, remove it and start again"
        )
    _check_tree(archive, top, limit)


def _check_tree(archive: Path, top: Path, limit: int) -> None:
    """Refuse links, and more bytes than make sense."""
    total = 0
    for path in top.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            total += status.st_size
        elif not stat.S_ISDIR(status.st_mode):
            raise ValueError(
                f"{archive}: {path.name!r} is a link or device; do not use this archive"
            )
    _check_bytes(archive, total, limit)
