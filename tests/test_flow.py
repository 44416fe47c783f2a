import numpy as np
import pytest

from hstlib.flow import optical_flow

METHODS = ["dis", "farneback"]


@pytest.fixture
def frames(moving) -> np.ndarray:
    return moving(seed=0, count=6, height=48, width=48)


@pytest.mark.parametrize("method", METHODS)
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
    with pytest.raises(ValueError, match="'tvl1' is unknown; use 'dis' or 'farneback'"):
        optical_flow(frames, method="tvl1")
