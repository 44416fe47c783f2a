"""Print lines that hold names from anywhere: of files, of classes, in a checkpoint."""

import sys
import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that move a terminal's cursor, hide or cannot be written."""


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
