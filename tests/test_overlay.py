import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from hstlib.__main__ import main
from hstlib.data import overlay
from hstlib.data.container import VideoError
from hstlib.data.overlay import FONTS, annotate_video, draw_text, put_text
from hstlib.data.video import inspect_video

COUNT, HEIGHT, WIDTH = 30, 64, 96
SPARSE_FONT = str(Path(FONTS[0]).with_name("cmr10.ttf"))  # neither accents nor Cyrillic


@pytest.fixture(scope="module")
def source(tmp_path_factory, video_file, moving) -> Path:
    frames = moving(seed=0, count=COUNT, height=HEIGHT, width=WIDTH)
    return video_file(tmp_path_factory.mktemp("source") / "video.avi", frames, fps=30000 / 1001)


def read(path: Path) -> np.ndarray:
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return np.stack([frame.convert("RGB") for frame in ImageSequence.Iterator(image)])
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def differences(frames: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the mean difference under the label, and away from it."""
    difference = np.abs(frames.astype(float) - others)
    height, width = draw_text("wave 0.93", WIDTH, HEIGHT).shape[:2]
    under = difference[:, :height, :width]
    away = difference.sum() - under.sum()
    return under.mean(), away / (difference.size - under.size)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_a_video_keeps_its_frames_rate_and_size(source, tmp_path, suffix):
    target = tmp_path / "new" / f"labelled{suffix}"
    annotate_video(source, target, "wave", 0.934)
    before, after = inspect_video(source), inspect_video(target)
    assert (after.frames, after.width, after.height) == (COUNT, WIDTH, HEIGHT)
    assert after.rate == pytest.approx(before.rate, abs=0.01)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    under, away = differences(read(target), read(source))
    assert under > 30 and away < 6


def test_a_gif_lasts_as_long_as_the_video(source, tmp_path):
    target = tmp_path / "labelled.gif"
    annotate_video(source, target, "wave", 0.934)
    with Image.open(target) as image:
        assert image.size == (WIDTH, HEIGHT) and image.n_frames == COUNT // 3
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert sum(durations) == pytest.approx(1001, abs=10)  # ms
    under, away = differences(read(target), read(source)[::3])
    assert under > 30 and away < 6


def test_a_gif_of_a_long_and_large_video_is_limited(source, tmp_path, monkeypatch):
    monkeypatch.setattr(overlay, "GIF_FRAMES", 4)
    monkeypatch.setattr(overlay, "GIF_SIDE", 48)
    annotate_video(source, tmp_path / "small.GIF", "wave", 0.934)
    with Image.open(tmp_path / "small.GIF") as image:
        assert image.size == (48, 32) and image.n_frames == 4
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert durations == [270, 260, 270, 200]


def test_codecs_cut_an_odd_last_row_and_column(tmp_path, source, moving):
    odd = tmp_path / "odd.gif"
    frames = [Image.fromarray(f) for f in moving(seed=1, count=3, height=25, width=33)]
    frames[0].save(odd, save_all=True, append_images=frames[1:], duration=100)
    annotate_video(odd, tmp_path / "even.avi", "wave", 1)
    written = inspect_video(tmp_path / "even.avi")
    assert (written.width, written.height, written.frames) == (32, 24, 3)


@pytest.mark.parametrize("size", [(320, 240), (136, 228), (1920, 1080), (96, 64)])
@pytest.mark.parametrize("text", ["wave 0.93", "BodyWeightSquats 0.07", "presenting " * 4 + "1.00"])
def test_text_fits_with_a_margin(text, size):
    mask = draw_text(text, *size)[..., 0]
    assert mask.shape[0] <= size[1] / 2 and mask.shape[1] <= size[0]
    assert mask.max() > 0.5 and not mask[:, -1].any()


def test_text_grows_with_the_frames():
    heights = [draw_text("wave 0.93", 4 * h // 3, h).shape[0] for h in (120, 240, 480, 960)]
    assert heights == sorted(set(heights))


def test_text_is_drawn_even_on_a_frame_of_one_pixel():
    assert put_text(np.zeros((1, 1, 3), np.uint8), draw_text("wave 0.93", 1, 1)).shape == (1, 1, 3)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_text_is_white_on_dark_whatever_the_video_shows(ground):
    mask = draw_text("wave 0.93", 320, 240)
    frame = put_text(np.full((240, 320, 3), ground, np.uint8), mask)
    corner = frame[: mask.shape[0], : mask.shape[1]]
    assert (corner[mask[..., 0] == 1] == 255).all() and (corner[mask[..., 0] == 0] < 80).all()
    assert (frame[mask.shape[0] :] == ground).all() and (frame[:, mask.shape[1] :] == ground).all()


def test_letters_beyond_ascii_are_drawn(caplog):
    masks = [draw_text(text, 320, 240) for text in ("прыжок", "??????", "\uffff" * 6, "Ärger")]
    assert len({mask.tobytes() for mask in masks}) == 4
    assert [record.args[0] for record in caplog.records] == ["\uffff" * 6]


def test_the_first_font_that_has_all_characters_is_taken(monkeypatch, caplog):
    monkeypatch.setattr(overlay, "FONTS", ("no such font.ttf", SPARSE_FONT, FONTS[0]))
    assert overlay._font_name("wave 0.93") == SPARSE_FONT
    assert overlay._font_name("прыжок 0.93") == FONTS[0]
    monkeypatch.setattr(overlay, "FONTS", (SPARSE_FONT,))
    assert overlay._font_name("прыжок 0.93") == SPARSE_FONT
    assert [record.args for record in caplog.records] == [("прыжок 0.93", SPARSE_FONT)]


def test_another_suffix_is_refused_with_the_known_ones(source, tmp_path):
    with pytest.raises(ValueError, match=r"a\.mkv: suffix '\.mkv' is none of \.mp4.*\.gif"):
        annotate_video(source, tmp_path / "a.mkv", "wave", 1)


def test_the_video_itself_is_not_replaced(source, tmp_path):
    (tmp_path / "link.avi").symlink_to(source)
    with pytest.raises(ValueError, match=r"link\.avi is the video itself"):
        annotate_video(source, tmp_path / "link.avi", "wave", 1)


def test_a_source_that_cannot_be_used_is_refused(source, tmp_path):
    with pytest.raises(VideoError, match=r"none\.avi: does not exist"):
        annotate_video(tmp_path / "none.avi", tmp_path / "a.mp4", "wave", 1)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"damaged\.avi: .* bytes are missing .*, \d+ frames"):
        annotate_video(damaged, tmp_path / "a.mp4", "wave", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.avi"]


@pytest.mark.parametrize("suffix", [".avi", ".gif"])
def test_a_full_disk_leaves_the_old_file(source, tmp_path, monkeypatch, suffix):
    def no_space(*arguments, **settings):
        raise OSError(28, "No space left on device")

    drawn = overlay._drawn_frames
    monkeypatch.setattr(overlay, "_drawn_frames", lambda *a: islice(drawn(*a), 9))
    monkeypatch.setattr(Image.Image, "save", no_space)
    target = tmp_path / f"old{suffix}"
    target.write_text("old")
    reason = "only 9 of 30 frames were written" if suffix == ".avi" else "No space left on device"
    with pytest.raises(OSError, match=rf"old\{suffix}: .*{reason}"):
        annotate_video(source, target, "wave", 1)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_codec_that_opencv_lacks_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(overlay.CODECS, ".avi", "????")
    with pytest.raises(OSError, match=r"a\.avi: OpenCV .* cannot write \?\?\?\? to \.avi"):
        annotate_video(source, tmp_path / "a.avi", "wave", 1)
    assert not list(tmp_path.iterdir())


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["hstlib", *map(str, arguments)])
    main()


def test_predict_writes_its_answer_onto_the_video(
    finished_run, class_folders, tmp_path, monkeypatch, capsys
):
    video = next(class_folders.rglob("*.avi"))
    given = []
    monkeypatch.setattr(overlay, "annotate_video", lambda *answer: given.append(answer))
    call(
        monkeypatch, "predict", video, "--checkpoint", finished_run.checkpoint,
        "--annotated", tmp_path / "a.gif",
    )  # fmt: skip
    path, first, _ = capsys.readouterr().out.split("  ")
    ((source, target, label, probability),) = given
    assert (source, target, f"{label} {probability:.3f}") == (video, tmp_path / "a.gif", first)


def test_predict_annotates_one_video_only(finished_run, class_folders, tmp_path, monkeypatch):
    videos = sorted(class_folders.rglob("*.avi"))[:2]
    with pytest.raises(SystemExit, match="a.mp4 takes one video, not 2"):
        call(
            monkeypatch, "predict", *videos, "--checkpoint", finished_run.checkpoint,
            "--annotated", tmp_path / "a.mp4",
        )  # fmt: skip


def test_predict_refuses_a_suffix_before_it_loads_anything(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"a\.mov: suffix '\.mov' is none of"):
        call(
            monkeypatch, "predict", "no.avi", "--checkpoint", "no.safetensors",
            "--annotated", tmp_path / "a.mov",
        )  # fmt: skip
