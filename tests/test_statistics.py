import numpy as np
import pytest
from example_rows import make_row

from hstlib.book.statistics import bootstrap, compare_models, hits_by_group, wilson_interval
from hstlib.training.rows import Row


def test_hits_are_counted_by_seed_fold_and_group():
    rows = [
        make_row(videos=[(0, 0, 0), (1, 0, 0), (1, 1, 1)], split=1, seed=0),
        make_row(videos=[(2, 2, 0)], split=2, seed=0),
        make_row(videos=[(0, 0, 0), (1, 1, 0), (1, -1, 1)], split=1, seed=1),
        make_row(videos=[(2, 1, 0)], split=2, seed=1),
    ]
    hits = hits_by_group(rows)
    assert hits.tolist() == [[[1, 2], [1, 1], [1, 1]], [[2, 2], [0, 1], [0, 1]]]
    only = hits_by_group(rows, {1})
    assert only.tolist() == [[[0, 1], [1, 1]], [[1, 1], [0, 1]]]


def test_seeds_on_other_videos_are_refused():
    rows = [
        make_row(videos=[(0, 0, 0)], seed=0),
        make_row(videos=[(0, 0, 0), (1, 1, 0)], seed=1),
    ]
    with pytest.raises(ValueError, match="seeds were not tested on the same videos"):
        hits_by_group(rows)


def test_bootstrap_of_equal_groups_has_no_width_and_of_others_is_near_the_normal():
    same = np.tile([3, 4], (3, 10, 1))
    assert str(bootstrap(same)) == "75.0 [75.0, 75.0]"
    rng = np.random.default_rng(1)
    hits = np.stack([rng.binomial(1, 0.6, (1, 400)), np.ones((1, 400), int)], -1)
    accuracy = bootstrap(hits)
    half = 1.96 * 100 * np.sqrt(0.24 / 400)
    assert accuracy.mean == pytest.approx(100 * hits[..., 0].mean())
    assert accuracy.high - accuracy.mean == pytest.approx(half, rel=0.15)
    assert accuracy.mean - accuracy.low == pytest.approx(half, rel=0.15)


def test_a_difference_is_drawn_pair_by_pair():
    rng = np.random.default_rng(2)
    correct = rng.binomial(5, 0.5, (3, 20))
    videos = np.full((3, 20), 6)
    worse, better = np.stack([correct, videos], -1), np.stack([correct + 1, videos], -1)
    difference = bootstrap(better, worse)
    assert (difference.low, difference.mean, difference.high) == pytest.approx((100 / 6,) * 3)
    assert bootstrap(better).high - bootstrap(better).low > 5


def test_models_are_compared_with_hst_in_its_default_reading():
    def runs(correct: int, **settings) -> list[Row]:
        videos = [(0, 0 if i < correct else 1, i) for i in range(4)]
        return [make_row(videos=videos, seed=seed, **settings) for seed in (0, 1)]

    rows = [
        *runs(2, dataset="demo-ucf101", reading="mean-over-time"),
        *runs(4, dataset="demo-ucf101", model="r3d"),
        *runs(3, dataset="demo-ucf101"),
        *runs(1, dataset="demo-hmdb51", reading="trunk-alone"),
    ]
    columns = {"ucf": ("demo-ucf101", None), "hmdb": ("demo-hmdb51", {0})}
    comparisons = compare_models(rows, columns)
    assert [(c.name, c.column) for c in comparisons] == [
        ("HST", "ucf"), ("R3D", "ucf"), ("trunk alone", "hmdb"), ("mean over time", "ucf")
    ]  # fmt: skip
    assert [c.accuracy.mean for c in comparisons] == [75, 100, 25, 50]
    assert comparisons[0].difference is None and comparisons[2].difference is None
    assert (comparisons[1].difference.mean, comparisons[3].difference.mean) == (25, -25)
    with pytest.raises(ValueError, match="R3D and HST were not tested on the same ucf videos"):
        compare_models(
            [
                *runs(3, dataset="demo-ucf101"),
                make_row(videos=[(0, 0, 0)], dataset="demo-ucf101", model="r3d"),
            ],
            columns,
        )


@pytest.mark.parametrize(
    ("accuracy", "count", "low", "high"),
    [(0.5, 100, 40.38, 59.62), (0.0, 10, 0.0, 27.75), (1.0, 10, 72.25, 100.0)],
)
def test_wilson_interval_of_known_cases(accuracy, count, low, high):
    interval = wilson_interval(accuracy, count)
    assert interval.mean == 100 * accuracy
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-2)


def test_interval_narrows_with_the_number_of_videos():
    intervals = [wilson_interval(0.8, count) for count in (10, 100, 1000)]
    widths = [interval.high - interval.low for interval in intervals]
    assert widths[0] > widths[1] > widths[2]
