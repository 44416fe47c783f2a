from typing import get_args

import cv2
import numpy as np
import pytest

from hstlib.config import AugmentConfig, ClipConfig
from hstlib.data.augment import augment
from hstlib.data.flow import (
    LEVELS_PER_PIXEL,
    METHODS,
    draw_pair,
    end_point_error,
    flow_parameters,
    optical_flow,
)

FLOWS = [method for method in METHODS if method != "difference"]
ONE_RIGHT_TWO_UP = np.array([[1, 0, 1], [0, 1, -2]])


@pytest.fixture
def frames(moving) -> np.ndarray:
    return moving(seed=0, count=6, height=48, width=48)


@pytest.mark.parametrize("method", FLOWS)
@pytest.mark.parametrize(("x", "y"), [(1, 0), (-1, 0), (0, 1), (0, -1), (2, 1), (-2, -1)])
def test_a_shifted_texture_gives_its_shift(moving, method, x, y):
    wide = moving(seed=1, count=1, height=64, width=64)[0]
    shown = [wide[8 - y * t :, 8 - x * t :][:48, :48] for t in range(4)]
    flow = optical_flow(np.stack(shown), method=method)
    inner = np.median(flow[:, :, 12:-12, 12:-12], axis=(2, 3))
    assert np.abs(inner - [[x], [y]]).max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_shape_and_type(frames, method):
    flow = optical_flow(frames, method=method)
    assert flow.shape == (2, 6, 48, 48) and flow.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
def test_a_still_picture_does_not_move(frames, method):
    assert np.abs(optical_flow(frames[[0, 0, 0]], method=method)).mean() < 0.01


def test_without_a_following_frame_the_last_field_is_repeated(frames):
    flow = optical_flow(frames)
    assert np.array_equal(flow[:, -1], flow[:, -2])


def test_the_following_frame_gives_the_last_field(frames):
    whole, part = optical_flow(frames), optical_flow(frames[:4], frames[4])
    assert np.array_equal(part, whole[:, :4])


def test_a_field_depends_on_its_two_frames_only(frames):
    whole, pair = optical_flow(frames), optical_flow(frames[2:4])
    assert np.array_equal(pair[:, 0], whole[:, 2])


def test_one_frame_has_no_flow(frames):
    with pytest.raises(ValueError, match=r"at least 2 frames, got shape \(1, 48, 48, 3\)"):
        optical_flow(frames[:1])


def test_an_unknown_method_is_shown(frames):
    with pytest.raises(ValueError, match="'tvl1' is unknown; use one of dis, .*difference"):
        optical_flow(frames, method="tvl1")
    with pytest.raises(ValueError, match="'tvl1' is unknown; use one of dis, .*difference"):
        flow_parameters("tvl1")


def test_the_settings_know_every_method():
    assert get_args(ClipConfig.model_fields["flow"].annotation) == METHODS


def test_difference_is_the_change_of_grey_level(frames):
    field = optical_flow(frames, method="difference")
    for t in range(5):
        before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[t : t + 2])
        change = np.abs(after.astype(float) - before)
        assert np.allclose(field[1, t] * LEVELS_PER_PIXEL, change)
    assert not field[0].any() and field[1].max() > 0.5


def test_difference_has_no_direction_where_flow_has(frames):
    pair, back = frames[:2], frames[1::-1]
    assert np.array_equal(*(optical_flow(p, method="difference") for p in (pair, back)))
    forth, turned = (optical_flow(p)[0, 0, 12:-12, 12:-12].mean() for p in (pair, back))
    assert forth > 0.8 and turned < -0.8


def test_difference_of_a_mirrored_clip_is_the_mirrored_difference(frames):
    field = optical_flow(frames, method="difference")
    mirrored = optical_flow(frames[:, :, ::-1], method="difference")
    flipped = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shown, its_field = augment(frames, field, AugmentConfig(flip=True), rng)
        flipped.add(not np.array_equal(shown, frames))
        assert np.array_equal(its_field, field if np.array_equal(shown, frames) else mirrored)
    assert flipped == {True, False}


def test_drawn_texture_is_where_its_motion_says():
    (first, second), truth = draw_pair(ONE_RIGHT_TWO_UP, size=40)
    assert np.array_equal(second[:-2, 1:], first[2:, :-1])
    assert np.array_equal(truth[:, 7, 9], [1, -2]) and np.ptp(truth, axis=(1, 2)).max() == 0


def test_drawn_turn_has_its_truth_around_the_centre():
    quarter = np.array([[0, -1, 0], [1, 0, 0]])  # x to y: clockwise, as y points down
    (first, second), truth = draw_pair(quarter, size=41)
    assert np.abs(second.astype(int) - np.rot90(first, -1)).max() <= 1
    assert np.allclose(truth[:, 20, 20], 0) and np.allclose(truth[:, 20, 30], [-10, 10])


def test_drawn_disc_moves_over_a_still_ground():
    (first, second), truth = draw_pair(ONE_RIGHT_TWO_UP, size=60, disc=10)
    assert np.array_equal(truth[:, 29, 29], [1, -2]) and not truth[:, :15].any()
    assert np.array_equal(first[:15], second[:15])
    assert np.array_equal(second[23:33, 26:36], first[25:35, 25:35])


def test_drawn_contrast_and_brightness():
    faint, _ = draw_pair(ONE_RIGHT_TWO_UP, size=64, contrast=4)
    assert 2 < faint.std() < 6 and abs(faint.mean() - 128) < 3
    brighter, _ = draw_pair(ONE_RIGHT_TWO_UP, size=64, contrast=4, gain=1.25)
    assert np.array_equal(brighter[0], faint[0])
    assert np.abs(brighter[1] - 1.25 * faint[1]).max() < 1.2


def test_a_seed_fixes_the_texture():
    pictures = [draw_pair(ONE_RIGHT_TWO_UP, size=16, seed=s)[0] for s in (0, 0, 1)]
    assert np.array_equal(*pictures[:2]) and not np.array_equal(*pictures[1:])


def test_end_point_error_by_hand():
    flow, truth = np.array([[[4.0, 1.0]], [[6.0, 1.0]]]), np.array([[[1.0, 1.0]], [[2.0, 1.0]]])
    assert np.array_equal(end_point_error(flow, truth), [[5.0, 0.0]])


@pytest.mark.parametrize("method", FLOWS)
def test_error_on_a_drawn_motion_is_a_fraction_of_a_pixel(method):
    frames, truth = draw_pair(ONE_RIGHT_TWO_UP)
    flow = optical_flow(frames, method=method)[:, 0]
    assert end_point_error(flow, truth)[16:-16, 16:-16].mean() < 0.15


@pytest.mark.parametrize("method", METHODS)
def test_threads_do_not_change_the_flow(method):
    frames, _ = draw_pair(ONE_RIGHT_TWO_UP)
    before = cv2.getNumThreads()
    fields = []
    for threads in (1, 3):
        cv2.setNumThreads(threads)
        fields.append(optical_flow(frames, method=method))
    cv2.setNumThreads(before)
    assert np.array_equal(*fields)
