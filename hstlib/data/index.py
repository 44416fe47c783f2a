"""Index of a clip store: one text file with a line per video, which is searched, not loaded.

The first line is a JSON object with the settings and the problems, every further line a JSON list
with the fields of :class:`StoredVideo`. Lines are sorted, and each ends with its CRC-32 (a tab and
eight digits), so that no flipped bit goes unnoticed. Opening takes the same time and memory for ten
videos and for a million.
"""

import json
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hstlib.data.container import FaultKind
from hstlib.files import complete

INDEX = "index.jsonl"
REMEDY = "remove it and run `python -m hstlib prepare`; clips that are whole are kept"


class StoredVideo(NamedTuple):
    """One video of a store.

    Attributes:
        name: Path of the video file, see :func:`video_name`.
        bytes: Size of the file when it was read; None if it was missing.
        mtime_ns: Time of its last change, in nanoseconds since 1970; None if it was missing.
        sha256: Hash of its content, which is the name of its clips; None without any.
        repeats: Largest number of frames of a clip that repeat another, in a video that is short.
        kind: Kind of fault; None if the video can be used.
        reason: What is wrong with the file and the remedy.
    """

    name: str
    bytes: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None
    repeats: int = 0
    kind: FaultKind | None = None
    reason: str | None = None


def video_name(path: Path) -> str:
    """Return a path as text that is the same under every locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def video_path(name: str) -> str:
    """Return the path that :func:`video_name` gives a name to, as text."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def write_index(file: Path, header: dict[str, Any], videos: Iterable[StoredVideo]) -> None:
    """Write an index.

    Args:
        file: File to write.
        header: What :attr:`Index.header` will hold.
        videos: The videos, in any order.
    """
    with complete(file) as unfinished, unfinished.open("wb") as out:
        out.write(_line(header))
        out.writelines(sorted(map(_line, videos)))


class Index:
    """An open index.

    Args:
        file: File that :func:`write_index` wrote.

    Attributes:
        file: The file.
        header: Content of the first line.

    Raises:
        ValueError: If the first line is damaged.
        OSError: If the file cannot be read.
    """

    def __init__(self, file: Path):
        self.file = file
        with file.open("rb") as opened:
            empty = not file.stat().st_size  # which cannot be mapped
            self._text = b"" if empty else mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._begin = self._end_of_line(0)
        self.header: dict[str, Any] = self._read(0, self._begin)

    def find(self, path: Path) -> StoredVideo | None:
        """Return the video of a path; None if it is not in the index."""
        start = json.dumps(video_name(path)).encode()
        start = b"[" + start + b","
        low, high = self._begin, len(self._text)  # both are starts of lines
        while low < high:
            middle = self._text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            if self._text[middle : middle + len(start)] < start:
                low = self._end_of_line(middle)
            else:
                high = middle
        if self._text[low : low + len(start)] != start:
            return None
        return StoredVideo(*self._read(low, self._end_of_line(low)))

    def __iter__(self) -> Iterator[StoredVideo]:
        """Yield all videos, sorted."""
        begin = self._begin
        while begin < len(self._text):
            end = self._end_of_line(begin)
            yield StoredVideo(*self._read(begin, end))
            begin = end

    def _end_of_line(self, begin: int) -> int:
        return self._text.find(b"\n", begin) + 1 or len(self._text)

    def _read(self, begin: int, end: int) -> Any:
        line = self._text[begin:end]
        text, _, crc = line.rpartition(b"\t")
        if crc != _crc(text):
            raise ValueError(f"{self.file}: changed on the disk at byte {begin}; {REMEDY}")
        return json.loads(text)


def _line(content: Any) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b"\t" + _crc(text)


def _crc(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}\n".encode()
