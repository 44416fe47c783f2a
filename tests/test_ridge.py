"""The linear references: right values, and no look at a test video."""

from dataclasses import replace

import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data.datasets import load_dataset
from hstlib.data.ridge import (
    DIRECTIONS,
    PIXELS,
    RIDGES,
    fit_and_classify,
    flow_feature,
    frame_feature,
    ridge_classes,
)
from hstlib.data.store import prepare_store


def test_the_middle_frame_is_averaged_over_blocks():
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    frames[8, :2, 2:4, 1] = [[10, 20], [30, 40]]
    feature = frame_feature(frames).reshape(PIXELS, PIXELS, 3)
    assert feature[0, 1, 1] == 25 and feature.sum() == 25


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_flow_is_counted_in_its_direction_cell_and_half(direction):
    flow = np.zeros((2, 4, 8, 8), np.float16)
    angle = 2 * np.pi * direction / DIRECTIONS
    flow[:, 2:, 2:4, 6:8] = 4 * np.array([np.cos(angle), np.sin(angle)])[:, None, None, None]
    feature = flow_feature(flow).reshape(DIRECTIONS, 2, 4, 4)
    np.testing.assert_allclose(feature[direction, 1, 1, 3], 2, rtol=1e-3)
    assert np.count_nonzero(feature) == 1


def test_the_answers_are_those_of_the_normal_equations():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 5)), rng.normal(size=(9, 5))
    labels, groups = np.arange(30) % 3, np.arange(30) // 3
    answers = fit_and_classify(train, labels, groups, test)
    scaled, new = ((rows - train.mean(0)) / train.std(0) for rows in (train, test))
    targets = np.eye(3)[labels]
    expected = [
        (new @ np.linalg.solve(scaled.T @ scaled + penalty * np.eye(5), scaled.T @ targets)).argmax(
            1
        )
        for penalty in (1, 10, 100, 1e3, 1e4, 1e5)
    ]
    assert any((answers == one).all() for one in expected)


def test_the_penalty_is_chosen_on_sources_that_were_left_out():
    """What tells sources apart fits every training row and says nothing of another source."""
    rng = np.random.default_rng(1)
    labels, groups = np.arange(80) // 40, np.arange(80) // 4
    look = 3 * rng.normal(size=(20, 200))[groups]
    train = np.hstack([labels[:, None] + 2 * rng.normal(size=(80, 30)), look])
    unknown = np.arange(200) % 2
    test = unknown[:, None] + 2 * rng.normal(size=(200, 30))
    test = np.hstack([test, 3 * rng.normal(size=(200, 200))])
    by_source = fit_and_classify(train, labels, groups, test)
    by_row = fit_and_classify(train, labels, np.arange(80), test)
    assert (by_source == unknown).mean() > (by_row == unknown).mean()


def test_one_source_is_refused():
    rows = np.zeros((4, 2))
    with pytest.raises(ValueError, match="two sources, not 1"):
        fit_and_classify(rows, np.array([0, 1, 0, 1]), np.zeros(4), rows)


def test_the_flow_tells_what_one_frame_cannot(class_folders, tmp_path, inline_pool):
    data = load_dataset("folder", class_folders)
    store = prepare_store(data.paths, ClipConfig(size=16), tmp_path)
    unreadable = replace(data.test[0], path=class_folders / "gone.avi")
    data = replace(data, test=(*data.test, unreadable))
    truth = np.array([sample.label for sample in data.test[:-1]])
    predicted = ridge_classes(data, store)
    assert predicted.keys() == RIDGES.keys()
    assert predicted["ridge on flow"].tolist() == [*truth, -1]
    assert predicted["ridge on one frame"].tolist() != [*truth, -1]
