"""OpenCV beside a second decoder, PyAV, on real clips: the choice between them changes nothing."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hstlib.video import read_video, resize_frame

pytest.importorskip("av", reason="PyAV, the second decoder, is in the `test` extra")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
STORED = json.loads((BENCHMARKS / "results/decoders.json").read_text())["rows"]
CLIPS = {
    "HMDB51": "hmdb51/hmdb51_org/*/*.avi",
    "UCF101": "ucf101/UCF-101/*/*.avi",
    "UT-Interaction": "ut_interaction/videos/*/seq01_*.avi",
    "Kinetics": "kinetics/*.mp4",
}


@pytest.fixture(scope="module")
def decoders() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("decoders")


@pytest.fixture(scope="module", params=CLIPS)
def decoded(request, real_clips, decoders) -> list[tuple]:
    """Path, OpenCV's and PyAV's frames of each clip of a data set."""
    paths = sorted(real_clips.glob(CLIPS[request.param]))
    assert paths
    return [(path, decoders.decode_opencv(path), decoders.decode_pyav(path)) for path in paths]


def test_both_decode_the_same_frames(decoded, decoders):
    for _, ours, theirs in decoded:
        assert len(ours.frames) == len(theirs.frames) and ours.fps == pytest.approx(theirs.fps)
        difference = decoders.describe(decoders.histogram(ours.frames, theirs.frames))
        assert difference["mean"] < 0.5 and difference["p99"] <= 3
        assert decoders.change(ours.frames) > 2 * difference["mean"] + 0.5  # not next to each other


def test_the_library_chooses_and_resizes_the_same_frames(decoded, decoders):
    for path, _, theirs in decoded:
        kept = decoders.chosen_by_count(len(theirs.frames), theirs.fps)
        clip = read_video(path, size=56).frames
        wanted = np.stack([resize_frame(theirs.frames[i], 56) for i in kept])
        assert clip.shape == wanted.shape
        assert np.abs(clip.astype(int) - wanted).mean() < 0.5


def test_frames_that_a_header_announces_in_vain_are_empty_packets(decoded, decoders):
    for path, ours, theirs in decoded:
        missing = decoders.empty_packets(path)
        assert ours.announced == theirs.announced == len(ours.frames) + missing


def test_packets_are_evenly_spaced_so_counting_frames_gives_their_times(decoded, decoders):
    assert all(decoders.even(theirs.decoded_at, theirs.fps) for _, _, theirs in decoded)


def test_stamps_that_are_not_evenly_spaced_put_frames_into_a_wrong_order(decoded, decoders):
    for _, _, theirs in decoded:
        by_stamp = [theirs.frames[i] for i in theirs.stamps.argsort(kind="stable")]
        if not decoders.even(theirs.stamps, theirs.fps):
            assert (np.diff(theirs.stamps) < 0).any()
            assert decoders.change(by_stamp) > decoders.change(theirs.frames)


def test_choices_by_hand(decoders):
    assert decoders.chosen_by_count(9, 32, fps=16).tolist() == [0, 2, 4, 6, 8]
    assert decoders.chosen_by_count(4, 8, fps=16).tolist() == [0, 1, 1, 2, 2, 3, 3]
    stamps = np.array([1.0, 1.1, 1.5, 1.6])
    assert decoders.chosen_by_stamp(stamps, 5, fps=5).tolist() == [0, 1, 2, 3, 3]


def test_describe_by_hand(decoders):
    a, b = np.zeros((1, 100), np.uint8), np.zeros((1, 100), np.uint8)
    b[0, :2] = 10, 40
    described = decoders.describe(decoders.histogram([a], [b]))
    assert described == {"mean": 0.5, "p99": 10, "max": 40}


def test_stored_comparison_covers_the_clips_and_names_none(decoders):
    assert [row["data_set"] for row in STORED] == list(decoders.DATA_SETS)
    assert [row["files"] for row in STORED] == [3, 4, 60, 1]
    text = (BENCHMARKS / "results/decoders.json").read_text()
    assert "/" not in text and ".avi" not in text
