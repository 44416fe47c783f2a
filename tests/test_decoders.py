"""OpenCV beside a second decoder, PyAV, on real clips: both give the same frames."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from hstlib.data.video import read_video

pytest.importorskip("av", reason="PyAV, the second decoder, is in the `test` extra")
decoders = importlib.import_module("decoders")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
STORED = json.loads((BENCHMARKS / "results/decoders.json").read_text())["rows"]
CLIPS = {
    "HMDB51": "hmdb51/hmdb51_org/*/*.avi",
    "UCF101": "ucf101/UCF-101/*/*.avi",
    "UT-Interaction": "ut_interaction/videos/*/seq01_*.avi",
    "Kinetics": "kinetics/*.mp4",
}


@pytest.fixture(scope="module", params=CLIPS)
def decoded(request, real_clips) -> list[tuple]:
    """Path, OpenCV's and PyAV's frames of each clip of a data set."""
    paths = sorted(real_clips.glob(CLIPS[request.param]))
    assert paths
    return [(path, decoders.decode_opencv(path), decoders.decode_pyav(path)) for path in paths]


def test_both_decode_the_same_frames(decoded):
    for _, ours, theirs in decoded:
        assert len(ours.frames) == len(theirs.frames) and ours.fps == pytest.approx(theirs.fps)
        difference = decoders.describe(decoders.difference_histogram(ours.frames, theirs.frames))
        assert difference["mean"] < 0.5 and difference["p99"] <= 3
        change = decoders.mean_change(ours.frames)
        assert change > 2 * difference["mean"] + 0.5, "a frame could be its neighbour"


def test_the_library_chooses_and_resizes_the_same_frames(decoded):
    for path, _, theirs in decoded:
        indices = decoders.indices_by_count(len(theirs.frames), theirs.fps)
        clip = read_video(path, size=56)
        assert np.array_equal(clip.sources, indices)
        wanted = np.stack([decoders.resize(theirs.frames[i], 56) for i in indices])
        # FFmpeg resizes here, OpenCV there: areas are averaged by both, at other precision.
        assert np.abs(clip.frames.astype(int) - wanted).mean() < 2.5


def test_frames_that_a_header_announces_in_vain_are_empty_packets(decoded):
    for path, ours, theirs in decoded:
        missing = decoders.empty_packets(path)
        assert ours.announced == theirs.announced == len(ours.frames) + missing


def test_packets_are_evenly_spaced_so_counting_frames_gives_their_times(decoded):
    assert all(decoders.evenly_spaced(theirs.packet_times, theirs.fps) for _, _, theirs in decoded)


def test_timestamps_that_are_not_evenly_spaced_put_frames_into_a_wrong_order(decoded):
    for _, _, theirs in decoded:
        by_stamp = [theirs.frames[i] for i in theirs.timestamps.argsort(kind="stable")]
        if not decoders.evenly_spaced(theirs.timestamps, theirs.fps):
            assert (np.diff(theirs.timestamps) < 0).any()
            assert decoders.mean_change(by_stamp) > decoders.mean_change(theirs.frames)


def test_choices_by_hand():
    assert decoders.indices_by_count(9, 32, fps=16).tolist() == [0, 2, 4, 6, 8]
    assert decoders.indices_by_count(4, 8, fps=16).tolist() == [0, 1, 1, 2, 2, 3, 3]
    timestamps = np.array([1.0, 1.1, 1.5, 1.6])
    assert decoders.indices_by_timestamp(timestamps, 5, fps=5).tolist() == [0, 1, 2, 3, 3]


def test_describe_by_hand():
    a, b = np.zeros((1, 100), np.uint8), np.zeros((1, 100), np.uint8)
    b[0, :2] = 10, 40
    described = decoders.describe(decoders.difference_histogram([a], [b]))
    assert described == {"mean": 0.5, "p99": 10, "max": 40}


def test_stored_comparison_covers_the_clips_and_names_none():
    assert [row["data_set"] for row in STORED] == list(decoders.DATA_SETS)
    assert [row["files"] for row in STORED] == [3, 4, 60, 1]
    text = (BENCHMARKS / "results/decoders.json").read_text()
    assert "/" not in text and ".avi" not in text
