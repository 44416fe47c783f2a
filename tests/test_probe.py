import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hstlib.commands.probe import probe_report, report_lines
from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.clips import Clips
from hstlib.data.container import VideoError
from hstlib.data.datasets import Sample, VideoSet
from hstlib.data.flow import draw_pair, end_point_error, optical_flow
from hstlib.inference.probe import PROBES, draw_texture, move_texture, probe

SIZE = 32
CONFIG = TrainConfig(model="r3d", backbone="demo", size=SIZE)


class DrawnClips:
    """Half of the videos are red, half are blue; half move to the right, half to the left."""

    config = ClipConfig(size=SIZE)

    def read_all(self, path: Path) -> Clips:
        if path.stem == "broken":
            raise VideoError(path, "missing", "does not exist")
        seed, colour, direction = path.stem.split("-")
        rng = np.random.default_rng(int(seed))
        wide = draw_texture(SIZE + 32, rng) / 2
        wide[..., 0 if colour == "red" else 2] += 100
        starts = range(16, 0, -1) if direction == "right" else range(16)
        frames = np.stack([wide[:SIZE, s : s + SIZE] for s in starts]).clip(0, 255)
        frames = frames.astype(np.uint8)
        flow = optical_flow(frames).astype(np.float16)
        sources = np.arange(17, dtype=np.int32)[None]
        return Clips(frames[None], flow[None], sources, sources / 16)


class Colour(nn.Module):
    """Classify by the colour of the frames."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, clips, flow):
        means = clips.mean((2, 3, 4))
        return self.scale * torch.stack([means[:, 0] - 0.5, means[:, 2] - 0.5], 1)


class Direction(Colour):
    """Classify by the mean horizontal flow."""

    def forward(self, clips, flow):
        x = flow[:, 0].mean((1, 2, 3))
        return self.scale * torch.stack([x, -x], 1)


def data(classes: tuple[str, str], count: int = 12) -> VideoSet:
    test = []
    for number in range(count):
        label = number % 2
        other = ("red", "blue")[number // 2 % 2], ("right", "left")[number // 2 % 2]
        colour, direction = other
        if classes == ("red", "blue"):
            colour = classes[label]
        else:
            direction = classes[label]
        test.append(Sample(Path(f"{number}-{colour}-{direction}.avi"), label, f"g{number}"))
    return VideoSet("drawn", classes, (), tuple(test))


def top1(model: nn.Module, classes: tuple[str, str]) -> dict[str, float]:
    correct = probe(model, CONFIG, data(classes), DrawnClips())
    assert list(correct) == list(PROBES)
    return {name: float(right.mean()) for name, right in correct.items()}


def test_a_model_of_motion_lives_by_the_flow():
    accuracy = top1(Direction(), ("right", "left"))
    assert accuracy["original"] == accuracy["motion only"] == 1
    assert accuracy["frames shuffled, flow kept"] == 1
    assert accuracy["time reversed"] == 0
    # the same answer for every clip is right for half of them
    assert accuracy["one frame"] == accuracy["flow removed"] == accuracy["neither"] == 0.5
    assert 0.1 <= accuracy["frames shuffled"] <= 0.9


def test_a_model_of_colours_needs_no_motion():
    accuracy = top1(Colour(), ("red", "blue"))
    without = ("motion only", "neither")
    assert all(accuracy[name] == 1 for name in PROBES if name not in without)
    assert all(0.1 <= accuracy[name] <= 0.9 for name in without)


def test_the_same_seed_gives_the_same_clips_whatever_the_order():
    videos = data(("right", "left"), 6)
    turned = VideoSet("drawn", videos.classes, (), videos.test[::-1])
    first, again = (probe(Direction(), CONFIG, videos, DrawnClips(), seed=3) for _ in range(2))
    backwards = probe(Direction(), CONFIG, turned, DrawnClips(), seed=3)
    for name in PROBES:
        assert (first[name] == again[name]).all()
        assert (first[name] == backwards[name][::-1]).all()


def test_a_video_that_cannot_be_read_is_wrong():
    broken = VideoSet("drawn", ("red", "blue"), (), (Sample(Path("broken.avi"), 0, "g"),))
    assert not any(right.any() for right in probe(Colour(), CONFIG, broken, DrawnClips()).values())


def test_the_texture_moves_as_the_flow_says_and_does_not_blur():
    _, field = draw_pair(np.array([[1, 0, 1.5], [0, 1, -0.5]]), size=48)
    flow = np.repeat(field[:, None], 16, axis=1)
    frames = move_texture(draw_texture(48, np.random.default_rng(0)), flow)
    found = optical_flow(frames)[:, :-1, 12:36, 12:36]
    truth = flow[:, :-1, 12:36, 12:36]
    assert np.median(end_point_error(found, truth)) < 0.3
    inner = frames[:, 12:36, 12:36].astype(float)
    assert inner[15].std() > 0.8 * inner[0].std()


def test_the_texture_is_noise_in_every_frame():
    pictures = [draw_texture(48, np.random.default_rng(seed)) for seed in (0, 1)]
    assert abs(np.corrcoef([picture.ravel() for picture in pictures])[0, 1]) < 0.1
    still = move_texture(pictures[0], np.zeros((2, 4, 48, 48)))
    assert (still == still[0]).all()


@pytest.fixture
def in_process(monkeypatch):
    def map_here(function, items, workers=None, seconds=None):
        return ((item, function(item)) for item in items)

    monkeypatch.setattr("hstlib.data.shortcuts.map_in_processes", map_here)


def test_a_report_has_probes_references_and_chance(finished_run, in_its_data_root, in_process):
    report = probe_report(finished_run.checkpoint, "folder")
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["original"]["top1"] == pytest.approx(100 * finished_run.row.test["top1"], abs=0.01)
    assert list(rows)[: len(PROBES)] == list(PROBES) and rows["mean flow"]["top1"] == 100
    assert report["chance"] == 50 and report["videos"] == len(rows["original"]["correct"])
    assert all(row["low"] <= row["top1"] <= row["high"] for row in rows.values())
    assert "difference" not in rows["original"] and len(rows["one frame"]["difference"]) == 3
    lines = report_lines(json.loads(json.dumps(report)))
    assert lines[-1].split() == ["chance", "50.0"] and "without a network:" in lines
    assert f"{report['run_id']} on moves: " in lines[0]


def test_other_classes_are_refused(finished_run, ucf101_root, in_its_data_root):
    with pytest.raises(ValueError, match="knows classes .*left.*ucf101 has"):
        probe_report(finished_run.checkpoint, "ucf101", str(ucf101_root))
