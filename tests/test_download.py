import csv
import hashlib
import io
import logging
import os
import random
import re
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rarfile

from hstlib.__main__ import main
from hstlib.data import connection, download, sources, unpack
from hstlib.data.datasets import load_dataset
from hstlib.data.download import SOURCES, Mirror, Source, download_dataset
from hstlib.data.jhmdb import write_own_splits, write_splits

HMDB51_LISTS = "testTrainMulti_7030_splits"
LISTS = {"lists/classInd.txt": b"1 Jump\n2 Run\n", "lists/trainlist01.txt": b"Run/v_a.avi 2\n"}
VIDEOS = {f"UCF-101/{c}/v_{c}_g01_c01.avi": c.encode() * 9000 for c in ("Jump", "Run")}


def answer(
    status: int, body: bytes = b"", **headers: str | int
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Make an answer for the server's ``faults``."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def endless(
    piece: bytes, pause: float = 0.0, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Make an answer that repeats a piece until the client hangs up."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        answer(200, **headers)(handler)
        while not time.sleep(pause):
            handler.wfile.write(piece)

    return send


def make_zip(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def make_rar(
    files: dict[str, bytes], links: dict[str, str] | None = None, packed: bytes | None = None
) -> bytes:
    """Make a RAR 4 archive without compression, or with given bytes as each file's packed form."""

    def block(kind: int, flags: int, rest: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    def member(name: str, content: bytes, mode: int) -> bytes:
        data, method = (content, 0x30) if packed is None else (packed, 0x33)
        sizes = len(data), len(content)
        fields = *sizes, 3, zlib.crc32(content), 0x58216000, 20, method, len(name), mode
        head = struct.pack("<IIBIIBBHI", *fields) + name.replace("/", "\\").encode()
        return block(0x74, 0x8000, head, data)

    members = [member(name, content, 0o100644) for name, content in files.items()]
    members += [member(name, to.encode(), 0o120777) for name, to in (links or {}).items()]
    return (
        b"Rar!\x1a\x07\x00"
        + block(0x73, 0, bytes(6))
        + b"".join(members)
        + block(0x7B, 0x4000, b"")
    )


def make_rar5_hard_link(name: str, content: bytes, link: str) -> bytes:
    """Make a RAR 5 archive of a file and a hard link to it; all lengths are below 128."""

    def block(*fields: int | bytes, data: bytes = b"") -> bytes:
        head = b"".join(f if isinstance(f, bytes) else bytes([f]) for f in fields)
        head = bytes([len(head)]) + head
        return struct.pack("<I", zlib.crc32(head)) + head + data

    def member(name: str, data: bytes, extra: bytes) -> bytes:
        crc, length = struct.pack("<I", zlib.crc32(data)), len(name)
        fields = 2, 3, len(extra), len(data), 4, len(data), 0, crc, 0, 1, length, name.encode()
        return block(*fields, extra, data=data)

    redirect = bytes([5, 4, 0, len(name)]) + name.encode()
    return (
        b"Rar!\x1a\x07\x01\x00"
        + block(1, 0, 0)
        + member(name, content, b"")
        + member(link, b"", bytes([len(redirect)]) + redirect)
        + block(5, 0, 0)
    )


class Handler(BaseHTTPRequestHandler):
    """Serves the server's ``files``, with the faults that a test asks for."""

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        content = server.files.get(self.path)
        start = 0 if server.ignore_range or not wanted else int(wanted[6:-1])
        token = self.headers.get("Authorization")
        entry = SimpleNamespace(path=self.path, range=wanted, sent=0, token=token)
        server.log.append(entry)
        if server.faults and self.path != "/lists.zip" and (fault := server.faults.pop(0)):
            self.close_connection = True
            with suppress(OSError):  # the client may hang up
                return fault(self)
        if content is None:
            return self.send_error(404)
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", server.kind)
        if server.tell_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = server.drop_at.pop(0) if server.drop_at else len(content)
        self.wfile.write(content[start:end])
        entry.sent = len(content[start:end])
        if server.stall and end < len(content):
            server.stall.wait(20)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files, server.log, server.drop_at, server.faults = {}, [], [], []
    server.ignore_range, server.stall, server.tell_length = False, None, True
    server.kind = "application/octet-stream"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def offer(server, monkeypatch):
    """Serve archives as the mirrors of UCF101; returns the sources."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(connection, "CHUNK", 1000)
    monkeypatch.setattr(connection, "PROGRESS", 1000)

    def mirror(path: str, content: bytes, algorithm: str) -> Mirror:
        server.files[path] = content
        digest = algorithm and f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        return Mirror(server.url + path, len(content), digest or None)

    def call(*videos: tuple[str, bytes], hashed: bool = True) -> tuple[Source, Source]:
        lists = mirror("/lists.zip", make_zip(LISTS), "md5")
        mirrors = tuple(
            mirror(path, content, "sha256" if hashed else "") for path, content in videos
        )
        sources = (
            Source(("ucfTrainTestlist",), "*.txt", 10_000, (lists,)),
            Source(("UCF-101", "UCF101"), "*.avi", 1_000_000, mirrors),
        )
        monkeypatch.setitem(SOURCES, "ucf101", sources)
        return sources

    return call


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data-root" / "ucf101"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


VIDEOS_ON_DISK = {name.removeprefix("UCF-101/"): content for name, content in VIDEOS.items()}


def assert_complete(root: Path) -> None:
    """Both folders are right, and nothing but archives is next to them."""
    assert contents(root / "UCF-101") == VIDEOS_ON_DISK
    assert contents(root / "ucfTrainTestlist").keys() == {"classInd.txt", "trainlist01.txt"}
    others = {p.name for p in root.iterdir()} - {"UCF-101", "ucfTrainTestlist"}
    assert all(name.endswith((".zip", ".rar")) for name in others), others


def assert_no_videos(root: Path) -> None:
    assert {p.name for p in root.iterdir()} <= {"ucfTrainTestlist", "lists.zip", "videos.zip"}


# The table


def test_the_mirrors_are_named_in_full():
    assert SOURCES.keys() == {"hmdb51", "ucf101", "jhmdb"}
    for source in sum(SOURCES.values(), ()):
        assert source.files > 0
        *others, last = source.mirrors
        assert all(mirror.hash.startswith("sha256:") for mirror in others[:1])
        for mirror in source.mirrors:
            assert mirror.url.startswith("https://") and mirror.url.endswith((".zip", ".rar"))
            assert 0 < mirror.size < source.unpacked
            assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|None", str(mirror.hash))
            assert mirror.hash or mirror is last
            if "huggingface" in mirror.url:
                assert re.search("/resolve/[0-9a-f]{40}/", mirror.url)


def test_archives_of_different_content_have_different_names():
    for pair in SOURCES.values():
        mirrors = [mirror for source in pair for mirror in source.mirrors]
        names = {(mirror.url.rpartition("/")[2], mirror.hash) for mirror in mirrors}
        assert len(names) == len({name for name, _ in names})


def test_certificates_are_checked_everywhere():
    for module in (connection, download, unpack):
        assert "verify=" not in Path(module.__file__).read_text()


# Fetching


def test_lists_come_before_videos(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    assert download_dataset("ucf101") == root
    assert_complete(root)
    assert [entry.path for entry in server.log] == ["/lists.zip", "/videos.zip"]


def test_what_is_there_is_not_fetched_again(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    download_dataset("ucf101")
    server.log.clear()
    download_dataset("ucf101")
    assert server.log == []
    shutil.rmtree(root / "UCF-101")  # the archive still exists, and is still right
    download_dataset("ucf101")
    assert server.log == []
    assert_complete(root)


@pytest.mark.parametrize("name", ["UCF-101", "UCF101"])
def test_unpacked_folders_are_taken_as_they_are(offer, server, root, name):
    offer()
    for file in (root / name / "v_Any_g01_c01.avi", root / "ucfTrainTestlist" / "classInd.txt"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"mine")
    before = contents(root)
    download_dataset("ucf101")
    assert server.log == [] and contents(root) == before


def test_a_folder_of_other_things_is_not_overwritten(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    (root / "UCF-101").mkdir(parents=True)
    (root / "UCF-101" / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match=r"UCF-101 exists and holds no \*\.avi; move it away"):
        download_dataset("ucf101")
    assert contents(root / "UCF-101") == {"notes.md": b"mine"}
    assert [entry.path for entry in server.log] == ["/lists.zip"]


def test_a_dropped_connection_is_resumed(offer, server, root):
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    server.drop_at = [10_000, 10_000, 30_000]  # the lists are shorter
    download_dataset("ucf101")
    assert_complete(root)
    first, second, third = [entry for entry in server.log if entry.path == "/videos.zip"]
    assert first.range is None and first.sent == 10_000
    assert second.range == "bytes=10000-" and second.sent == 20_000
    assert third.range == "bytes=30000-" and third.sent == len(archive) - 30_000
    assert (root / "videos.zip").read_bytes() == archive


def test_a_file_without_a_length_may_break_off(offer, server, root):
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    root.mkdir(parents=True)
    (root / "videos.zip.part").write_bytes(archive[:10_000])
    server.tell_length, server.drop_at = False, [10_000, 30_000]
    download_dataset("ucf101")
    assert_complete(root)
    assert [entry.range for entry in server.log[1:]] == ["bytes=10000-", "bytes=30000-"]


def test_connections_that_bring_nothing_end(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    server.drop_at = [10_000, 10_000] + [0] * 99
    with pytest.raises(ValueError, match="no mirror works.*videos.zip: .*broken"):
        download_dataset("ucf101")
    assert len(server.log) == 2 + download.TRIES
    assert (root / "videos.zip.part").stat().st_size == 10_000


def test_a_server_that_ignores_range_sends_all(offer, server, root):
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    server.ignore_range, server.drop_at = True, [10_000, 10_000]
    download_dataset("ucf101")
    assert_complete(root)
    entries = [(entry.range, entry.sent) for entry in server.log[1:]]
    assert entries == [(None, 10_000), ("bytes=10000-", len(archive))]


@pytest.mark.parametrize("extra", [b"", b"of another archive"])
def test_a_part_that_cannot_be_continued(offer, server, root, extra):
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    root.mkdir(parents=True)
    (root / "videos.zip.part").write_bytes(archive + extra)
    download_dataset("ucf101")
    assert_complete(root)
    assert [entry.sent for entry in server.log[1:]] == ([len(archive)] if extra else [0])


KILLED = """
import sys
from hstlib.data import download
from hstlib.data.download import Mirror, Source
download.SOURCES["ucf101"] = {sources}
download.download_dataset("ucf101")
"""


def test_a_killed_process_is_resumed(offer, server, root):
    archive = make_zip(VIDEOS)
    sources = offer(("/videos.zip", archive))
    server.stall, server.drop_at = threading.Event(), [10_000, 40_000]
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(sources=sources)])
    part = root / "videos.zip.part"
    for _ in range(2000):
        if part.is_file() and part.stat().st_size > 20_000:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.stall.set()
    held = part.stat().st_size
    assert 20_000 < held <= 40_000
    (root / ".UCF-101.killed.unfinished").mkdir()  # left by a process killed while unpacking
    download_dataset("ucf101")
    assert_complete(root)
    assert server.log[-1].range == f"bytes={held}-"
    assert server.log[-1].sent == len(archive) - held
    assert (root / "videos.zip").read_bytes() == archive


def test_a_wrong_hash_leads_to_the_next_mirror(offer, server, root, caplog):
    bad, good = make_zip(VIDEOS | {"UCF-101/Run/b.avi": b"b"}), make_zip(VIDEOS)
    lists, videos = offer(("/first/videos.zip", bad), ("/second/good.zip", good))
    wrong = replace(videos.mirrors[0], hash="sha256:" + "0" * 64)
    SOURCES["ucf101"] = (lists, replace(videos, mirrors=(wrong, videos.mirrors[1])))
    download_dataset("ucf101")
    assert_complete(root)
    assert not (root / "videos.zip").exists()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno > 20]
    assert wrong.url in warning and "0" * 64 in warning
    assert hashlib.sha256(bad).hexdigest() in warning


def test_no_mirror_is_an_error_that_names_them_all(offer, server, root):
    offer(("/first/videos.zip", make_zip(VIDEOS)), ("/second/videos.zip", make_zip(VIDEOS)))
    del server.files["/first/videos.zip"]
    server.files["/second/videos.zip"] = server.files["/second/videos.zip"].replace(b"Run", b"run")
    with pytest.raises(ValueError) as caught:
        download_dataset("ucf101")
    message = str(caught.value)
    assert f"{server.url}/first/videos.zip: 404" in message
    assert f"{server.url}/second/videos.zip: SHA256" in message
    assert str(root / "UCF-101") in message and "--archive" in message
    assert_no_videos(root)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", ""])
def test_a_web_page_in_place_of_an_archive_spares_what_is_held(offer, server, root, kind):
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    download_dataset("ucf101")
    shutil.rmtree(root / "UCF-101")
    (root / "videos.zip").unlink()
    (root / "videos.zip.part").write_bytes(archive[:10_000])
    server.files["/videos.zip"], server.ignore_range = b"<html>Please log in</html>", True
    server.kind = kind
    with pytest.raises(ValueError, match="the answer is 26 bytes of .*, not an archive of 63,294"):
        download_dataset("ucf101")
    assert (root / "videos.zip.part").read_bytes() == archive[:10_000]


def test_a_web_page_as_long_as_the_archive_is_not_kept(offer, server, root):
    offer(("/videos.zip", b"<html>" * 9000), hashed=False)
    with pytest.raises(ValueError, match="b'<htm', so it is neither zip nor RAR"):
        download_dataset("ucf101")
    assert_no_videos(root)
    assert not (root / "videos.zip").exists()


def test_an_unknown_hash_is_told(offer, root, caplog):
    offer(("/videos.zip", make_zip(VIDEOS)), hashed=False)
    with caplog.at_level(logging.WARNING):
        download_dataset("ucf101")
    assert "/videos.zip: no hash is known" in caplog.text
    assert_complete(root)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_rate_and_time_left_on_a_terminal(offer, monkeypatch):
    offer(("/videos.zip", make_zip(VIDEOS)))
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    download_dataset("ucf101")
    shown = r"videos\.zip: 100%\|#+\| [\d.]+k/[\d.]+k \[\d\d:\d\d<\d\d:\d\d, [\d.]+[kMG]?B/s\]"
    assert re.search(shown, terminal.getvalue())


def test_a_small_disk_is_refused_before_the_archive(offer, server, root, monkeypatch):
    archive = make_zip(VIDEOS)
    lists, videos = offer(("/videos.zip", archive))
    free = videos.unpacked + len(archive) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    needed = f"{free + 1:,} bytes are needed, {free:,} are free"
    with pytest.raises(OSError, match=f"{root}: {needed}"):
        download_dataset("ucf101")
    assert [entry.path for entry in server.log] == ["/lists.zip"]
    assert_no_videos(root)
    (root / "videos.zip.part").write_bytes(archive[:1])  # a partial download needs less room
    download_dataset("ucf101")
    assert_complete(root)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match=r"'kinetics' cannot be downloaded; use one of \['hmdb51'"):
        download_dataset("kinetics")


# An archive of the user's


def test_an_archive_of_the_users_is_unpacked_as_it_is(offer, server, root, tmp_path):
    lists, videos = offer(("/videos.zip", b""))
    mine = tmp_path / "mine.zip"
    mine.write_bytes(make_zip(VIDEOS))
    download_dataset("ucf101", mine)
    assert_complete(root)
    assert mine.is_file()
    assert [entry.path for entry in server.log] == ["/lists.zip"]


def test_an_archive_of_the_users_needs_room_too(offer, root, tmp_path, monkeypatch):
    offer()
    (tmp_path / "mine.zip").write_bytes(make_zip(VIDEOS))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    with pytest.raises(OSError, match="1,000,000 bytes are needed, 20,000 are free"):
        download_dataset("ucf101", tmp_path / "mine.zip")


def test_a_missing_archive_is_told_before_anything_is_fetched(offer, server, tmp_path):
    offer()
    with pytest.raises(ValueError, match="none.zip is not a file"):
        download_dataset("ucf101", tmp_path / "none.zip")
    assert server.log == []


def test_the_command_counts_what_the_lists_name(hmdb51_root, tmp_path, monkeypatch, capsys):
    root = tmp_path / "data-root" / "hmdb51"
    shutil.copytree(hmdb51_root / "testTrainMulti_7030_splits", root / "testTrainMulti_7030_splits")
    files = {f"hmdb51_org/{k}": v for k, v in contents(hmdb51_root / "hmdb51_org").items()}
    files["hmdb51_org/class_09/Film_0_class_09_f_nm_np1_fr_goo_0.avi"] = b"x"
    (tmp_path / "mine.zip").write_bytes(make_zip(files))
    arguments = ["hstlib", "download", "hmdb51", "--archive", str(tmp_path / "mine.zip")]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert capsys.readouterr().out == f"{root}: 204 videos, 201 of them missing\n"
    assert len(load_dataset("hmdb51").missing) == 201


# Servers that misbehave


def archive_of_one_mirror(offer, server) -> bytes:
    archive = make_zip(VIDEOS)
    offer(("/videos.zip", archive))
    server.files["/good.zip"] = archive
    return archive


def assert_refused(root: Path, message: str) -> None:
    with pytest.raises(ValueError, match=f"no mirror works.*/videos.zip: {message}"):
        download_dataset("ucf101")
    names = {path.name for path in root.iterdir()}
    assert names <= {"ucfTrainTestlist", "lists.zip", "videos.zip.part"}


@pytest.mark.parametrize("held", [0, 10_000])
def test_no_more_bytes_are_written_than_the_archive_has(offer, server, root, held):
    archive = archive_of_one_mirror(offer, server)
    root.mkdir(parents=True)
    (root / "videos.zip.part").write_bytes(archive[:held])
    server.faults = [endless(bytes(1 << 16))]
    assert_refused(root, f"more than the {len(archive):,} bytes of this archive")
    assert (root / "videos.zip.part").read_bytes() == archive[:held]
    download_dataset("ucf101")  # the server is well again
    assert_complete(root)


def test_an_estimated_size_leaves_room(offer, server, root):
    archive = make_zip(VIDEOS)
    lists, videos = offer(("/videos.zip", archive))
    (mirror,) = videos.mirrors
    for size, right in ((len(archive) * 3 // 2, True), (len(archive) // 3, False)):
        rough = replace(mirror, size=size, rough=True)
        SOURCES["ucf101"] = (lists, replace(videos, mirrors=(rough,)))
        if right:
            download_dataset("ucf101")
            assert_complete(root)
            shutil.rmtree(root)
        else:
            with pytest.raises(ValueError, match="not an archive of about"):
                download_dataset("ucf101")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (answer(200, b"PK", Content_Encoding="gzip"), "the answer is encoded as 'gzip'"),
        (answer(206, Content_Range="bytes 3000000000-3000000001/63294"), "the answer begins at"),
        (answer(200, bytes(9), Content_Length=9), "the answer is 9 bytes of unknown type, not an"),
        (answer(200, Content_Length="many"), "the answer's Content-Length is 'many', not a number"),
        (answer(200, Content_Length=-5), "the answer's Content-Length is '-5', not a number"),
        (answer(204), "the answer has status 204"),
        (answer(302, Location="file:///etc/passwd"), "No connection adapters"),
        (answer(404, bytes(9)), "404"),
    ],
)
def test_other_answers_are_refused_at_once(offer, server, root, fault, message):
    archive_of_one_mirror(offer, server)
    server.faults = [fault]
    assert_refused(root, message)
    assert len(server.log) == 2
    assert not (root / "videos.zip.part").exists()


def test_a_link_that_breaks_every_700_kb_is_enough(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    archive = np.random.default_rng(0).bytes(4_000_000)
    server.files["/videos.zip"] = archive
    server.drop_at = [700_000 * (i + 1) for i in range(5)]
    mirror = Mirror(server.url + "/videos.zip", len(archive), None)
    download._download(mirror, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == archive
    assert len(server.log) == 6
    assert sum(entry.sent for entry in server.log) < len(archive) + 6 * connection.CHUNK


def test_a_byte_per_connection_is_no_progress(offer, server, root, monkeypatch):
    archive_of_one_mirror(offer, server)
    monkeypatch.setattr(connection, "CHUNK", 1)
    server.drop_at = [10_000] + [i + 1 for i in range(99)]  # the lists come whole
    assert_refused(root, ".*broken")
    assert len(server.log) == 1 + download.TRIES


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(offer, server, root, monkeypatch, status):
    archive_of_one_mirror(offer, server)
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    moment = formatdate(time.time() + 100, usegmt=True)
    server.faults = [
        answer(status),
        answer(status, Retry_After=7),
        answer(status, Retry_After=moment),
    ]
    download_dataset("ucf101")
    assert_complete(root)
    assert pauses[:2] == [0, 7] and 90 < pauses[2] <= 100


def test_a_busy_server_is_not_asked_for_ever(offer, server, root):
    archive_of_one_mirror(offer, server)
    server.faults = [answer(503, Retry_After="-3"), answer(503, Retry_After="soon")]
    server.faults += [answer(503)] * 99
    assert_refused(root, r"the server is busy \(status 503\)")
    assert len(server.log) == 1 + download.TRIES


def test_a_long_wait_is_left_to_the_user(offer, server, root, monkeypatch):
    archive_of_one_mirror(offer, server)
    server.faults = [answer(429, Retry_After=3600)]
    assert_refused(root, r"the server is busy \(status 429\), and for 3,600 s; try later")


@pytest.mark.parametrize(
    ("piece", "headers"),
    [
        (b"x", {"Content_Length": 63_294}),
        (b"x", {}),
        (b"1", {"Transfer_Encoding": "chunked"}),  # the digits of a chunk's length
    ],
)
def test_a_server_that_is_too_slow_is_left(offer, server, root, monkeypatch, piece, headers):
    archive = archive_of_one_mirror(offer, server)
    assert len(archive) == 63_294
    monkeypatch.setattr(connection, "PERIOD", 0.4)
    server.faults = [endless(piece, 0.02, **headers)] * download.TRIES
    assert_refused(root, "fewer than 1,000 bytes/s")
    assert len(server.log) == 1 + download.TRIES


def test_headers_that_never_end_are_left(offer, server, root, monkeypatch):
    archive_of_one_mirror(offer, server)
    monkeypatch.setattr(connection, "ANSWER_TIME", 0.5)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(50):
            time.sleep(0.02)
            handler.wfile.write(b"x")

    server.faults = [slow] * download.TRIES
    assert_refused(root, "no complete answer within 0 s")


def test_redirects_are_followed_without_reading_them(offer, server, root):
    archive_of_one_mirror(offer, server)
    target = server.url.replace("127.0.0.1", "localhost") + "/good.zip"
    server.drop_at = [10_000, 30_000]

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        answer(302, Location=target)(handler)
        for _ in range(100_000):  # 6 GB, were it read
            handler.wfile.write(bytes(1 << 16))

    server.faults = [redirect, None, redirect, None]
    download_dataset("ucf101")
    assert_complete(root)
    ranges = [(entry.path, entry.range) for entry in server.log[1:]]
    assert ranges == [
        ("/videos.zip", None),
        ("/good.zip", None),
        ("/videos.zip", "bytes=30000-"),
        ("/good.zip", "bytes=30000-"),
    ]


def test_redirects_end(offer, server, root):
    archive_of_one_mirror(offer, server)
    server.faults = [answer(302, Location="/videos.zip")] * 99
    assert_refused(root, "more than 10 redirects")
    assert len(server.log) == 1 + 1 + connection.MAX_REDIRECTS


@pytest.fixture
def encrypted(server, tmp_path, monkeypatch):
    """Serve https, and trust it; returns the address without https."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]
        + ["/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.url = f"https://localhost:{server.server_port}"
    return server.url.replace("https:", "http:")


def test_encryption_is_not_given_up_by_a_redirect(offer, server, encrypted, root):
    archive_of_one_mirror(offer, server)
    server.faults = [answer(302, Location=f"{encrypted}/good.zip")]
    assert_refused(root, f"leads to {encrypted}/good.zip, which is not encrypted")
    server.faults = [answer(302, Location=f"{server.url}/good.zip")]
    download_dataset("ucf101")
    assert_complete(root)


# The Hub


@pytest.fixture
def hub(offer, server, monkeypatch):
    """Offer the videos on a mirror of the Hub."""
    archive = make_zip(VIDEOS)
    lists, videos = offer(("/datasets/someone/videos.zip", archive))
    server.files["/good.zip"] = archive
    (mirror,) = videos.mirrors
    mirror = replace(mirror, url=sources.HUB + mirror.url.removeprefix(server.url))
    SOURCES["ucf101"] = (lists, replace(videos, mirrors=(mirror,)))
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    return "/datasets/someone/videos.zip"


def tokens(server) -> list[tuple[str, str | None]]:
    return [(entry.path, entry.token) for entry in server.log]


def test_the_hub_is_where_its_variable_says(hub, server, root, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else")
    monkeypatch.setenv("NETRC", str(netrc))
    download_dataset("ucf101")
    assert_complete(root)
    assert tokens(server)[-1] == (hub, "Bearer hf_secret")
    assert "secret" not in caplog.text


def test_without_a_token_none_is_sent(hub, server, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    download_dataset("ucf101")
    assert tokens(server)[-1] == (hub, None)


def test_the_token_is_not_sent_to_other_hosts(hub, server, root, monkeypatch):
    other = server.url.replace("127.0.0.1", "localhost")
    server.faults = [answer(302, Location=f"{other}/good.zip")]
    download_dataset("ucf101")
    assert_complete(root)
    assert tokens(server)[1:] == [(hub, "Bearer hf_secret"), ("/good.zip", None)]


def test_other_mirrors_get_no_token(offer, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    offer(("/videos.zip", make_zip(VIDEOS)))
    download_dataset("ucf101")
    assert {token for _, token in tokens(server)} == {None}


@pytest.mark.parametrize(
    "url",
    ["http://huggingface.co/x", "https://huggingface.co.evil.org/x", "https://huggingface.co:444/"]
    + ["https://huggingface.co@evil.org/x", "https://evil.org/https://huggingface.co/x"],
)
def test_only_the_hubs_own_address_gets_the_token(monkeypatch, url):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert sources.hub_token(url) is None
    assert sources.hub_token("https://HuggingFace.co/datasets/x") == "hf_secret"


# What is the user's


def test_an_archive_of_the_users_may_have_the_name_of_a_partial_download(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    root.mkdir(parents=True)
    mine = root / "videos.zip.part"
    mine.write_bytes(make_zip(VIDEOS))
    download_dataset("ucf101", mine)
    assert contents(root / "UCF-101") == VIDEOS_ON_DISK
    assert mine.read_bytes() == make_zip(VIDEOS)


def test_another_file_with_the_name_of_the_archive_is_kept(offer, server, root):
    offer(("/videos.zip", make_zip(VIDEOS)))
    root.mkdir(parents=True)
    (root / "videos.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match="videos.zip exists and is another file: SHA256.*move it"):
        download_dataset("ucf101")
    assert (root / "videos.zip").read_bytes() == b"mine"


def test_other_contents_are_told(offer, server, root, caplog):
    lists, videos = offer(("/videos.zip", make_zip(VIDEOS)))
    SOURCES["ucf101"] = (lists, replace(videos, files=13_320))
    message = r"UCF-101 holds 2 files \*.avi, the published folder 13,320; .* move it away"
    for _ in range(2):
        caplog.clear()
        download_dataset("ucf101")
        assert re.search(message, caplog.text)


def test_shortened_lists_are_told(ucf101_root, caplog):
    data = load_dataset("ucf101", ucf101_root)
    download.warn_of_other_lists(data)
    assert "lists of ucf101 name 303 videos, the published ones 13,320" in caplog.text
    caplog.clear()
    full = tuple(replace(data.train[0], path=Path(f"{i}.avi")) for i in range(13_320))
    download.warn_of_other_lists(replace(data, train=full, test=()))
    assert not caplog.text


# J-HMDB


@pytest.fixture
def jhmdb(offer, server, hmdb51_root, monkeypatch) -> dict[str, bytes]:
    """Offer 21 classes of the small HMDB51 as J-HMDB, and HMDB51's lists; returns the videos."""
    names = [f"class_{label:02d}" for label in range(21)]
    videos = {f"{c}/Film_{i}_{c}_f_nm_np1_fr_goo_{i}.avi": b"x" for c in names for i in range(4)}
    videos["class_03/Other_class_03_f_nm_np1_fr_goo_0.avi"] = b"y"
    own = {f"splits/{c}_test_split1.txt": b"a.avi 1\n" for c in names}
    official = {f"lists/{k}": v for k, v in contents(hmdb51_root / HMDB51_LISTS).items()}

    def source(folder: str, pattern: str, files: dict[str, bytes]) -> Source:
        server.files[f"/{folder}.zip"] = archive = make_zip(files)
        mirror = Mirror(f"{server.url}/{folder}.zip", len(archive), None)
        return Source((folder,), pattern, 1_000_000, (mirror,))

    clips = source("ReCompress_Videos", "*.avi", {f"top/{k}": v for k, v in videos.items()})
    monkeypatch.setitem(SOURCES, "jhmdb", (source("splits", "*_test_split[123].txt", own), clips))
    lists = source(HMDB51_LISTS, "*_test_split[123].txt", official)
    monkeypatch.setitem(SOURCES, "hmdb51", (lists, SOURCES["hmdb51"][1]))
    return videos


def test_jhmdb_gets_the_official_tags_of_hmdb51(jhmdb, server, tmp_path, monkeypatch, capsys):
    root = tmp_path / "data-root" / "jhmdb"
    monkeypatch.setattr(sys, "argv", ["hstlib", "download", "jhmdb"])
    main()
    assert contents(root / "ReCompress_Videos") == jhmdb
    assert len(contents(root / "splits")) == 21
    assert [entry.path for entry in server.log] == [
        "/ReCompress_Videos.zip",
        f"/{HMDB51_LISTS}.zip",
        "/splits.zip",
    ]
    lines = (root / "splits.csv").read_text().splitlines()
    assert lines[0] == "file,class,source,split1,split2,split3"
    assert lines[1:4] == [
        "class_00/Film_0_class_00_f_nm_np1_fr_goo_0.avi,class_00,Film_0,1,0,2",
        "class_00/Film_1_class_00_f_nm_np1_fr_goo_1.avi,class_00,Film_1,1,1,0",
        "class_00/Film_2_class_00_f_nm_np1_fr_goo_2.avi,class_00,Film_2,2,1,1",
    ]
    assert "class_03/Other_class_03_f_nm_np1_fr_goo_0.avi,class_03,Other,-1,-1,-1" in lines
    data = load_dataset("jhmdb", split=2)
    assert (len(data.train), len(data.test), len(data.missing)) == (42, 21, 0)
    assert str(root) in capsys.readouterr().out


def test_a_list_of_the_users_is_kept(jhmdb, server, tmp_path):
    root = tmp_path / "data-root" / "jhmdb"
    root.mkdir(parents=True)
    (root / "splits.csv").write_text("mine")
    download_dataset("jhmdb")
    assert (root / "splits.csv").read_text() == "mine"
    assert [entry.path for entry in server.log] == ["/ReCompress_Videos.zip", "/splits.zip"]


def test_without_hmdb51s_lists_it_says_what_is_needed(jhmdb, server, tmp_path):
    del server.files[f"/{HMDB51_LISTS}.zip"]
    root = tmp_path / "data-root"
    with pytest.raises(ValueError, match=f"{root}/hmdb51/{HMDB51_LISTS}: .*unpack it there"):
        download_dataset("jhmdb")
    assert contents(root / "jhmdb" / "ReCompress_Videos") == jhmdb
    assert not (root / "jhmdb" / "splits.csv").exists()


def test_jhmdbs_own_lists_are_not_needed(jhmdb, server, hmdb51_root, tmp_path, caplog):
    """Without a network: an archive of the user's, and HMDB51's lists on disk."""
    server.files.clear()
    shutil.copytree(hmdb51_root / HMDB51_LISTS, tmp_path / "data-root" / "hmdb51" / HMDB51_LISTS)
    (tmp_path / "mine.zip").write_bytes(make_zip({f"top/{k}": v for k, v in jhmdb.items()}))
    root = download_dataset("jhmdb", tmp_path / "mine.zip")
    assert len(load_dataset("jhmdb").paths) in (84, 85)
    assert not (root / "splits").exists()
    assert "J-HMDB's own splits are not available" in caplog.text


def test_videos_of_another_data_set_get_no_list(hmdb51_root, tmp_path):
    (tmp_path / "videos" / "Run").mkdir(parents=True)
    (tmp_path / "videos" / "Run" / "v_Run_g01_c01.avi").write_bytes(b"x")
    with pytest.raises(ValueError, match="name none of its 1 files"):
        write_splits(tmp_path / "splits.csv", tmp_path / "videos", hmdb51_root)
    assert not (tmp_path / "splits.csv").exists()


def test_jhmdbs_own_splits_are_a_list_to_train_on(tmp_path):
    names = {f"{c}/Film{i}_{c}_u_nm_np1_ba_goo_{i}.avi": i for c in ("run", "walk") for i in (1, 2)}
    for name in (*names, "walk/A@b_walk_u_nm_np1_ba_goo_3.avi"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "splits").mkdir()
    for split in (1, 2, 3):
        for c in ("run", "walk"):
            lines = [
                f"{name.split('/')[1]} {i if split < 3 else 3 - i}"
                for name, i in names.items()
                if name.startswith(c)
            ]
            file = tmp_path / "splits" / f"{c}_test_split{split}.txt"
            file.write_text("\n".join(lines) + "\n")
    out = tmp_path / "videos" / "own_splits.csv"
    write_own_splits(out, tmp_path / "videos", tmp_path / "splits")
    for split, tested in ((1, "Film2"), (3, "Film1")):
        data = load_dataset("folder", out, split)
        assert [s.group for s in data.test] == [f"{tested}_run", f"{tested}_walk"]
        assert len(data.train) == 2 and not data.missing and len(data.paths) == 4
    (tmp_path / "splits" / "run_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(ValueError, match=r"run_test_split1\.txt:1: 'a\.avi 3' is not"):
        write_own_splits(out, tmp_path / "videos", tmp_path / "splits")


def test_the_list_of_the_real_files(real_clips, tmp_path):
    real, hmdb51 = real_clips / "jhmdb" / "splits.csv", real_clips / "hmdb51"
    if not real.is_file() or not (hmdb51 / HMDB51_LISTS).is_dir():
        pytest.skip(f"{real} or HMDB51's lists are not here")
    published = {}
    for row in csv.DictReader(real.read_text("utf-8").splitlines()):
        row["file"] = row["file"].removesuffix(".mp4") + ".avi"
        published[row["file"]] = row
        path = tmp_path / "videos" / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_splits(tmp_path / "splits.csv", tmp_path / "videos", hmdb51)
    rows = list(csv.DictReader((tmp_path / "splits.csv").read_text("utf-8").splitlines()))
    assert [row["file"] for row in rows] == [*published]
    for row in rows:
        expected = published[row["file"]]
        if f"_{row['class']}_" in f"{row['source']}_":  # theirs ends where the class first comes
            row["source"] = f"{row['source']}_".partition(f"_{row['class']}_")[0]
        assert row == expected
    for split, sizes in ((1, (665, 257)), (2, (505, 248)), (3, (511, 241))):
        data = load_dataset("jhmdb", tmp_path, split)
        assert (len(data.train), len(data.test)) == sizes


# Unpacking


@pytest.fixture
def unpacked(tmp_path):
    """Unpack bytes as an archive, and return the unpacked files."""

    def call(archive: bytes, limit: int = 1_000_000) -> dict[str, bytes]:
        (tmp_path / "archive").write_bytes(archive)
        target = tmp_path / "root" / "videos"
        target.parent.mkdir()
        try:
            unpack.unpack(tmp_path / "archive", target, "*.avi", limit)
        finally:
            assert {p.name for p in target.parent.iterdir()} <= {"videos"}
            assert {p.name for p in tmp_path.iterdir()} <= {"archive", "root", "bin"}
        return contents(target)

    return call


FLAT = {"a.avi": b"a" * 99, "b.avi": b"b" * 99}
CLASSES = {"Jump/a.avi": b"a" * 99, "Run/b.avi": b"b" * 99}


@pytest.mark.parametrize("top", ["", "UCF101/", "data/UCF-101/"])
@pytest.mark.parametrize("files", [FLAT, CLASSES])
def test_top_folders_do_not_matter(unpacked, top, files):
    assert unpacked(make_zip({top + name: content for name, content in files.items()})) == files


def test_what_is_not_wanted_stays_packed(unpacked):
    extra = {"README.txt": b"r", "__MACOSX/top/Run/._b.avi": b"m", "top/old.rar": b"Rar!"}
    assert unpacked(make_zip({f"top/{k}": v for k, v in CLASSES.items()} | extra)) == CLASSES


def test_new_folders_are_readable_by_others(unpacked, tmp_path):
    unpacked(make_zip(CLASSES))
    reference = tmp_path / "root" / "reference"
    reference.mkdir()
    assert (tmp_path / "root" / "videos").stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize(
    "name",
    ["../out.avi", "top/../../out.avi", "/out.avi", "C:\\out.avi", "..\\out.avi", "\\out.avi"],
)
def test_paths_out_of_the_folder_are_refused(unpacked, name):
    with pytest.raises(ValueError, match="archive: .*out.avi' leads out of the folder"):
        unpacked(make_zip(CLASSES | {name: b"x"}))


@pytest.mark.parametrize("mode", [0o120777, 0o020666])
def test_links_and_devices_are_refused(unpacked, mode):
    info = zipfile.ZipInfo("Run/link.avi")
    info.external_attr = mode << 16
    with pytest.raises(ValueError, match="'Run/link.avi' is a link or device"):
        unpacked(make_zip(CLASSES | {info: b"/etc/passwd"}))


def test_a_zip_bomb_is_refused(unpacked):
    bomb = make_zip({"a.avi": bytes(500_000), "b.avi": b""}, zipfile.ZIP_DEFLATED)
    with pytest.raises(
        ValueError, match="unpacks to 500,000 bytes, more than the .* that make sense"
    ):
        unpacked(bomb)


def test_more_than_expected_is_refused(unpacked):
    with pytest.raises(ValueError, match="unpacks to 198 bytes, more than the 197"):
        unpacked(make_zip(CLASSES), limit=197)


def test_a_declared_size_is_not_exceeded(unpacked, monkeypatch):
    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(
        shutil, "copyfileobj", lambda read, write: [copy(read, write), written.append(write.tell())]
    )
    lie = make_zip({"a.avi": bytes(500_000)}, zipfile.ZIP_DEFLATED).replace(
        struct.pack("<I", 500_000), struct.pack("<I", 500)
    )
    with pytest.raises(ValueError, match="cannot be unpacked: Bad CRC-32 for file 'a.avi'"):
        unpacked(lie)
    assert sum(written) <= 500


@pytest.mark.parametrize(
    "damage", [lambda z: z[:-30], lambda z: z.replace(b"a" * 99, b"z" * 99), lambda z: z[:9]]
)
def test_a_damaged_zip_is_refused(unpacked, damage):
    with pytest.raises(ValueError, match="archive: cannot be unpacked"):
        unpacked(damage(make_zip(CLASSES)))


def test_an_encrypted_zip_is_refused(unpacked):
    locked = bytearray(make_zip(CLASSES))
    for start in (b"PK\3\4", b"PK\1\2"):
        at = locked.index(start) + (6 if start == b"PK\3\4" else 8)
        locked[at] |= 1
    with pytest.raises(ValueError, match="cannot be unpacked: .* encrypted"):
        unpacked(bytes(locked))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_content_of_every_method_is_refused(unpacked, method):
    damaged = bytearray(make_zip({"a.avi": random.Random(0).randbytes(5000)}, method))
    start = damaged.index(b"a.avi") + 60
    damaged[start : start + 800] = bytes(800)
    with pytest.raises(ValueError, match="archive: cannot be unpacked: .*; use another archive"):
        unpacked(bytes(damaged))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300 + ".avi", "File name too long, 'xxx"),
        ("d/" * 5000 + "a.avi", "File name too long"),
        ("Run/b.avi/c.avi", "File exists"),
        ("Run/b.avi/d/c.avi", "Not a directory"),
    ],
    ids=["name", "path", "folder", "folders"],
)
def test_names_that_cannot_be_stored_are_refused(unpacked, name, reason):
    with pytest.raises(ValueError, match=f"archive: cannot be unpacked: {reason}") as error:
        unpacked(make_zip(CLASSES | {name: b"x"}))
    assert len(str(error.value)) < 300


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(unpacked):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for content in (b"1", b"2"):
            archive.writestr("Run/b.avi", content)
    with pytest.raises(ValueError, match="cannot be unpacked: .*File exists.*b.avi"):
        unpacked(packed.getvalue())


@pytest.mark.parametrize("archive", [b"", b"<html>", b"\x1f\x8b\x08\x00"])
def test_other_kinds_are_refused(unpacked, archive):
    with pytest.raises(ValueError, match=f"{re.escape(repr(archive[:4]))}, so it is neither zip"):
        unpacked(archive)


def test_an_archive_without_videos_is_refused(unpacked):
    with pytest.raises(ValueError, match=r"holds no \*\.avi"):
        unpacked(make_zip({"README.txt": b"r"}))


# RAR


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Make a shell script the program that unpacks compressed RARs."""

    def call(script: str) -> None:
        (tmp_path / "bin").mkdir()
        checks = 'case "$*" in "-inul -?") exit 0; esac'
        (tmp_path / "bin" / "unrar").write_text(f"#!/bin/sh\n{checks}\n{script}\n")
        (tmp_path / "bin" / "unrar").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return call


@pytest.fixture(params=["nothing to decompress", "unar", "unrar"])
def program(request, monkeypatch):
    """Unpack without a program what is not compressed, or all by one program if it is installed."""
    if request.param == "nothing to decompress":
        return request.getfixturevalue("stub")("exit 9")
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(rarfile, "FORCE_TOOL", True)
    unused = "UNRAR_TOOL" if request.param == "unar" else "UNAR_TOOL"
    monkeypatch.setattr(rarfile, unused, "not installed")


def test_a_rar_is_unpacked(program, unpacked):
    names = {f"hmdb51_org/{k}": v for k, v in CLASSES.items()}
    assert unpacked(make_rar(names)) == CLASSES


@pytest.mark.parametrize("top", ["", "hmdb51_org/"])
def test_a_rar_of_rars_is_unpacked(program, unpacked, top):
    inner = {"Jump": make_rar({"Jump/a.avi": b"a" * 99}), "Run": make_rar({"Run/b.avi": b"b" * 99})}
    assert unpacked(make_rar({f"{top}{k}.rar": v for k, v in inner.items()})) == CLASSES


def test_rars_in_a_rar_are_limited_together(stub, unpacked):
    stub("head -c 4000 /dev/zero")
    inner = {f"{i}.rar": make_rar({f"{i}.avi": bytes(4000)}, packed=b"small") for i in range(2)}
    with pytest.raises(ValueError, match="1.rar: unpacks to 4,000 bytes, more than the 3,999"):
        unpacked(make_rar(inner), limit=7999)


def test_names_of_hmdb51_survive(program, unpacked):
    files = {f"Run/#1 Film! (A&B);x_{i}.avi": b"a" for i in range(2)}
    assert unpacked(make_rar(files | {"Jump/a.avi": b"a"})) == files | {"Jump/a.avi": b"a"}


@pytest.mark.parametrize("to", ["b.avi", "/etc/passwd"])
def test_a_link_in_a_rar_is_refused(program, unpacked, to):
    with pytest.raises(ValueError, match="link.avi' is a link or device"):
        unpacked(make_rar(CLASSES, links={"Run/link.avi": to}))


def test_a_hard_link_in_a_rar_is_refused(stub, unpacked):
    stub("exit 9")
    with pytest.raises(ValueError, match="'b.avi' is a link or device"):
        unpacked(make_rar5_hard_link("a.avi", b"a" * 99, "b.avi"))


@pytest.mark.parametrize("name", ["../../../out.avi", "/tmp/out-of-the-folder.avi"])
def test_a_rar_writes_nothing_out_of_the_folder(program, unpacked, name):
    with pytest.raises(ValueError, match="archive: .*avi' leads out of the folder"):
        unpacked(make_rar(CLASSES | {name: b"x"}))
    assert not Path("/tmp/out-of-the-folder.avi").exists()


def test_a_rar_over_the_limit_is_refused(program, unpacked):
    with pytest.raises(ValueError, match="unpacks to 198 bytes, more than the 197"):
        unpacked(make_rar(CLASSES), limit=197)


@pytest.mark.parametrize(
    "damage", [lambda r: r.replace(b"a" * 99, b"z" * 99), lambda r: r[:-60], lambda r: r[:60]]
)
def test_a_damaged_rar_is_refused(program, unpacked, damage):
    with pytest.raises(ValueError, match="archive: cannot be unpacked"):
        unpacked(damage(make_rar(CLASSES)))


def test_a_program_unpacks_what_is_compressed(stub, unpacked):
    stub("printf %099d 7")
    content = b"%099d" % 7
    assert unpacked(make_rar({"a.avi": content}, packed=b"small")) == {"a.avi": content}


@pytest.mark.parametrize(
    "script", ["exit 3", "echo short", "while echo 0123456789; do :; done"], ids=str.split
)
def test_a_program_that_fails_or_writes_on_and_on_is_noticed(stub, unpacked, script):
    stub(script)
    with pytest.raises(ValueError, match="archive: cannot be unpacked"):
        unpacked(make_rar({"a.avi": b"a" * 99}, packed=b"small"))


def test_rar_without_a_program_is_not_even_fetched(offer, server, root, monkeypatch, tmp_path):
    offer(("/videos.rar", make_rar(VIDEOS)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match="RAR needs unrar or unar.*apt install unar.*brew install unar"
    ):
        download_dataset("ucf101")
    assert [entry.path for entry in server.log] == ["/lists.zip"]


def test_a_rar_is_fetched_and_unpacked(program, offer, root):
    offer(("/videos.rar", make_rar(VIDEOS)), hashed=False)
    download_dataset("ucf101")
    assert_complete(root)
