import numpy as np
import pytest
from torch import nn

from hstlib.metrics import accuracy_interval, count_parameters, top_k_accuracy

SCORES = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])


@pytest.mark.parametrize(("k", "accuracy"), [(1, 0.5), (2, 0.75), (3, 1.0), (5, 1.0)])
def test_top_k_by_hand(k, accuracy):
    assert top_k_accuracy(SCORES, [0, 1, 1, 2], k) == accuracy


def test_top_k_does_not_depend_on_the_order_of_the_rows():
    labels = np.array([0, 1, 1, 2])
    order = np.random.default_rng(0).permutation(4)
    assert top_k_accuracy(SCORES[order], labels[order]) == top_k_accuracy(SCORES, labels)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_row_of_nan_is_wrong_whatever_its_label(k):
    scores = np.vstack([SCORES[:1], np.full((3, 3), np.nan)])
    assert top_k_accuracy(scores, [0, 0, 1, 2], k) == 0.25


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_numbers_that_do_not_match_are_shown(labels):
    with pytest.raises(ValueError, match=rf"scores \(4, 3\) and {len(labels)} labels"):
        top_k_accuracy(SCORES, labels)


def test_no_rows_are_no_accuracy():
    with pytest.raises(ValueError, match="0 labels"):
        top_k_accuracy(np.empty((0, 3)), [])


def test_wilson_interval_of_known_cases():
    assert accuracy_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert accuracy_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert accuracy_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_interval_narrows_with_the_number_of_clips():
    widths = [np.ptp(accuracy_interval(0.8, count)) for count in (10, 100, 1000)]
    assert widths[0] > widths[1] > widths[2]


def test_count_parameters_counts_what_is_trained():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    assert count_parameters(model) == 3 * 5 + 5 + 2 * 5
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == 3 * 5 + 2 * 5
