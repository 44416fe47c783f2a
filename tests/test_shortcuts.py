import json
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hstlib.book.plots import shortcut_figure
from hstlib.config import TrainConfig
from hstlib.data.container import VideoError
from hstlib.data.datasets import Sample, VideoSet, load_dataset
from hstlib.data.reports import (
    best_shortcut,
    read_best,
    report_file,
    shortcut_report,
    split_id_here,
)
from hstlib.data.shortcuts import (
    SHORTCUTS,
    UNSCALED,
    nearest_classes,
    read_features,
    shortcut_features,
    shortcuts,
)


@pytest.fixture
def in_process(monkeypatch):
    """Read videos in this process, without the seconds to start others."""

    def map_here(function, items, workers=None, seconds=None):
        return ((item, function(item)) for item in items)

    monkeypatch.setattr("hstlib.data.shortcuts.map_in_processes", map_here)


def test_features_of_a_video(video_file, moving, tmp_path):
    path = video_file(tmp_path / "a.avi", moving(seed=0, count=28, height=24, width=32))
    features = shortcut_features(path)
    assert list(features) == list(SHORTCUTS)
    assert [len(feature) for feature in features.values()] == [2, 3, 512, 1728, 108, 24]
    assert all(feature.dtype == np.float32 for feature in features.values())
    np.testing.assert_allclose(features["length"], [28, 28 / 25], rtol=1e-3)
    np.testing.assert_array_equal(features["geometry"], [32, 24, 28])
    assert features["colour histogram"].sum() == pytest.approx(1)
    middle = features["middle frame"].reshape(36, 48)
    expected = cv2.cvtColor(moving(seed=0)[14], cv2.COLOR_RGB2GRAY)
    assert np.corrcoef(middle.ravel(), cv2.resize(expected, (48, 36)).ravel())[0, 1] > 0.9
    x, y = features["mean flow"].reshape(2, 12)
    assert x.mean() > 1 > abs(y.mean())  # the texture moves to the right


def test_a_still_video_has_no_motion(video_file, tmp_path):
    frames = np.full((30, 24, 32, 3), (200, 40, 40), np.uint8)
    features = shortcut_features(video_file(tmp_path / "still.avi", frames))
    assert features["motion energy"].max() == 0
    assert abs(features["mean flow"]).max() == 0
    bins = features["colour histogram"].reshape(8, 8, 8)
    assert bins[6, 1, 1] == 1  # 200 // 32, 40 // 32, 40 // 32


def test_the_histogram_is_that_of_the_background(video_file, tmp_path):
    frames = np.full((32, 24, 32, 3), 100, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, number : number + 4] = 250  # a bar that crosses the picture
    features = shortcut_features(video_file(tmp_path / "passing.avi", frames))
    assert features["colour histogram"].reshape(8, 8, 8)[3, 3, 3] > 0.95
    assert features["motion energy"].min() > 0


@pytest.mark.parametrize("count", [1, 3, 200])
def test_a_video_may_have_any_length(video_file, moving, tmp_path, count):
    features = shortcut_features(video_file(tmp_path / "a.avi", moving(seed=0, count=count)))
    assert features["length"][0] == count
    assert all(np.isfinite(feature).all() for feature in features.values())
    assert (features["motion energy"].max() > 0) == (count > 1)


def test_a_fault_names_the_file(tmp_path):
    with pytest.raises(VideoError, match="none.avi"):
        shortcut_features(tmp_path / "none.avi")


def samples(labels, letter: str) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"{letter}{number}.avi"), label, f"{letter}{number}")
        for number, label in enumerate(labels)
    )


def test_neighbours_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    data = VideoSet(
        "drawn", ("a", "b", "c"), samples([0, 1, 2] * 7, "train"), samples([0, 1, 2], "test")
    )
    features = {
        sample.path: {name: rng.normal(size=5).astype(np.float32) for name in SHORTCUTS}
        for sample in data.samples
    }
    predicted = nearest_classes(data, features)
    for name in SHORTCUTS:
        train = [features[sample.path][name] for sample in data.train]
        deviation = [1.0] * 5 if name in UNSCALED else np.std(train, axis=0)
        for sample, label in zip(data.test, predicted[name], strict=True):
            distances = [
                sum(
                    abs(a - b) / d
                    for a, b, d in zip(features[sample.path][name], one, deviation, strict=True)
                )
                for one in train
            ]
            assert label == data.train[int(np.argmin(distances))].label


def features_of(numbers: dict[str, list[float]]) -> dict:
    """The same feature for every shortcut, by file."""
    return {
        Path(name): {shortcut: np.array(values, np.float32) for shortcut in SHORTCUTS}
        for name, values in numbers.items()
    }


def test_the_test_set_does_not_change_the_scale():
    data = VideoSet("drawn", ("a", "b"), samples([0, 1], "train"), samples([0], "test"))
    train = {"train0.avi": [0, 100, 5], "train1.avi": [1, 0, 5]}
    # In units of the training videos: 1.2 + 0.6 from a, 0.8 + 1.4 from b; the last is constant.
    predicted = nearest_classes(data, features_of(train | {"test0.avi": [0.6, 70, 1e6]}))
    assert predicted["length"].tolist() == [0]
    # Another video in the test set must not change the class of the first.
    data = replace(data, test=samples([0, 0], "test"))
    both = train | {"test0.avi": [0.6, 70, 1e6], "test1.avi": [1e6, 0, 0]}
    assert nearest_classes(data, features_of(both))["length"].tolist() == [0, 1]


def test_of_equally_near_videos_most_decide():
    data = VideoSet("drawn", ("a", "b"), samples([0, 1, 1, 0], "train"), samples([0], "test"))
    numbers = {"train0.avi": [4], "train1.avi": [4], "train2.avi": [4], "train3.avi": [9]}
    predicted = nearest_classes(data, features_of(numbers | {"test0.avi": [5]}))
    assert predicted["length"].tolist() == [1]


def test_a_video_that_cannot_be_read_is_wrong_and_no_neighbour():
    data = VideoSet("drawn", ("a", "b"), samples([0, 1], "train"), samples([1, 1], "test"))
    features = features_of({"train1.avi": [1], "test0.avi": [0]})
    assert nearest_classes(data, features)["length"].tolist() == [1, -1]
    assert shortcuts(data, features)["length"] == 0.5


def test_no_readable_training_video_is_an_error():
    data = VideoSet("drawn", ("a", "b"), samples([0, 1], "train"), samples([1], "test"))
    with pytest.raises(ValueError, match="none of 2 training videos can be read.*verify"):
        nearest_classes(data, features_of({"test0.avi": [0]}))


def test_flow_finds_the_direction_that_pictures_do_not_show(class_folders, in_process):
    top1 = shortcuts(load_dataset("folder", class_folders))
    assert top1["mean flow"] == 1
    assert list(top1) == [*SHORTCUTS, "chance"]
    # Both classes have the same files but for the order of the frames.
    assert top1["length"] == top1["geometry"] == top1["chance"] == 0.5


def test_a_clip_of_a_video_finds_the_others(class_folders, in_process):
    data = load_dataset("folder", class_folders, protocol="random-by-clip", clips_per_video=8)
    assert shortcuts(data)["middle frame"] > 0.9


def test_the_command_prints_writes_and_draws(cli, in_process, class_folders, tmp_path):
    root = tmp_path / "moves"
    root.mkdir()
    for path in sorted(class_folders.glob("*/*.avi")):
        copy = root / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = root / "left" / "seq00_1.avi"
    broken.write_bytes(broken.read_bytes()[:4000])
    target, picture = tmp_path / "out" / "s.json", tmp_path / "s.png"
    lines = cli("shortcuts", "folder", "--data-dir", root, "--json", target, "--picture", picture)
    report = json.loads(target.read_text())
    assert report["top1"]["mean flow"] == 0.75  # the broken file is one of four test videos
    assert report["test"] == 4 and report["train"] == 8 and report["classes"] == 2
    (fault,) = report["faults"]
    assert str(broken) in fault and fault in lines
    assert "mean flow         75.0%  mean optical flow, x and y, at 4 x 3" in lines
    assert "files that cannot be used: 1; those in the test set are wrong" in lines
    assert cv2.imread(str(picture)).shape[2] == 3


def test_the_best_shortcut_stands_beside_the_results_of_its_split(in_process, class_folders):
    config = TrainConfig(dataset="folder", data_dir=str(class_folders), split=2)
    data = load_dataset("folder", class_folders, 2)
    command = f"python -m hstlib shortcuts folder --data-dir {class_folders} --split 2"
    assert best_shortcut(config, data.split_id) == (
        f"without a network: not measured; run `{command}`"
    )
    report = shortcut_report("folder", class_folders, 2)
    assert report["top1"]["mean flow"] == 1
    assert best_shortcut(config, data.split_id) == (
        "without a network: 100.0% by mean flow; chance: 50.0%"
    )
    assert read_best(split_id_here(config)) == ("mean flow", 1.0, 0.5)
    other = load_dataset("folder", class_folders, 1).split_id
    assert "not measured" in best_shortcut(config, other)


def test_lists_that_are_not_here_have_no_report(tmp_path):
    config = TrainConfig(dataset="ucf101", data_dir=str(tmp_path))
    assert split_id_here(config) == "" and read_best("") is None


def test_the_command_names_all_that_a_split_is_made_of(tmp_path):
    config = TrainConfig(dataset="jhmdb", protocol="random-by-clip", clips_per_video=8, split=3)
    assert best_shortcut(config, "unknown").endswith(
        "`python -m hstlib shortcuts jhmdb --split 3 --protocol random-by-clip --clips-per-video 8`"
    )


def test_drawn_videos_and_smoke_tests_are_no_results():
    assert best_shortcut(TrainConfig(dataset="demo-hmdb51"), "unknown") is None
    assert best_shortcut(TrainConfig(dataset="hmdb51", limit=4), "unknown") is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"top1": {"length": 1}}'])
def test_a_damaged_report_is_named(content):
    file = report_file("0123")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(ValueError, match=r"0123\.json: not a report of `shortcuts`.*delete it"):
        best_shortcut(TrainConfig(), "0123")


def test_where_nothing_can_be_kept_the_report_is_given(
    in_process, class_folders, monkeypatch, tmp_path, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HST_CACHE", str(tmp_path / "file"))
    assert shortcut_report("folder", class_folders)["top1"]["mean flow"] == 1
    assert "not kept for the tables of results (set HST_CACHE)" in caplog.text


def test_many_faults_are_not_all_printed(cli, in_process, ucf101_root):
    lines = cli("shortcuts", "ucf101", "--data-dir", ucf101_root)
    assert lines[-1] == "and 296 more; `python -m hstlib verify` lists all of them"
    assert len(lines) < 20


def test_the_picture_has_a_bar_for_each_shortcut_and_a_line_at_chance():
    figure = shortcut_figure({"length": 0.25, "middle frame": 0.5, "chance": 0.125}, "a title")
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [25, 50]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["length", "middle frame"]
    assert [text.get_text() for text in ax.texts] == ["25.0", "50.0"]
    assert list(ax.lines[0].get_xdata()) == [12.5, 12.5]
    plt.close(figure)


@pytest.mark.slow
def test_the_colours_of_the_scene_leak_through_a_random_split(real_clips):
    folder = real_clips / "jhmdb"
    if not folder.is_dir():
        pytest.skip(f"no J-HMDB at {folder}")
    protocols = "official", "random-by-video"
    official, drawn = (
        [load_dataset("jhmdb", folder, split, protocol=protocol) for split in (1, 2, 3)]
        for protocol in protocols
    )
    features, faults = read_features(drawn[0])
    assert len(features) == 922 and not faults
    for data in official:
        top1 = shortcuts(data, features)
        assert 0.1 < top1["colour histogram"] < 0.25
        assert max(top1.values()) < 0.3
        assert top1["chance"] == 1 / 21
    for data in drawn:
        top1 = shortcuts(data, features)
        assert top1["colour histogram"] == max(top1.values()) > 0.6
