import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
import torch

from hstlib.commands.predict import stream
from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.clips import clip_indices, cut_clips
from hstlib.data.container import VideoError
from hstlib.data.flow import optical_flow
from hstlib.data.video import nearest_frames, read_video
from hstlib.inference.predictor import Predictor
from hstlib.inference.source import SourceError, nearest_frames_so_far, shown
from hstlib.inference.stream import read_windows
from hstlib.model.registry import build_model

CLIP = ClipConfig(size=32)
CONFIG = TrainConfig(model="hst", backbone="demo", size=32)


@pytest.fixture
def predictor() -> Predictor:
    model = build_model("hst", 2, "demo")
    model(torch.randn(4, 3, 16, 32, 32), torch.randn(4, 2, 16, 32, 32))  # running statistics
    return Predictor(model, CONFIG, ["left", "right"])


@pytest.fixture
def address(tmp_path):
    """Where the files of the test's folder are served over HTTP."""
    handler = partial(QuietHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def send_frames(file: BinaryIO, frames: np.ndarray, rate: int = 25) -> None:
    """Write an MPEG transport stream as slowly as a camera does."""
    with av.open(file, "w", "mpegts") as sent:
        height, width = frames.shape[1:3]
        video = sent.add_stream("mpeg2video", rate, width=width, height=height)
        video.pix_fmt, video.bit_rate = "yuv420p", 4_000_000
        begin = time.monotonic()
        for number, frame in enumerate(frames):
            sent.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            file.flush()
            time.sleep(max(0, begin + number / rate - time.monotonic()))
        sent.mux(video.encode())


def serve_once(answer: Callable[[BinaryIO], None], scheme: str) -> str:
    """Answer the first caller in a thread of its own; returns the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with (
            suppress(OSError),  # the caller has had enough
            listener,
            listener.accept()[0] as connection,
            connection.makefile("rwb") as file,
        ):
            answer(file)

    threading.Thread(target=serve, daemon=True).start()
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


def send_in_real_time(frames: np.ndarray) -> str:
    return serve_once(lambda file: send_frames(file, frames), "tcp")


def send_over_rtsp(frames: np.ndarray) -> str:
    return serve_once(lambda file: answer_rtsp(file, frames), "rtsp")


def answer_rtsp(file: BinaryIO, frames: np.ndarray) -> None:
    """Play the part of a camera: answer the requests, then send packets."""
    session = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
    answers = {
        "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(session)}\r\n\r\n"
        f"{session}",
        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        "PLAY": "Session: 1\r\n\r\n",
    }
    method = ""
    while method != "PLAY":
        method = file.readline().decode().partition(" ")[0]
        lines = iter(lambda: file.readline().decode().strip(), "")
        number = next(line for line in [*lines] if line.startswith("CSeq"))
        file.write(f"RTSP/1.0 200 OK\r\n{number}\r\n{answers[method]}".encode())
        file.flush()
    send_frames(RtpFile(file), frames)


class RtpFile:
    """Writes an MPEG transport stream as RTP packets inside of RTSP (RFC 2326, 10.12)."""

    def __init__(self, file: BinaryIO):
        self.file, self.number = file, 0

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), 7 * 188):
            clock = int(time.monotonic() * 90_000) & 0xFFFFFFFF
            packet = struct.pack(">BBHII", 0x80, 33, self.number & 0xFFFF, clock, 1)
            packet += bytes(data[start : start + 7 * 188])
            self.file.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            self.number += 1
        return len(data)

    def flush(self) -> None:
        self.file.flush()


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("fps", [16.0, 7.3, 60.0])
def test_frames_chosen_on_arrival_are_those_chosen_from_the_whole_file(count, fps):
    times = np.cumsum(np.random.default_rng(count).uniform(0.001, 0.3, count))
    times -= times[0]
    chosen = list(nearest_frames_so_far(zip(times.tolist(), range(count), strict=True), fps))
    assert [number for number, _ in chosen] == list(range(len(chosen)))
    assert [frame for _, frame in chosen] == nearest_frames(times, fps).tolist()


def test_a_frame_is_given_as_soon_as_the_next_one_has_arrived():
    arrived = []

    def arrive():
        for number in range(10):
            arrived.append(number)
            yield number / 16, number

    for number, frame in nearest_frames_so_far(arrive(), 16.0):
        assert number == frame and (len(arrived) == frame + 2 or len(arrived) == 10)


@pytest.mark.parametrize("over_http", [False, True], ids=["file", "http"])
@pytest.mark.parametrize(
    ("count", "rate", "every", "starts"),
    [
        (70, 25, 0.5, [0, 8, 16, 24]),  # 44.8 frames at 16 Hz; 24 + 16 + the one after it
        (50, 25, 1 / 16, [*range(17)]),  # 32 frames; the last window has no frame after it
        (41, 10, 2.0, [0, 32]),  # 65.6 frames, each shown more than once
    ],
)
def test_windows_are_the_clips_of_the_whole_file(
    tmp_path, video_file, moving, address, over_http, count, rate, every, starts
):
    path = video_file(tmp_path / "a.avi", moving(seed=1, count=count), fps=rate)
    whole = read_video(path, size=CLIP.size, fps=CLIP.fps, fit=CLIP.fit)
    source = f"{address}/a.avi" if over_http else str(path)
    windows = list(read_windows(source, CLIP, every))
    assert [round(16 * window.start) for window in windows] == starts
    for window, start in zip(windows, starts, strict=True):
        indices = clip_indices(whole.length, start, CLIP)
        frames = whole.frames[indices[:-1]]
        following = whole.frames[indices[-1]] if indices[-1] >= 0 else None
        expected = optical_flow(frames, following, CLIP.flow).astype(np.float16)
        np.testing.assert_array_equal(window.frames, frames)
        np.testing.assert_array_equal(window.flow, expected)
        assert window.end == window.start + 1 and window.read is None and window.skipped == 0


@pytest.mark.parametrize("count", [1, 2, 9, 24, 25])
def test_a_short_file_gives_one_window_that_is_its_clip(
    tmp_path, video_file, moving, predictor, count
):
    path = video_file(tmp_path / "short.avi", moving(seed=2, count=count))
    clip = cut_clips(path, CLIP)
    (window,) = read_windows(str(path), CLIP, 1.0)
    np.testing.assert_array_equal(window.frames, clip.frames[0])
    np.testing.assert_array_equal(window.flow, clip.flow[0])
    (prediction,) = predictor.watch(path)
    assert prediction.start == 0 and prediction.end == min(1, prediction.end)
    assert prediction.top == predictor(path).top and prediction.delay is None


def test_a_real_clip_is_watched_as_it_is_predicted(real_clips, predictor, tmp_path):
    path = next((real_clips / "kinetics").glob("*.mp4"))
    whole = read_video(path, size=CLIP.size, fps=CLIP.fps, fit=CLIP.fit)
    start = (whole.length - 16) // 2  # of the clip that represents a whole video
    *_, window = (
        w for w in read_windows(str(path), CLIP, start / 16) if round(16 * w.start) == start
    )
    clip = cut_clips(path, CLIP)
    np.testing.assert_array_equal(window.frames, clip.frames[0])
    np.testing.assert_array_equal(window.flow, clip.flow[0])


def test_a_live_source_is_read_to_its_newest_frame_whatever_its_reader_does(moving, predictor):
    frames = moving(seed=3, count=100)  # four seconds
    windows = []
    for window in predictor.watch(send_in_real_time(frames), every=1 / 16):
        windows.append(window)
        time.sleep(0.3)
    starts = [round(16 * window.start) for window in windows]
    assert all(later > earlier for earlier, later in zip(starts, starts[1:], strict=False))
    assert len(windows) + sum(window.skipped for window in windows) == starts[-1] + 1
    assert sum(window.skipped for window in windows) > len(windows)
    assert windows[-1].end > 3.8
    assert all(window.delay >= window.compute > 0 for window in windows)


@pytest.mark.parametrize("send", [send_in_real_time, send_over_rtsp])
def test_a_live_window_has_the_frames_of_its_time(moving, send):
    frames = moving(seed=4, count=50, height=32)
    windows = list(read_windows(send(frames), CLIP, 0.25))
    assert windows and all(window.read <= window.ready for window in windows)
    for window in windows:
        differences = abs(frames.astype(int) - window.frames[0].astype(int)).mean((1, 2, 3))
        assert differences.argmin() == pytest.approx(25 * window.start, abs=0.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rtsp://user:secret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live: cannot be read (Conn"),
        ("http://127.0.0.1:9/a.mp4", "http://127.0.0.1:9/a.mp4: cannot be read (Connection"),
        ("nope://127.0.0.1", "nope://127.0.0.1: cannot be read (Protocol not found)"),
        ("987", "camera 987: "),
    ],
)
def test_a_source_that_cannot_be_reached_is_one_line(source, message):
    with pytest.raises(SourceError) as error:
        list(read_windows(source, CLIP, 0.5))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"a\.mp4: does not exist"):
        list(read_windows(str(tmp_path / "a.mp4"), CLIP, 0.5))


def test_a_source_that_sends_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("hstlib.inference.source.TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(SourceError, match=r"sent nothing for 0\.3 s"):
            list(read_windows(source, CLIP, 0.5))


def test_a_window_needs_time_and_consecutive_frames():
    with pytest.raises(ValueError, match="every is 0 seconds, it must be positive"):
        next(read_windows("a.avi", CLIP, 0))
    with pytest.raises(ValueError, match="sampling is 'uniform', its clips span whole videos"):
        next(read_windows("a.avi", ClipConfig(sampling="uniform"), 0.5))


def test_a_reader_that_stops_early_leaves_no_thread(tmp_path, video_file, moving):
    path = video_file(tmp_path / "a.avi", moving(seed=1, count=200))
    windows = read_windows(str(path), CLIP, 0.5)
    next(windows)
    windows.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("reader of")]


def test_names_and_passwords_are_not_shown():
    assert shown("rtsp://user:p:w@host/a@b") == "rtsp://host/a@b"
    assert shown("0") == "camera 0" and shown("a@b.avi") == "a@b.avi"


def test_the_command_prints_json_lines_and_the_speed(
    finished_run, tmp_path, video_file, moving, capsys
):
    path = video_file(tmp_path / "a.avi", moving(seed=1, count=60))
    stream(str(path), finished_run.checkpoint, top=1)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["start"], line["end"]) for line in lines] == [(0, 1), (0.5, 1.5), (1, 2)]
    assert all(len(line["top"]) == 1 and line["compute"] > 0 for line in lines)
    assert all(line["delay"] is None and line["skipped"] == 0 for line in lines)
    assert re.fullmatch(
        rf"{path}: 3 windows, 0 left out; compute \d+ ms \(95 % within \d+ ms\)\n", err
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_stream_cleanly(finished_run, moving):
    address = send_in_real_time(np.concatenate([moving(seed=3, count=100)] * 20))
    code = "import sys; from pathlib import Path; from hstlib.commands.predict import stream\n"
    code += "stream(sys.argv[1], Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, address, finished_run.checkpoint]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=Path.home()) as process:
        first = process.stdout.readline()  # arrives at once, not when the stream ends
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert all(json.loads(line)["delay"] > 0 for line in [first, *out.splitlines()])
    assert re.fullmatch(r"tcp://127.0.0.1:\d+: \d+ windows, .* delay \d+ ms .*\n", err)
