"""Open a container file and choose its video stream; notice a file that was cut off."""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import av

av.logging.set_level(av.logging.PANIC)  # the errors below name the file; FFmpeg's do not

_BOXES = {
    *(b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"moof", b"mfra", b"sidx", b"styp"),
    *(b"uuid", b"meta", b"pnot", b"udta", b"emsg", b"prft", b"pdin"),
}
"""Types of the boxes of an ISO file; whatever else follows the last one was appended to it."""
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
MAX_BOXES = 100_000  # a hostile file may hold millions of empty boxes


FaultKind = Literal[
    "missing", "not a video", "no video stream", "unsupported codec", "cut off", "damaged",
    "unreadable", "out of memory", "timed out", "killed",
]  # fmt: skip
"""What is wrong with a file."""
MOMENTARY: frozenset[FaultKind] = frozenset({"unreadable", "out of memory", "timed out", "killed"})
"""Faults of the moment, such as permissions, the disk or memory. They say nothing about the file,
so they are reported, tried again at the next call, and never stored."""
LATER = "it is tried again at the next call"


class VideoError(ValueError):
    """A video file that cannot be used.

    Attributes:
        kind: What is wrong with it.
        reason: The fault and its remedy; the message puts the file's name in front.
    """

    def __init__(self, path: str | Path, kind: FaultKind, reason: str):
        super().__init__(path, kind, reason)
        self.path, self.kind, self.reason = path, kind, reason

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


def printable(path: str | Path) -> str:
    """Return a path as one line of text that can be printed and stored, whatever bytes it has."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: ascii(match[0])[1:-1], text)


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file and choose its video stream as players do.

    The stream marked as default, else the largest; a cover picture is not a video.

    Raises:
        VideoError: If the file is missing, cannot be read, is not a video, or has no video stream
            that can be decoded here. Also if the disk or the memory fails while it is read.
    """
    start = first_bytes(Path(path))
    try:
        # With a file object, FFmpeg does not take "a:b.avi" for a protocol, and needs no UTF-8.
        with open(path, "rb") as file, av.open(file, metadata_errors="ignore") as container:
            stream = _choose_stream(path, container)
            stream.thread_count = 1  # more threads conceal errors differently every time
            yield container, stream
    except MemoryError as error:
        raise video_error(path, error) from error
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        reason = f"not a video that FFmpeg can open (begins with {start!r}); fetch the file again"
        raise _cut_off(path) or VideoError(path, "not a video", reason) from error
    except OSError as error:
        raise video_error(path, error) from error


def _cut_off(path: str | Path) -> VideoError | None:
    """Return the fault of a file that cannot be decoded and lacks bytes at its end."""
    if missing := missing_bytes(Path(path)):
        reason = f"{missing:,} bytes are missing at the end, and no frame decodes"
        return VideoError(path, "cut off", f"{reason}; fetch the file again")
    return None


def video_error(path: str | Path, error: Exception) -> VideoError:
    """Return what an exception means for a file: its own fault, or one of the moment."""
    if isinstance(error, VideoError):
        return error
    if isinstance(error, MemoryError):
        reason = "there is too little memory to decode it"
        return VideoError(path, "out of memory", f"{reason}; {LATER}")
    reason = f"reading it failed ({type(error).__name__}: {error})"
    if isinstance(error, OSError):
        reason = f"cannot be read ({error.strerror}); check its permissions and the disk"
    return VideoError(path, "unreadable", f"{reason}; {LATER}")


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file that is there and can be read.

    Raises:
        VideoError: If it is missing, empty, no regular file, or cannot be read.
    """
    try:
        if path.is_dir():
            raise VideoError(path, "not a video", "is a folder, not a file; name a video file")
        if not path.exists():
            absent = "" if path.parent.is_dir() else ", nor does its folder; is the disk mounted?"
            raise VideoError(path, "missing", f"does not exist{absent}")
        if not path.is_file():
            raise VideoError(path, "not a video", "is not a regular file; name a video file")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise video_error(path, error) from error
    if not start:
        raise VideoError(path, "not a video", "empty, 0 bytes; fetch the file again")
    return start


def _choose_stream(path: str | Path, container: av.container.InputContainer) -> av.VideoStream:
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise _cut_off(path) or VideoError(
            path, "no video stream", "holds no video stream; name a video file"
        )

    def preference(stream: av.VideoStream) -> tuple[bool, int]:
        default = bool(stream.disposition & av.stream.Disposition.default)
        return default, stream.width * stream.height if stream.codec_context else 0

    stream = max(streams, key=preference)
    if stream.codec_context is None:
        reason = "its codec cannot be decoded here; convert it to H.264, or install a PyAV that can"
        raise _cut_off(path) or VideoError(path, "unsupported codec", reason)
    return stream


def missing_bytes(path: Path) -> int:
    """Return how many bytes a file lacks of what its container claims.

    Knows RIFF (AVI), ISO boxes (MP4, MOV, M4V, 3GP), Matroska (MKV, WebM) and MPEG transport
    streams; any other file, and one whose size was left open when it was written, lacks nothing.

    Raises:
        OSError: If the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            claimed = _riff_end(file, size)
        elif start[4:8] in _BOXES:
            claimed = _boxes_end(file, size)
        elif start[:4] == _EBML.to_bytes(4, "big"):
            claimed = _segment_end(file, size)
        elif start[:1] == b"\x47" and _is_transport_stream(file, size):
            claimed = -(-size // 188) * 188
        else:
            claimed = size
    return max(0, claimed - size)


def _riff_end(file, size: int) -> int:
    """Return where the last RIFF chunk ends; AVI files over 1 GB have several."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        (length,) = struct.unpack("<I", header[4:])
        if length in (0, 0xFFFFFFFF):  # left open by the program that wrote it
            return size
        position += 8 + length + length % 2
    return position - 1 if position == size + 1 else position  # a last padding byte may be absent


def _boxes_end(file, size: int) -> int:
    """Return where the last top-level box ends."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        (length,) = struct.unpack(">I", header[:4])
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        if length < 8 or header[4:8] not in _BOXES:  # 0: to the end of the file
            return size
        position += length
        if position >= size:
            break
    return position


def _segment_end(file, size: int) -> int:
    """Return where the Matroska segment ends."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        try:
            identifier, used = _vint(header, keep_marker=True)
            length, more = _vint(header[used:], keep_marker=False)
        except ValueError:
            return size
        position += used + more
        if length is None:
            return size
        position += length
        if identifier == _SEGMENT or position >= size:
            return position
    return size


def _vint(data: bytes, keep_marker: bool) -> tuple[int | None, int]:
    """Read an EBML number: its value (None if it means "unknown") and its length in bytes."""
    if not data or not data[0]:
        raise ValueError("no EBML number")
    length = 9 - data[0].bit_length()
    value = int.from_bytes(data[:length], "big")
    if keep_marker:
        return value, length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), length


def _is_transport_stream(file, size: int) -> bool:
    """Return whether every one of the first packets begins with the sync byte."""
    for number in range(1, min(10, size // 188)):
        file.seek(188 * number)
        if file.read(1) != b"\x47":
            return False
    return size > 188
