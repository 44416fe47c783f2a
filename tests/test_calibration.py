"""Calibration pooled over runs: right confidences pass, inflated ones are named."""

import numpy as np
import pytest
from example_rows import make_row

from hstlib.book.calibration import pooled_calibration


def runs_with(confidence_of, count=400):
    """Return two runs whose answers are right with a known probability."""
    generator = np.random.default_rng(1)
    chances = generator.uniform(0.2, 0.9, (2, count))
    hits = generator.random((2, count)) < chances
    return [
        make_row(videos=[(0, 0 if hit else 1, 0) for hit in hits[seed]], seed=seed).model_copy(
            update={"confidences": [confidence_of(chance) for chance in chances[seed]]}
        )
        for seed in (0, 1)
    ]


def test_right_confidences_are_within_chance():
    found = pooled_calibration(runs_with(lambda chance: chance))
    assert found.videos == 800
    assert 0 < found.error <= found.by_chance < 10
    assert found.verdict == "as sure as it may be"


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "too sure"), (-0.15, "not sure enough")])
def test_shifted_confidences_are_named(shift, verdict):
    found = pooled_calibration(runs_with(lambda chance: chance + shift))
    assert found.verdict == verdict
    assert found.error == pytest.approx(100 * abs(shift), abs=3)


def test_one_small_run_shows_what_the_bins_alone_measure():
    few = pooled_calibration(runs_with(lambda chance: chance, count=10))
    many = pooled_calibration(runs_with(lambda chance: chance, count=1000))
    assert few.by_chance > 3 * many.by_chance


def test_unreadable_videos_are_left_out():
    row = make_row(videos=[(0, 0, 0), (0, 1, 0)]).model_copy(update={"confidences": [0.5, None]})
    assert pooled_calibration([row]).videos == 1
    with pytest.raises(ValueError, match="confidence"):
        pooled_calibration([row.model_copy(update={"confidences": [None, None]})])
