"""Print lines that hold names from anywhere: of files, of classes, in a checkpoint."""

import errno
import os
import sys
import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that move a terminal's cursor, hide or cannot be written."""

REMEDIES = {
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOENT: "create it, or name another place",
    errno.EEXIST: "name another place",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a file in a folder",
    errno.ENOSPC: "make room, or name a place on another disk",
}
"""What helps against an error of the system."""


def describe(error: Exception) -> str:
    """Return the message of an error; for one of the system, the file, the reason and a remedy."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    file, remedy = error.filename2 or error.filename, REMEDIES.get(error.errno, "")
    place = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes | os.PathLike) else ""
    return f"{place}{error.strerror.lower()}{remedy and f'; {remedy}'}"


def say(*lines: object, to_errors: bool = False) -> None:
    """Print values, one line each, to standard output or to standard error."""
    for line in lines:
        print(printable(str(line)), file=sys.stderr if to_errors else sys.stdout)


def printable(text: str) -> str:
    r"""Escape control characters and line ends as Python does; undecodable bytes, as ``\xff``."""
    return "".join(
        character if unicodedata.category(character) not in HIDDEN else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python's stand-in for a byte that is no text
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
