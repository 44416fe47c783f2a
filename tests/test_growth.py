"""Eq. (9) squares features, which many units in evaluation make visible."""

import math

import pytest
import torch

from hstlib.book.growth import SIZE, drawn_clips, largest_features, store_statistics
from hstlib.model import HST
from hstlib.model.hst import BACKBONES, Backbone
from hstlib.model.readings import apply_reading


@pytest.fixture
def deep(monkeypatch):
    """A function that builds a narrow HST of 24 units in one stage."""
    monkeypatch.setitem(BACKBONES, "demo", Backbone(4, ((24, 4),), 8))

    def build(reading: str) -> HST:
        torch.manual_seed(0)
        model = HST(5, "demo").double()
        apply_reading(model, reading)
        return model

    return build


def test_drawn_clips_differ_by_film_and_are_the_same_in_every_run():
    clips = drawn_clips(range(2))
    assert clips.shape == (2, 3, 16, SIZE, SIZE) and clips.dtype == torch.float64
    assert torch.equal(clips[1:], drawn_clips(range(1, 2)))
    assert not torch.allclose(clips[0], clips[1], atol=0.1)


def largest_after_each_unit(model: HST, scale: float) -> list[float]:
    """Evaluate windows of a scale; the batch norms store a mean of 0 and a variance of 1."""
    torch.manual_seed(1)
    windows, largest = scale * torch.randn(1, 8, 4, 8, 8, dtype=torch.float64), []
    for unit in model.eval().hierarchy.units:
        windows = unit(windows)
        largest.append(windows.abs().max().item())
    return largest


def test_large_features_square_from_unit_to_unit(deep):
    powers = [math.log10(x) for x in largest_after_each_unit(deep("paper"), 1e6) if x < math.inf]
    assert 3 < len(powers) < 24
    assert powers[-1] / powers[-2] == pytest.approx(2, abs=0.1)


def test_with_a_bound_they_only_scale(deep):
    large, small = (largest_after_each_unit(deep("bounded-similarity"), k) for k in (1e6, 1e5))
    assert large[-1] / small[-1] == pytest.approx(10, rel=0.1)


def test_stored_statistics_are_those_of_the_clips(deep):
    model, clips = deep("paper"), drawn_clips(range(2))
    trained = []
    handles = [
        unit.register_forward_hook(lambda unit, inputs, out: trained.append(out.abs().max().item()))
        for unit in model.hierarchy.units
    ]
    store_statistics(model, clips)
    for handle in handles:
        handle.remove()
    assert largest_features(model, clips) == pytest.approx(trained, rel=0.3)  # noise of Eq. (5)


def test_a_share_of_the_stored_variances_is_used_once(deep):
    model, clips = deep("paper"), drawn_clips(range(2))
    store_statistics(model, clips)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before, smaller = largest_features(model, clips), largest_features(model, clips, 0.5)
    assert all(a < b for a, b in zip(before, smaller, strict=True))
    assert largest_features(model, clips) == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_is_not_finite_is_infinity(deep):
    model, clips = deep("paper"), drawn_clips(range(1))
    store_statistics(model, clips)
    largest = largest_features(model, clips, 1e-9)
    assert largest[0] < math.inf and largest[-1] == math.inf
