"""Frames are chosen by the time at which a player shows them; here they show it themselves."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data.clips import cut_clips
from hstlib.data.container import VideoError
from hstlib.data.video import inspect_video, nearest_frames, read_video

BITS, UNIT = 16, Fraction(1, 90000)  # milliseconds as 4 x 4 black and white cells
CODECS = {
    "mp4": "libx264", "mov": "libx264", "mkv": "libx264", "ts": "libx264", "flv": "libx264",
    "h264": "libx264", "webm": "libvpx", "mpg": "mpeg1video", "avi": "mpeg4", "gif": "gif",
}  # fmt: skip
TICKS = {"gif": 0.01, "mkv": 0.001, "webm": 0.001, "flv": 0.001}
"""Seconds that a container counts time in, where it is coarse."""
GRIDS = {"avi": 1000, "gif": 100}
"""Steps per second at which a frame can begin, where a container knows a fixed rate only."""


def draw(milliseconds: int, size: int = 64) -> np.ndarray:
    cells = np.array([255 * (milliseconds >> bit & 1) for bit in range(BITS)], np.uint8)
    grid = cells.reshape(4, 4).repeat(size // 4, 0).repeat(size // 4, 1)
    return np.repeat(grid[..., None], 3, axis=-1)


def shown_time(frame: np.ndarray) -> float:
    cell = len(frame) // 4
    middles = frame[cell // 2 :: cell, cell // 2 :: cell].mean(-1) > 127
    return sum(int(on) << bit for bit, on in enumerate(middles.ravel())) / 1000


def write(path: Path, times: np.ndarray, rate: Fraction | int = 30, codec: str = "", **options):
    """Write a video whose frame i shows the time times[i] and is shown at it."""
    suffix = path.suffix[1:]
    codec = codec or CODECS[suffix]
    if codec == "libvpx":
        options |= {"deadline": "realtime", "cpu-used": "8"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        # These encoders know a fixed rate only.
        fixed = codec in ("mpeg4", "mpeg1video", "gif") or suffix == "h264"
        unit = 1 / Fraction(rate) if fixed else UNIT
        stream.time_base = stream.codec_context.time_base = unit
        for time in times:
            frame = av.VideoFrame.from_ndarray(draw(round(time * 1000) % 2**BITS), "rgb24")
            frame.pts, frame.time_base = round(time / unit), unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def assert_nearest(path: Path, times: np.ndarray, fps: float = 16, tolerance: float = 0.001):
    video = read_video(path, size=64, fps=fps)
    wanted = np.arange(video.length) / fps
    shown = np.array([shown_time(frame) for frame in video.frames]) - times[0]
    times = times - times[0]
    best = np.abs(times[None] - wanted[:, None]).min(1)
    assert (np.abs(shown - wanted) - best).max() <= tolerance + 0.0005  # times are drawn in ms
    assert video.length == pytest.approx(fps * (times[-1] + np.median(np.diff(times)) / 2), abs=1)
    assert video.info.frames == len(times)
    return video


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 25, Fraction(30000, 1001), 50, 60])
@pytest.mark.parametrize("suffix", CODECS)
def test_constant_rate_in_every_container(tmp_path, suffix, rate):
    if suffix == "gif":
        rate = min(rate, 50)  # its shortest time is two hundredths of a second
    times = np.arange(60) / float(rate)
    path = write(tmp_path / f"a.{suffix}", times, rate)
    video = assert_nearest(path, times, tolerance=TICKS.get(suffix, 0.001))
    assert video.info.timing == ("index" if suffix == "h264" else "timestamps")
    assert video.info.rate == pytest.approx(float(rate), rel=0.01)
    assert video.info.kind is None


@pytest.mark.parametrize("rate", [Fraction(1, 5), 1, 5, 12, 120, 240])
@pytest.mark.parametrize("suffix", [s for s in CODECS if s != "mpg"])  # it has 24 to 60 Hz only
def test_very_slow_and_very_fast_videos(tmp_path, suffix, rate):
    if suffix == "gif":
        rate = min(rate, 50)
    times = np.arange(12 if rate < 2 else 60) / float(rate)
    path = write(tmp_path / f"a.{suffix}", times, rate)
    video = assert_nearest(path, times, tolerance=TICKS.get(suffix, 0.001))
    assert video.info.kind is None
    assert video.info.rate == pytest.approx(float(rate), rel=0.01)


def timings() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a phone that drops to 10 Hz": np.r_[np.arange(0, 2, 1 / 30), np.arange(2, 6, 1 / 10)],
        "jitter": np.cumsum(rng.uniform(0.02, 0.06, 100)).round(3),
        "a screen recording": np.array([0, 0.1, 0.2, 2.5, 2.55, 6.0, 6.1, 9]),
        "a late start": np.arange(1.4, 4, 1 / 25),
    }


@pytest.mark.parametrize("suffix", [s for s in CODECS if s not in ("mpg", "h264")])
@pytest.mark.parametrize("name", timings())
def test_uneven_times(tmp_path, suffix, name):
    times = timings()[name]
    if suffix == "avi":  # its first frame is always at 0
        times = times - times[0]
    path = write(tmp_path / f"a.{suffix}", times, GRIDS.get(suffix, 30))
    info = assert_nearest(path, times, tolerance=TICKS.get(suffix, 0.001)).info
    assert info.timing == "timestamps" and info.kind is None
    assert info.variable == (name != "a late start")
    assert info.largest_gap == pytest.approx(np.diff(times).max(), abs=0.011)


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_frames_that_are_stored_in_another_order(tmp_path, suffix):
    times = np.arange(60) / 30
    codec = "libx264" if suffix == "mp4" else "mpeg4"
    assert_nearest(write(tmp_path / f"a.{suffix}", times, codec=codec, bf="2"), times)


def test_a_clip_of_a_long_video_takes_its_frames_alone(tmp_path):
    times = np.arange(3000) / 16
    path = write(tmp_path / "a.mp4", times, 16)
    clips = cut_clips(path, ClipConfig(size=64, clips_per_video=2))
    assert clips.sources[0].tolist() == list(range(17))
    assert clips.sources[1].tolist() == [*range(2984, 3000), -1]
    assert np.allclose(clips.times[0], times[:17]) and clips.times[1][-1] == -1
    assert [shown_time(frame) for frame in clips.frames[0]] == pytest.approx(times[:16], abs=1e-3)
    assert clips.repeats == 0


def peak_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_file_that_is_too_large_to_keep_is_read_the_same(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", np.arange(40) / 30, bf="2")
    kept = read_video(path, size=16)
    monkeypatch.setattr("hstlib.data.video.MAX_KEPT", 1000)
    again = read_video(path, size=16)
    assert kept.info == again.info and np.array_equal(kept.frames, again.frames)


def test_memory_does_not_grow_with_the_size_of_the_file(tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(720, 1280, 3)).astype(np.uint8)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("rawvideo", rate=16)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "bgr24"
        for _ in range(50):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "bgr24")))
        out.mux(stream.encode())
    assert path.stat().st_size > 130e6
    ends = {"size": 16, "choose": lambda length: [0, length - 1]}
    read_video(path, **ends)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is used now
    before = peak_megabytes()
    assert read_video(path, **ends).sources.tolist() == [0, 49]
    assert peak_megabytes() - before < 40


def test_a_wild_timestamp_asks_for_no_memory_without_end(tmp_path):
    path = write(tmp_path / "a.mkv", np.r_[np.arange(20) / 25, 2e6], 25)
    video = read_video(path, size=16)
    assert (video.info.timing, video.info.frames, video.length) == ("index", 21, 14)


def test_a_short_video_counts_its_repeats(tmp_path):
    path = write(tmp_path / "a.mp4", np.arange(5) / 16, 16)
    assert cut_clips(path, ClipConfig(size=64)).repeats == 11


needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


@needs_ffmpeg
def test_an_edit_list_hides_what_was_cut(tmp_path):
    """The usual way to cut without loss: frames before the cut are stored, and not shown."""
    long = write(tmp_path / "long.mp4", np.arange(300) / 30, g="250", sc_threshold="0")
    ffmpeg("-ss", 6, "-i", long, "-t", 2, "-c", "copy", tmp_path / "cut.mp4")
    video = read_video(tmp_path / "cut.mp4", size=64)
    shown = np.array([shown_time(frame) for frame in video.frames])
    assert video.info.kind is None and video.info.frames == pytest.approx(60, abs=3)
    assert shown[0] == pytest.approx(6, abs=0.05)
    assert np.abs(shown - shown[0] - np.arange(len(shown)) / 16).max() < 0.04


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv", "mpg", "mp4", "webm"])
def test_a_longer_sound_track_is_no_damage(tmp_path, suffix):
    video = write(tmp_path / f"v.{suffix}", np.arange(90) / 30)
    sound = ["-f", "lavfi", "-i", "sine=duration=3.4"]
    codec = {"webm": "libopus", "mkv": "libopus", "mpg": "mp2", "ts": "mp2"}.get(suffix, "aac")
    ffmpeg("-i", video, *sound, "-c:v", "copy", "-c:a", codec, tmp_path / f"a.{suffix}")
    info = inspect_video(tmp_path / f"a.{suffix}")
    assert (info.frames, info.kind) == (90, None)


@needs_ffmpeg
def test_the_default_stream_is_chosen_as_players_do(tmp_path):
    small, film = ("color=blue:s=64x48:r=30:d=2", "testsrc=s=320x240:r=30:d=2")
    inputs = ["-f", "lavfi", "-i", small, "-f", "lavfi", "-i", film, "-map", 0, "-map", 1]
    marks = ["-disposition:v:0", 0, "-disposition:v:1", "default"]
    ffmpeg(*inputs, "-c:v", "libx264", *marks, tmp_path / "a.mkv")
    info = inspect_video(tmp_path / "a.mkv")
    assert (info.width, info.height) == (320, 240)


@needs_ffmpeg
@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, 0)), (270, (-1, -1)), (180, (-1, 0))])
def test_rotation_is_as_players_show_it(tmp_path, degrees, corner):
    """A white upper right quarter; ffmpeg and OpenCV show it in the same corners."""
    frames = "color=black:s=64x32:r=16:d=1,drawbox=x=32:y=0:w=32:h=16:color=white:t=fill"
    ffmpeg("-f", "lavfi", "-i", frames, "-c:v", "libx264", tmp_path / "flat.mp4")
    turn = ["-metadata:s:v:0", f"rotate={degrees}"]
    ffmpeg("-i", tmp_path / "flat.mp4", "-c", "copy", *turn, tmp_path / "a.mp4")
    info = inspect_video(tmp_path / "a.mp4")
    assert (info.width, info.height) == ((64, 32) if degrees == 180 else (32, 64))
    frame = read_video(tmp_path / "a.mp4", size=32).frames[0].mean(-1)
    quarters = {(0, 0), (0, -1), (-1, 0), (-1, -1)}
    assert [at for at in quarters if frame[at] > 127] == [corner]


@needs_ffmpeg
def test_av1_decodes(tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc=s=160x120:r=30:d=1"]
    ffmpeg(*source, "-c:v", "libaom-av1", "-cpu-used", 8, tmp_path / "a.mp4")
    info = inspect_video(tmp_path / "a.mp4")
    assert (info.codec, info.frames, info.kind) == ("av1", 30, None)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_named_so(tmp_path, suffix, share):
    whole = write(tmp_path / f"a.{suffix}", np.arange(90) / 30).read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(whole[: 188 * int(share * len(whole) / 188) + 50])
    with pytest.raises(VideoError) as error:
        read_video(tmp_path / f"b.{suffix}", size=64)
    assert error.value.kind == "cut off" and "bytes are missing" in str(error.value)


@pytest.mark.parametrize("later", [0, 1000])
def test_the_clock_of_a_transport_stream_may_jump(tmp_path, later):
    """Back, as where two recordings were joined, or far ahead; either way the video continues."""
    parts = [write(tmp_path / f"{t}.ts", t + np.arange(50) / 25) for t in (0, later)]
    path = tmp_path / "joined.ts"
    for order in (parts, parts[::-1]):
        path.write_bytes(b"".join(part.read_bytes() for part in order))
        video = read_video(path, size=16)
        assert video.sources.tolist() == nearest_frames(np.arange(100) / 25, 16).tolist()
        info = video.info
        assert (info.frames, info.kind, info.timing) == (100, None, "timestamps")
        assert info.largest_gap == pytest.approx(0.04) and not info.variable


def test_a_slow_transport_stream_has_no_jumps(tmp_path):
    times = np.arange(6) * 15.0
    info = inspect_video(write(tmp_path / "slow.ts", times, rate=1))
    assert info.largest_gap == 15 and info.seconds == 90


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_recording_may_begin_between_two_key_frames(tmp_path, suffix):
    options = {"g": "75", "sc_threshold": "0" if suffix == "ts" else "1000000000"}
    whole = write(tmp_path / f"a.{suffix}", np.arange(225) / 25, 25, **options).read_bytes()
    late = tmp_path / f"late.{suffix}"
    late.write_bytes(whole[len(whole) // 20 :])
    video = read_video(late, size=64)
    assert video.info.kind is None and video.info.frames == 150
    assert shown_time(video.frames[0]) == pytest.approx(3, abs=0.001)


def test_what_was_appended_to_a_file_is_no_damage(tmp_path):
    path = write(tmp_path / "a.mp4", np.arange(30) / 30)
    whole = path.read_bytes()
    for tail in (b"garbage " * 200, b"\0" * 1000, b"\0\1\0\0SEFH"):
        path.write_bytes(whole + tail)
        assert inspect_video(path).kind is None
    path.write_bytes(whole + b"\0\1\0\0mdat")
    assert inspect_video(path).kind == "cut off"


def test_a_sound_file_has_no_video_stream(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream") as error:
        inspect_video(path)
    assert error.value.kind == "no video stream"


def test_jhmdb_is_healthy_and_both_forms_choose_the_same_frames(real_clips):
    originals = sorted((real_clips / "jhmdb/original").rglob("*.avi"))
    assert len(originals) == 7
    for avi in originals:
        mp4 = real_clips / "jhmdb/videos" / avi.parent.name / f"{avi.stem}.mp4"
        first, second = read_video(avi, size=16), read_video(mp4, size=16)
        assert np.array_equal(first.sources, second.sources)
        assert first.info.timing == second.info.timing == "timestamps"
