"""Intervals of accuracies and differences: values by hand, and their coverage in simulations."""

import math
from itertools import product

import numpy as np
import pytest
from example_rows import make_row

from hstlib.book.failures import fisher_exact
from hstlib.book.statistics import (
    ALPHA,
    NORMAL,
    Hits,
    Interval,
    SplitHits,
    confidence_interval,
    hits_by_group,
    holm,
    t_quantile,
)


def hits_of(correct, videos, splits=1) -> Hits:
    """Hits whose sources belong to so many splits, one after the other."""
    correct = np.atleast_2d(correct)
    videos = np.broadcast_to(videos, correct.shape[1:])
    of_splits = np.array_split(np.arange(len(videos)), splits)
    return [SplitHits(correct[:, those].copy(), videos[those]) for those in of_splits]


def test_hits_are_counted_by_seed_fold_and_group():
    rows = [
        make_row(videos=[(0, 0, 0), (1, 0, 0), (1, 1, 1)], split=1, seed=0),
        make_row(videos=[(2, 2, 0)], split=2, seed=0),
        make_row(videos=[(0, 0, 0), (1, 1, 0), (1, -1, 1)], split=1, seed=1),
        make_row(videos=[(2, 1, 0)], split=2, seed=1),
    ]
    hits = hits_by_group(rows)
    assert [part.correct.tolist() for part in hits] == [[[1, 1], [2, 0]], [[1], [0]]]
    assert [part.videos.tolist() for part in hits] == [[2, 1], [1]]


def test_seeds_on_other_videos_are_refused():
    rows = [
        make_row(videos=[(0, 0, 0)], seed=0),
        make_row(videos=[(0, 0, 0), (1, 1, 0)], seed=1),
    ]
    with pytest.raises(ValueError, match="seeds were not tested on the same videos"):
        hits_by_group(rows)


def test_a_film_of_a_drawn_corpus_is_one_source():
    """Groups are numbered by name: by film then class, as HMDB51's, or by class then film."""
    by_film = [(0, 0, 0), (1, 1, 1), (0, 1, 2), (1, 1, 3)]  # films 0, 0, 1, 1
    by_class = [(0, 0, 0), (0, 1, 1), (1, 1, 2), (1, 1, 3)]  # films 0, 1, 0, 1
    for videos in (by_film, by_class):
        row = make_row(videos=videos, dataset="demo-hmdb51")
        (hits,) = hits_by_group([row])
        assert (hits.correct.tolist(), hits.videos.tolist()) == ([[2, 1]], [2, 2])
        for other in ({"dataset": "hmdb51"}, {"protocol": "random-by-video"}):
            row = make_row(videos=videos, **({"dataset": "demo-hmdb51"} | other))
            assert hits_by_group([row])[0].correct.shape == (1, 4)
    unequal = make_row(videos=[*by_film, (1, 0, 4)], dataset="demo-hmdb51")
    assert hits_by_group([unequal])[0].correct.shape == (1, 5)


@pytest.mark.parametrize(
    ("freedom", "alpha", "value"),
    [(1, 0.05, 12.7062), (2, 0.05, 4.3027), (4, 0.001, 8.6103), (9, 0.05, 2.2622)]
    + [(47, 0.05, 2.01174), (NORMAL, 0.05, 1.95996), (NORMAL, 1e-6, 4.8916), (2, 1e-6, 1000.0)],
)
def test_quantiles_of_the_tables(freedom, alpha, value):
    assert t_quantile(alpha, freedom) == pytest.approx(value, rel=2e-5)


def test_interval_by_hand():
    """Three sources of four videos, one seed: the t interval with 2 degrees of freedom."""
    hits, zeros = hits_of([1, 2, 3], 4), hits_of([0, 0, 0], 4)
    half = 4.30266 * 25 / math.sqrt(3)
    difference = confidence_interval(hits, zeros)
    assert (difference.mean, difference.low) == pytest.approx((50, 50 - half), rel=1e-4)
    assert difference.high == 100  # not more than possible
    # Wilson's interval of one half among n independent videos
    n = 1.96**2 * 0.25 / (half / 100) ** 2
    accuracy = confidence_interval(hits)
    assert accuracy.high - 50 == pytest.approx(50 * 1.96 / math.sqrt(n + 1.96**2), rel=1e-4)
    assert accuracy.low == pytest.approx(100 - accuracy.high)
    assert accuracy.p_value is None


def test_the_interval_of_three_splits_by_hand():
    """One seed, differences of 10, 20 and 30 %: the t interval of the splits' means."""
    hits = hits_of(np.repeat([1, 2, 3], 10), 10, splits=3)
    difference = confidence_interval(hits, hits_of(np.zeros(30, int), 10, splits=3))
    half = 4.30266 * 10 / math.sqrt(3)
    assert (difference.mean, difference.high) == pytest.approx((20, 20 + half), rel=1e-4)
    assert confidence_interval(hits).high < 38  # an accuracy, of these runs alone


def test_independent_videos_have_the_interval_of_independent_videos():
    rng = np.random.default_rng(1)
    hits = hits_of(rng.binomial(1, 0.6, 400), 1)
    accuracy = confidence_interval(hits)
    half = 1.96 * 100 * np.sqrt(0.24 / 400)
    assert accuracy.mean == pytest.approx(100 * hits[0].correct.mean())
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("seeds", [1, 3])
def test_without_variation_a_source_counts_as_one_video(seeds):
    perfect, hopeless = (hits_of(np.full((seeds, 10), right), 6) for right in (6, 0))
    assert str(confidence_interval(perfect)) == "100.0 [72.2, 100.0]"  # Wilson, 10 of 10
    assert str(confidence_interval(hopeless)) == "0.0 [0.0, 27.8]"
    same = confidence_interval(perfect, perfect)
    assert (str(same), same.p_value) == ("0.0 [-27.8, 27.8]", 1)
    certain = confidence_interval(perfect, hopeless)
    assert str(certain) == "100.0 [44.5, 100.0]"
    assert certain.p_value == pytest.approx(2 * 0.5**10, rel=0.3)  # a sign test


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_source_shows_almost_nothing(seeds):
    hits = hits_of(np.arange(seeds)[:, None] + 1, 4)
    accuracy = confidence_interval(hits)
    assert accuracy.low < 10 and accuracy.high > 88
    assert confidence_interval(hits, hits_of(0 * hits[0].correct, 4)).p_value > 0.3


def test_a_difference_is_taken_pair_by_pair():
    rng = np.random.default_rng(2)
    correct = rng.binomial(5, 0.5, (3, 20))
    worse, better = hits_of(correct, 6), hits_of(correct + 1, 6)
    better[0].correct[0, 0] -= 1
    difference = confidence_interval(better, worse)
    accuracy = confidence_interval(better)
    assert difference.high - difference.low < 0.2 * (accuracy.high - accuracy.low)
    assert difference.low < 100 / 6 < difference.high and difference.p_value < 1e-3
    reverse = confidence_interval(worse, better)
    assert (reverse.low, reverse.high) == pytest.approx((-difference.high, -difference.low))
    assert reverse.p_value == pytest.approx(difference.p_value)


def simulate(rng, seeds, videos, effect, sd_run, splits=1) -> Hits:
    """Hits of one model: sources of their own difficulty and runs of their own skill (logit).

    Args:
        seeds: Number of seeds of every split, or of each split.
    """
    hits = []
    of_splits = np.array_split(np.arange(len(videos)), splits)
    for those, runs in zip(of_splits, np.broadcast_to(seeds, splits), strict=True):
        logit = effect[those] + rng.normal(0, sd_run, (runs, 1))
        correct = rng.binomial(videos[those], 1 / (1 + np.exp(-logit)))
        hits.append(SplitHits(correct, videos[those]))
    return hits


def coverage(
    studies, seeds, videos, sd_source, sd_run, base=0.8, splits=1, method=confidence_interval
):
    """Share of studies whose intervals hold the accuracy, and a paired difference of 0, in %."""
    rng = np.random.default_rng(7)
    logits = base + rng.normal(0, math.hypot(sd_source, sd_run), 1_000_000)
    truth = (100 / (1 + np.exp(-logits))).mean()
    covered = np.zeros(2)
    for _ in range(studies):
        effect = base + rng.normal(0, sd_source, len(videos))
        one, other = (simulate(rng, seeds, videos, effect, sd_run, splits) for _ in range(2))
        accuracy, difference = method(one), method(one, other)
        covered += accuracy.low <= truth <= accuracy.high, difference.low <= 0 <= difference.high
        if difference.p_value is not None:
            assert (difference.p_value < ALPHA) == (not difference.low <= 0 <= difference.high)
    return 100 * covered / studies


SPREADS = [(3, 0.5, 0.2), (3, 0.5, 0.5), (3, 1, 0.2), (3, 1, 0.5)]
SPREADS += [(5, sd_source, sd_run) for _, sd_source, sd_run in SPREADS]


@pytest.mark.parametrize(("sources", "videos"), [(10, 6), (48, 5)])
def test_intervals_cover_what_they_say(sources, videos):
    covered = np.array([coverage(1000, n, np.full(sources, videos), *sd) for n, *sd in SPREADS])
    assert (covered > 94).all() and (covered < 99.5).all(), covered
    assert (covered.mean(0) > 95).all() and (covered.mean(0) < 98.5).all(), covered


@pytest.mark.parametrize("seeds", [1, (2, 1, 1), (2, 1, 2), 2, 3], ids=str)
def test_the_runs_of_three_splits_stand_for_new_runs(seeds):
    sizes = product([(12, 6), (48, 5)], [(0.5, 0.2), (0.5, 0.5), (1, 0.5)])
    covered = np.array(
        [
            coverage(1000, seeds, np.full(sources, videos), *sd, splits=3)
            for (sources, videos), sd in sizes
        ]
    )
    differences = covered[:, 1]
    assert (differences > 94).all() and (differences < 99.5).all(), covered
    if seeds not in (1, (2, 1, 1)):  # too few runs to say how an accuracy varies by run
        assert (covered[:, 0] > 93).all(), covered


def test_one_run_of_each_model_says_nothing_of_new_runs():
    """So a verdict on one split and one seed is on these weights alone."""
    assert coverage(300, 1, np.full(48, 5), 0.5, 0.5)[1] < 70


def resampled(hits, baseline=None):
    """The percentile bootstrap over seeds and sources."""
    rng = np.random.default_rng(0)
    (hits,) = hits
    seeds, sources = hits.correct.shape
    correct = hits.correct - (0 if baseline is None else baseline[0].correct)
    chosen = (
        rng.integers(seeds, size=(500, seeds, 1)),
        rng.integers(sources, size=(500, 1, sources)),
    )
    videos = np.broadcast_to(hits.videos, correct.shape)
    means = 100 * correct[chosen].sum((1, 2)) / videos[chosen].sum((1, 2))
    return Interval(means.mean(), *np.percentile(means, [2.5, 97.5]))


def test_the_simulation_finds_an_interval_that_is_too_narrow():
    videos = np.full(48, 5)
    assert (coverage(200, 3, videos, 0.5, 0.5, method=resampled) < 90).all()
    assert (coverage(200, 3, videos, 0.5, 0.5) > 94).all()


def test_a_large_difference_is_found():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(50):
        effect = rng.normal(0, 1, 48)
        one, other = (simulate(rng, 5, np.full(48, 5), effect + x, 0.3) for x in (1.2, 0))
        found += confidence_interval(one, other).low > 0
    assert found >= 45


@pytest.mark.slow
@pytest.mark.parametrize("base", [-1, 0.8, 2, 4])  # 30 to 97 % correct
@pytest.mark.parametrize("unequal", [False, True])
def test_intervals_cover_in_more_studies(base, unequal):
    for (seeds, *sd), sources in product(SPREADS, (6, 10, 14, 48)):
        sizes = np.resize([2, 4, 6, 12], sources) if unequal else np.full(sources, 5)
        covered = coverage(1500, seeds, sizes, *sd, base=base)
        assert (covered > (92 if unequal else 93.5)).all(), (seeds, sd, sources, covered)


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm({"x": 0.7, "y": 0.6}) == {"x": 1.0, "y": 1.0}
    assert holm({"alone": 0.02}) == {"alone": 0.02}
    assert holm({}) == {}


def test_holm_keeps_false_claims_of_a_family_rare():
    rng = np.random.default_rng(4)
    families = rng.uniform(size=(2000, 10))
    raw = (families.min(1) < ALPHA).mean()
    false = np.mean([min(holm(dict(enumerate(p))).values()) < ALPHA for p in families])
    assert raw > 0.3 and 0.03 < false < 0.065


def test_fishers_test_has_the_values_of_the_textbooks():
    assert fisher_exact((3, 4), (1, 4)) == pytest.approx(34 / 70)  # the lady tasting tea
    assert fisher_exact((1, 10), (11, 14)) == pytest.approx(0.002759, abs=1e-6)
    assert fisher_exact((11, 14), (1, 10)) == pytest.approx(0.002759, abs=1e-6)
    assert fisher_exact((2, 5), (2, 5)) == 1
    assert fisher_exact((0, 3), (0, 4)) == 1


def test_fishers_test_calls_equal_shares_different_rarely():
    random = np.random.default_rng(0)
    events = random.binomial(20, 0.3, size=(2000, 2))
    false = [fisher_exact((int(a), 20), (int(b), 20)) < ALPHA for a, b in events]
    assert np.mean(false) < ALPHA
