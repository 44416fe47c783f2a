import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional import classification as reference

from hstlib.data.datasets import hmdb51_tags
from hstlib.training.metrics import (
    bin_confidences,
    class_accuracy,
    clip_accuracy,
    confusion_matrix,
    count_parameters,
    expected_calibration_error,
    hits_by_tag,
    mean_class_accuracy,
    predict_classes,
    reliability,
    top_k_accuracy,
)

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


def test_of_equal_scores_the_lower_class_ranks_first():
    scores = np.full((7, 40), 1 / 40)
    labels = [0, 1, 2, 3, 4, 5, 39]
    assert top_k_accuracy(scores, labels, 1) == 1 / 7
    assert top_k_accuracy(scores, labels, 5) == 5 / 7
    assert (predict_classes(scores) == 0).all()


def test_prediction_of_a_row_of_nan_is_no_class():
    scores = np.vstack([SCORES, np.full((1, 3), np.nan)])
    assert predict_classes(scores).tolist() == [0, 1, 2, 0, -1]


def random_scores(num_videos: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right more often than by chance, and labels of all classes."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate(
        [np.arange(num_classes), rng.integers(num_classes, size=num_videos - num_classes)]
    )
    logits = rng.normal(size=(num_videos, num_classes))
    logits[np.arange(num_videos), labels] += rng.uniform(0, 4, num_videos)
    return torch.from_numpy(logits).softmax(1).numpy().astype(np.float32), labels


CASES = [(2, 2, 0), (40, 6, 1), (300, 51, 2), (500, 101, 3)]
cases = pytest.mark.parametrize(("num_videos", "num_classes", "seed"), CASES)


@cases
def test_metrics_equal_those_of_torchmetrics(num_videos, num_classes, seed):
    scores, labels = random_scores(num_videos, num_classes, seed)
    confusion = confusion_matrix(labels, predict_classes(scores), num_classes)
    both = torch.from_numpy(scores), torch.from_numpy(labels)
    accuracy = reference.multiclass_accuracy
    for k in {1, min(5, num_classes)}:
        expected = accuracy(*both, num_classes, average="micro", top_k=k).item()
        assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)
    expected = reference.multiclass_confusion_matrix(*both, num_classes).numpy()
    np.testing.assert_array_equal(confusion[:, :-1], expected)
    expected = reference.multiclass_recall(*both, num_classes, average="none").numpy()
    np.testing.assert_allclose(class_accuracy(confusion), expected, rtol=1e-6)
    expected = reference.multiclass_recall(*both, num_classes, average="macro").item()
    assert mean_class_accuracy(confusion) == pytest.approx(expected)


@cases
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_equals_that_of_torchmetrics(num_videos, num_classes, seed, bins):
    scores, labels = random_scores(num_videos, num_classes, seed)
    calibration = reliability(scores, labels, bins)
    both = torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(labels)
    expected = reference.multiclass_calibration_error(*both, num_classes, n_bins=bins).item()
    assert expected_calibration_error(calibration) == pytest.approx(expected)
    assert calibration.counts.sum() == num_videos


def test_ties_are_broken_as_torchmetrics_does():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(1, 3, (200, 5)) / 10, rng.integers(5, size=200)
    confusion = confusion_matrix(labels, predict_classes(scores), 5)
    both = torch.from_numpy(scores), torch.from_numpy(labels)
    expected = reference.multiclass_confusion_matrix(*both, 5).numpy()
    np.testing.assert_array_equal(confusion[:, :-1], expected)
    assert top_k_accuracy(scores, labels) == confusion.trace() / 200


def test_unreadable_videos_are_one_more_class_of_torchmetrics():
    scores, labels = random_scores(120, 6, seed=4)
    scores[::5] = np.nan
    predictions = predict_classes(scores)
    confusion = confusion_matrix(labels, predictions, 6)
    both = torch.from_numpy(np.where(predictions < 0, 6, predictions)), torch.from_numpy(labels)
    expected = reference.multiclass_confusion_matrix(*both, 7).numpy()
    np.testing.assert_array_equal(confusion, expected[:6])
    expected = reference.multiclass_recall(*both, 7, average="none").numpy()
    np.testing.assert_allclose(class_accuracy(confusion), expected[:6], rtol=1e-6)


def test_confusion_by_hand():
    confusion = confusion_matrix([0, 0, 2, 2, 2], [0, -1, 2, 0, 2], 3)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 2, 0]]
    np.testing.assert_allclose(class_accuracy(confusion), [1 / 2, np.nan, 2 / 3])
    assert mean_class_accuracy(confusion) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_class_without_videos_is_no_part_of_the_mean_even_if_it_was_predicted():
    """Here torchmetrics differs: such a class has recall 0 there."""
    confusion = confusion_matrix([0, 0], [0, 1], 2)
    np.testing.assert_array_equal(class_accuracy(confusion), [0.5, np.nan])
    assert mean_class_accuracy(confusion) == 0.5
    both = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert reference.multiclass_recall(*both, 2, average="macro") == 0.25


def test_unreadable_videos_alone_are_an_accuracy_of_zero():
    confusion = confusion_matrix([1, 1], [-1, -1], 3)
    assert confusion.tolist() == [[0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert mean_class_accuracy(confusion) == 0


def test_no_videos_have_no_mean_class_accuracy():
    confusion = confusion_matrix([], [], 3)
    assert np.isnan(class_accuracy(confusion)).all()
    with pytest.raises(ValueError, match=r"\(3, 4\) counts no videos"):
        mean_class_accuracy(confusion)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([3], [0], "label 3 is not in 0 to 2"),
        ([-1], [0], "label -1 is not in 0 to 2"),
        ([0, 0], [0, 3], "prediction 3 is not in -1 to 2"),
        ([0], [-2], "prediction -2 is not in -1 to 2"),
        ([0, 1], [0], "2 labels and 1 predictions"),
    ],
)
def test_a_value_that_is_not_a_class_is_named(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, predictions, 3)


@pytest.mark.parametrize("seed", range(5))
def test_an_unreadable_video_never_helps(seed):
    """The denominators are strict: whichever video is lost, no accuracy rises."""
    scores, labels = random_scores(30, 4, seed)

    def accuracies(scores):
        confusion = confusion_matrix(labels, predict_classes(scores), 4)
        assert confusion.sum() == 30
        views = [None if np.isnan(row).any() else row[None] for row in scores]
        top = (top_k_accuracy(scores, labels, k) for k in (1, 2, 4))
        return np.array([*top, mean_class_accuracy(confusion), clip_accuracy(views, labels)])

    for video in range(30):
        lost = scores.copy()
        lost[video] = np.nan
        assert (accuracies(lost) <= accuracies(scores)).all()


def test_clip_accuracy_by_hand():
    views = [np.array([[0.9, 0.1], [0.4, 0.6]]), None, np.array([[0.3, 0.7], [0.2, 0.8]])]
    assert clip_accuracy(views, [0, 0, 1]) == 3 / 6


def test_an_unreadable_video_has_as_many_views_as_the_others():
    view = np.array([[0.9, 0.1]] * 3)
    assert clip_accuracy([view, None, None, None], [0, 0, 1, 1]) == 3 / 12
    assert clip_accuracy([None, None], [0, 1]) == 0


@pytest.mark.parametrize("labels", [[], [0]])
def test_views_that_do_not_match_the_labels_are_refused(labels):
    with pytest.raises(ValueError, match=rf"2 videos and {len(labels)} labels"):
        clip_accuracy([None, None], labels)


def test_no_videos_are_no_clip_accuracy():
    with pytest.raises(ValueError, match="0 videos and 0 labels"):
        clip_accuracy([], [])


def test_reliability_by_hand():
    scores = np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [np.nan, np.nan], [0.05, 0.95]])
    calibration = reliability(scores, [0, 0, 0, 0, 1], bins=4)
    assert calibration.counts.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(calibration.confidence, [np.nan, np.nan, 0.65, 0.925])
    np.testing.assert_allclose(calibration.accuracy, [np.nan, np.nan, 0.5, 1])
    error = expected_calibration_error(calibration)
    assert error == pytest.approx((2 * 0.15 + 2 * 0.075) / 4)


def test_confidences_that_were_written_down_give_the_same_bins():
    scores, labels = random_scores(60, 6, seed=5)
    scores[::7] = np.nan
    written = [None if np.isnan(row).any() else float(row.max()) for row in scores]
    calibration = bin_confidences(written, predict_classes(scores) == labels)
    for value, expected in zip(
        vars(calibration).values(), vars(reliability(scores, labels)).values(), strict=True
    ):
        np.testing.assert_array_equal(value, expected)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    scores = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]])
    assert reliability(scores, [0, 0, 0], bins=4).counts.tolist() == [0, 1, 1, 1]


def test_a_sure_and_right_model_has_no_calibration_error():
    assert expected_calibration_error(reliability(np.eye(4), range(4))) == 0


def test_unreadable_videos_have_no_calibration():
    calibration = reliability(np.full((3, 2), np.nan), [0, 1, 1])
    assert calibration.counts.tolist() == [0] * 10
    assert np.isnan(calibration.accuracy).all() and np.isnan(calibration.confidence).all()
    with pytest.raises(ValueError, match="no video can be read"):
        expected_calibration_error(calibration)


def test_logits_have_no_calibration():
    with pytest.raises(ValueError, match=r"confidence 3\.5 is not a probability"):
        reliability(np.array([[3.5, -1.0]]), [0])


def test_calibration_needs_a_label_per_row():
    with pytest.raises(ValueError, match="4 confidences and 2 hits"):
        bin_confidences([0.5] * 4, [True] * 2)
    with pytest.raises(ValueError, match=r"scores \(4, 3\) and 1 labels"):
        reliability(SCORES, [0])


def test_hits_by_tag_of_hmdb51_names():
    names = [
        "Pippi_cartwheel_f_cm_np2_le_med_6.avi",
        "Pippi_cartwheel_f_nm_np1_le_bad_7.avi",
        "Film_wave_u_nm_np1_fr_med_0.avi",
        "v_Archery_g01_c01.avi",
    ]
    hits = np.array([True, False, True, True])
    counts = hits_by_tag(hits, [hmdb51_tags(name) for name in names])
    assert counts == {
        "body": {"f": (1, 2), "u": (1, 1)},
        "camera": {"cm": (1, 1), "nm": (1, 2)},
        "people": {"1": (1, 2), "2": (1, 1)},
        "view": {"fr": (1, 1), "le": (1, 2)},
        "quality": {"bad": (0, 1), "med": (2, 2)},
    }
    assert list(counts) == ["body", "camera", "people", "view", "quality"]


def test_videos_without_tags_have_no_hits_by_tag():
    assert hits_by_tag([True, False], [{}, {}]) == {}


def test_hits_need_the_tags_of_every_video():
    with pytest.raises(ValueError):
        hits_by_tag([True], [])


def test_count_parameters_counts_what_is_trained():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    assert count_parameters(model) == 3 * 5 + 5 + 2 * 5
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == 3 * 5 + 2 * 5
