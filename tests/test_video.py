import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data.clips import _round_to, clip_indices, clip_starts, cut_clips
from hstlib.data.container import VideoError, printable
from hstlib.data.pictures import square_picture
from hstlib.data.video import inspect_video, read_video


def grey_steps(count: int) -> np.ndarray:
    """Frame k has grey level 4 k."""
    return np.stack([np.full((24, 32, 3), 4 * k, np.uint8) for k in range(count)])


@pytest.mark.parametrize("count", [1, 2, 16, 37])
def test_every_frame_of_a_file_is_decoded(video_file, tmp_path, count):
    path = video_file(tmp_path / "a.avi", grey_steps(count), fps=25)
    video = read_video(path, size=16, fps=25)
    assert video.info.frames == len(video.frames) == video.length == count
    assert video.fps == 25 and video.info.rate == pytest.approx(25)
    assert (video.info.width, video.info.height) == (32, 24)


def test_frames_have_the_asked_shape_and_type(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(10), fps=16)
    video = read_video(path, size=18)
    assert video.frames.shape == (10, 18, 18, 3) and video.frames.dtype == np.uint8


def test_frames_come_in_order(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(60), fps=25)
    levels = read_video(path, size=16, fps=25).frames.mean((1, 2, 3))
    assert (np.diff(levels) > 0).all()
    assert np.abs(levels - 4 * np.arange(60)).max() < 4


@pytest.mark.parametrize("colour", [(200, 0, 40), (20, 220, 60), (0, 60, 230)])
def test_channels_are_red_green_blue(video_file, tmp_path, colour):
    frames = np.full((3, 24, 32, 3), colour, np.uint8)
    video = read_video(video_file(tmp_path / "a.avi", frames), size=16)
    assert np.abs(video.frames.astype(int) - colour).max() < 12


@pytest.mark.parametrize(
    ("source_fps", "kept"),
    [
        (25, [0, 2, 3, 5, 6, 8, 9, 11, 13, 14, 16]),
        (30, [0, 2, 4, 6, 8, 9, 11, 13, 15, 17, 19]),
        (16, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (8, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)
def test_resampling_to_16_fps_keeps_these_frames(video_file, tmp_path, source_fps, kept):
    path = video_file(tmp_path / "a.avi", grey_steps(60), fps=source_fps)
    every = read_video(path, size=16, fps=source_fps).frames
    resampled = read_video(path, size=16, fps=16).frames
    assert np.array_equal(resampled[: len(kept)], every[kept])


@pytest.mark.parametrize("source_fps", [8, 12.5, 24, 25, 29.97, 30, 50])
def test_resampling_keeps_the_frame_nearest_in_time(video_file, tmp_path, source_fps):
    path = video_file(tmp_path / "a.avi", grey_steps(60), fps=source_fps)
    every = read_video(path, size=16, fps=source_fps).frames[:, 0, 0, 0].astype(int)
    levels = read_video(path, size=16, fps=16).frames[:, 0, 0, 0]
    shown = np.array([np.flatnonzero(every == level)[0] for level in levels]) / source_fps
    wanted = np.arange(len(levels)) / 16
    assert np.abs(shown - wanted).max() <= 0.5 / source_fps + 1e-3
    assert len(levels) == pytest.approx(60 / source_fps * 16, abs=1)


def white(height: int, width: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((height, width, 3), 255, np.uint8), "rgb24")


def test_letterbox_keeps_the_aspect_on_black():
    wide = square_picture(white(20, 40), 1.0, 24, "letterbox")
    assert wide.shape == (24, 24, 3)
    assert (wide[6:18] == 255).all() and not wide[:6].any() and not wide[18:].any()
    tall = square_picture(white(40, 20), 1.0, 24, "letterbox")
    assert np.array_equal(tall, wide.transpose(1, 0, 2))


def test_letterbox_counts_the_aspect_of_pixels():
    square = square_picture(white(20, 20), 2.0, 24, "letterbox")
    assert np.array_equal(square, square_picture(white(20, 40), 1.0, 24, "letterbox"))


def test_stretch_fills_the_square():
    assert (square_picture(white(20, 40), 1.0, 24, "stretch") == 255).all()


def test_letterbox_of_an_extreme_aspect_keeps_one_row():
    line = square_picture(white(2, 200), 1.0, 16, "letterbox")
    assert line.any((1, 2)).sum() == 1


def test_read_video_letterboxes(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", np.full((3, 24, 48, 3), 200, np.uint8))
    frames = read_video(path, size=16, fit="letterbox").frames
    assert not frames[:, :4].any() and not frames[:, 12:].any()
    assert (frames[:, 4:12] > 180).all()


@pytest.mark.parametrize(
    ("length", "clips", "starts"),
    [(48, 1, [16]), (48, 3, [0, 16, 32]), (48, 2, [0, 32]), (10, 2, [0, 0]), (16, 1, [0])],
)
def test_clip_starts_by_hand(length, clips, starts):
    assert clip_starts(length, 16, clips) == starts


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40, 101])
@pytest.mark.parametrize("clips", [1, 2, 5])
def test_clips_are_inside_the_video_and_symmetric(length, clips):
    starts = clip_starts(length, 16, clips)
    last = max(0, length - 16)
    assert len(starts) == clips and min(starts) >= 0 and max(starts) <= last
    assert all(abs(a + b - last) <= 1 for a, b in zip(starts, starts[::-1], strict=True))


def test_clip_is_consecutive_frames_and_the_one_that_follows():
    assert clip_indices(40, 7, ClipConfig()).tolist() == [*range(7, 23), 23]


def test_clip_at_the_end_has_no_following_frame():
    assert clip_indices(40, 24, ClipConfig()).tolist() == [*range(24, 40), -1]


def test_a_short_video_repeats_its_last_frame():
    assert clip_indices(5, 0, ClipConfig()).tolist() == [0, 1, 2, 3, *[4] * 12, -1]


@pytest.mark.parametrize("length", [1, 5, 16, 17, 200])
def test_uniform_sampling_spans_the_video(length):
    indices = clip_indices(length, 99, ClipConfig(sampling="uniform"))
    assert len(indices) == 17 and indices[-1] == -1
    assert (indices[0], indices[15]) == (0, length - 1)
    assert np.ptp(np.diff(indices[:16])) <= 1


def test_one_clip_is_the_same_as_among_all(video_file, tmp_path, moving):
    path = video_file(tmp_path / "a.avi", moving(seed=0, count=60), fps=16)
    config = ClipConfig(size=16, clips_per_video=3)
    every = cut_clips(path, config)
    for index in range(3):
        for one, of_all in zip(cut_clips(path, config, clip_index=index), every, strict=True):
            assert np.array_equal(one, of_all[index : index + 1])


def test_flow_is_rounded_as_numpy_does():
    odd = [0, -0.0, 1e-8, 6e-8, -3e-8, 1e-5, 65504, -2049, 2051]
    values = np.random.default_rng(0).normal(0, 4, (2, 3, 32, 32)).astype(np.float32)
    values.flat[: len(odd)] = odd
    rounded = np.empty(values.shape, np.float16)
    _round_to(rounded, values)
    assert rounded.tobytes() == values.astype(np.float16).tobytes()


def test_clips_are_cut_without_pytorch():
    """It takes most of the memory, and of the time to start, of a process that uses it."""
    code = "import sys, hstlib.data.store, hstlib.data.verify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("index", [-1, 3])
def test_a_clip_out_of_range_is_shown_with_its_file(tmp_path, index):
    config = ClipConfig(size=16, clips_per_video=3)
    with pytest.raises(ValueError, match=rf"a\.avi: clip_index is {index}, .* use 0 to 2"):
        cut_clips(tmp_path / "a.avi", config, clip_index=index)


def test_inspecting_counts_what_reading_reads(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(37), fps=12.5)
    info = inspect_video(path)
    assert info == read_video(path, size=16).info
    assert (info.frames, info.width, info.height, info.codec) == (37, 32, 24, "mpeg4")
    assert (info.rate, info.seconds) == pytest.approx((12.5, 37 / 12.5))
    assert not info.variable and info.kind is info.reason is None


def test_only_chosen_frames_are_kept(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(60), fps=16)
    every = read_video(path, size=16)
    some = read_video(path, size=16, choose=lambda length: [3, 3, length - 1])
    assert np.array_equal(some.frames, every.frames[[3, 3, 59]])
    assert some.sources.tolist() == [3, 3, 59] and some.length == every.length == 60
    assert some.times == pytest.approx(np.array([3, 3, 59]) / 16)


def test_a_file_that_may_not_be_read_is_named(video_file, tmp_path, monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(path))

    path = video_file(tmp_path / "a.avi", grey_steps(3))
    for method in ("open", "is_file"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(VideoError, match=r"a\.avi: cannot be read \(Permission denied\)"):
                read_video(path, size=16)


def test_any_bytes_in_a_name_are_read(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(3))
    odd = path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.avi"))
    assert inspect_video(odd).frames == 3
    assert printable(odd) == rf"{tmp_path}/caf\xe9.avi"


def test_a_name_is_shown_on_one_line():
    assert printable("a\nb\u2028c\u202fd\x85.avi") == r"a\nb\u2028c" + "\u202f" + r"d\x85.avi"


def test_a_relative_name_with_a_colon_is_read(video_file, tmp_path, monkeypatch):
    video_file(tmp_path / "a.avi", grey_steps(3)).rename(tmp_path / "rec-12:30:05.avi")
    monkeypatch.chdir(tmp_path)
    assert inspect_video("rec-12:30:05.avi").frames == 3


def test_other_alphabets_are_read(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(3)).rename(tmp_path / "прыжок 跳.avi")
    assert inspect_video(path).frames == 3 and printable(path) == str(path)


def test_a_missing_file_is_named(tmp_path):
    for read in (lambda path: read_video(path, size=16), inspect_video):
        with pytest.raises(VideoError, match=r"none\.avi: does not exist") as error:
            read(tmp_path / "none.avi")
        assert error.value.kind == "missing"


def test_a_pipe_is_not_a_missing_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.avi")
    with pytest.raises(VideoError, match=r"pipe\.avi: is not a regular file") as error:
        read_video(tmp_path / "pipe.avi", size=16)
    assert error.value.kind == "not a video"


@pytest.mark.parametrize(("size", "fps"), [(0, 16.0), (16, 0.0), (16, -1.0), (16, float("nan"))])
def test_a_size_or_rate_that_is_not_positive_is_shown(tmp_path, size, fps):
    with pytest.raises(ValueError, match=f"size {size} and fps {fps:g} must both be positive"):
        read_video(tmp_path / "a.avi", size=size, fps=fps)


def test_an_unknown_fit_is_shown(video_file, tmp_path):
    path = video_file(tmp_path / "a.avi", grey_steps(3))
    with pytest.raises(ValueError, match="fit 'crop' is unknown; use 'stretch' or 'letterbox'"):
        read_video(path, size=16, fit="crop")


def test_a_folder_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="is a folder, not a file"):
        read_video(tmp_path, size=16)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty, 0 bytes"), (b"<!DOCTYPE html>", "not a video")]
)
def test_a_file_without_video_says_so(tmp_path, content, reason):
    path = tmp_path / "page.avi"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"page\.avi: {reason}"):
        read_video(path, size=16)


def test_a_truncated_file_says_how_many_frames_are_left(video_file, tmp_path, moving):
    path = video_file(tmp_path / "a.avi", moving(seed=0, count=60, height=96, width=128))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        VideoError, match=r"a\.avi: .* bytes are missing .*, \d+ frames decode"
    ) as e:
        read_video(path, size=16)
    assert e.value.kind == "cut off"


def test_the_error_is_all_that_a_broken_file_prints(video_file, tmp_path, moving):
    whole = video_file(
        tmp_path / "a.avi", moving(seed=0, count=60, height=96, width=128)
    ).read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.avi").write_bytes(b"<!DOCTYPE html>")
    script = """
import sys
import hstlib.data.store
from hstlib.data.container import VideoError
from hstlib.data.video import read_video
for path in sys.argv[1:]:
    try:
        read_video(path, size=16)
    except VideoError as error:
        print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path / "a.avi", tmp_path / "b.avi"],
        env={k: v for k, v in os.environ.items() if not k.startswith("OPENCV")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert len(ended.stdout.splitlines()) == 2
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.avi", "bytes are missing at the end, 73 frames decode"),
        ("bit_rot.avi", "26 of 62 frames decode"),
        ("header_only.avi", "bytes are missing at the end, and no frame decodes"),
        ("empty.avi", "0 bytes"),
        ("html_page.avi", "not a video"),
        ("random_bytes.avi", "not a video"),
    ],
)
def test_real_broken_files_are_refused_by_name(real_clips, name, reason):
    path = real_clips / "broken" / name
    with pytest.raises(VideoError) as error:
        read_video(path, size=16)
    assert str(error.value).startswith(f"{path}: ") and reason in str(error.value)


def test_real_clips_decode(real_clips):
    files = [
        path
        for folder in ("hmdb51", "ucf101", "kinetics", "ut_interaction")
        for path in sorted((real_clips / folder).rglob("*"))
        if path.suffix in {".avi", ".mp4"}
    ]
    assert len(files) == 3 + 4 + 1 + 60
    for path in files:
        video = read_video(path, size=16)
        assert len(video.frames) == pytest.approx(16 * video.info.seconds, abs=1), path
        assert video.frames.std() > 1, path


def test_real_clip_is_decoded_to_its_last_frame(real_clips):
    name = "Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"
    path = Path(real_clips, "hmdb51", "hmdb51_org", "cartwheel", name)
    video = read_video(path, size=16)
    assert (video.info.frames, video.info.width, video.info.height) == (83, 320, 240)
