import cv2
import numpy as np
import pytest

from hstlib.config import AugmentConfig
from hstlib.data.augment import augment, crop_clip, evaluation_views
from hstlib.data.flow import optical_flow


def clip(size: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (4, size, size, 3), np.uint8)
    return frames, rng.normal(size=(2, 4, size, size)).astype(np.float16)


def draws(frames: np.ndarray, flow: np.ndarray, config: AugmentConfig, count: int = 200):
    return [augment(frames, flow, config, np.random.default_rng(i)) for i in range(count)]


def test_nothing_changes_by_default():
    frames, flow = clip()
    same = augment(frames, flow, AugmentConfig(), np.random.default_rng(0))
    assert same[0] is frames and same[1] is flow


def test_a_crop_is_the_same_square_of_frames_and_flow_and_every_place_is_drawn():
    frames, flow = clip()
    places = set()
    for cut, cut_flow in draws(frames, flow, AugmentConfig(crop_size=17)):
        found = [
            (top, left)
            for top in range(4)
            for left in range(4)
            if np.array_equal(cut, frames[:, top : top + 17, left : left + 17])
        ]
        assert len(found) == 1
        (top, left) = found[0]
        assert np.array_equal(cut_flow, flow[..., top : top + 17, left : left + 17])
        assert np.shares_memory(cut, frames) and np.shares_memory(cut_flow, flow)
        places.add(found[0])
    assert len(places) == 16


def test_half_of_the_clips_are_flipped_and_the_flow_with_them():
    frames, flow = clip()
    flipped = 0
    for seen, seen_flow in draws(frames, flow, AugmentConfig(flip=True)):
        if np.array_equal(seen, frames):
            assert np.array_equal(seen_flow, flow)
            continue
        flipped += 1
        assert np.array_equal(seen, frames[:, :, ::-1])
        assert np.array_equal(seen_flow[0], -flow[0][..., ::-1])
        assert np.array_equal(seen_flow[1], flow[1][..., ::-1])
    assert 70 < flipped < 130


def test_the_flow_of_a_flipped_clip_is_the_flipped_flow():
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (80, 80, 3), np.uint8), (0, 0), 2)
    frames = np.stack([texture[10:58, 20 - 2 * t : 68 - 2 * t] for t in range(4)])
    flow = optical_flow(frames)
    mirrored = next(
        pair
        for seed in range(20)
        for pair in [augment(frames, flow, AugmentConfig(flip=True), np.random.default_rng(seed))]
        if not np.array_equal(pair[0], frames)
    )
    again = optical_flow(np.ascontiguousarray(mirrored[0]))
    inner = np.s_[..., 8:-8, 8:-8]
    assert abs(np.median(flow[0][inner]) - 2) < 0.2
    assert abs(np.median(again[0][inner]) - np.median(mirrored[1][0][inner])) < 0.1
    assert np.median(again[0][inner]) < -1.8


def test_colour_keeps_flow_and_order_of_brightness_and_differs_between_draws():
    frames, flow = clip()
    means = []
    for seen, seen_flow in draws(frames, flow, AugmentConfig(colour_jitter=0.4)):
        assert seen.dtype == np.uint8 and seen_flow is flow
        levels = [seen[frames == level] for level in (30, 120, 220)]
        assert all(len(np.unique(level)) == 1 for level in levels)
        assert levels[0][0] < levels[1][0] < levels[2][0]
        means.append(seen.mean())
    assert max(means) - min(means) > 30


def test_what_is_drawn_does_not_depend_on_what_is_switched_on():
    for i in range(20):
        frames, flow = clip()
        cut, _ = augment(frames, flow, AugmentConfig(crop_size=10), np.random.default_rng(i))
        both, _ = augment(
            frames, flow, AugmentConfig(crop_size=10, flip=True), np.random.default_rng(i)
        )
        assert np.array_equal(both, cut) or np.array_equal(both, cut[:, :, ::-1])


@pytest.mark.parametrize(("crops", "lefts"), [(1, [2]), (3, [0, 2, 4])])
def test_evaluation_cuts_the_centre_or_three_squares(crops, lefts):
    frames, flow = (np.stack([a, b]) for a, b in zip(clip(seed=1), clip(seed=2), strict=True))
    views, flows = evaluation_views(frames, flow, 16, crops)
    assert len(views) == len(flows) == 2 * crops
    for i, left in enumerate(lefts):
        expected = crop_clip(frames, flow, 2, left, 16)
        assert np.array_equal(views[2 * i : 2 * i + 2], expected[0])
        assert np.array_equal(flows[2 * i : 2 * i + 2], expected[1])


@pytest.mark.parametrize("crop_size", [21, 22, 40])
def test_a_crop_that_is_larger_than_the_frames_is_shown(crop_size):
    frames, flow = clip()
    message = f"a crop of {crop_size} pixels .* does not fit in frames of 20 x 20; use a smaller"
    for seed in range(5):
        with pytest.raises(ValueError, match=message):
            augment(frames, flow, AugmentConfig(crop_size=crop_size), np.random.default_rng(seed))
    with pytest.raises(ValueError, match=message):
        evaluation_views(frames[None], flow[None], crop_size, 1)


def test_a_number_of_crops_that_is_not_1_or_3_is_shown():
    frames, flow = (value[None] for value in clip())
    with pytest.raises(ValueError, match="num_crops is 2; use 1 or 3"):
        evaluation_views(frames, flow, 16, 2)


@pytest.mark.parametrize("size", [0, 20])
def test_evaluation_of_whole_frames_copies_nothing(size):
    frames, flow = (value[None] for value in clip())
    views, flows = evaluation_views(frames, flow, size, 3)
    assert views is frames and flows is flow
