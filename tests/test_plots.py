import colorsys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from hstlib.book.plots import (
    RIGHT,
    WRONG,
    Prediction,
    evenly,
    flow_to_rgb,
    prediction_figure,
    show_confusion,
    show_flow,
    show_frames,
    show_learning,
    show_maps,
    show_numbers,
    show_reliability,
    show_shares,
)
from hstlib.training.metrics import confusion_matrix, reliability


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def frames(moving):
    return moving(seed=0, count=16)


def axes(count: int):
    return plt.subplots(1, count, squeeze=False)[1][0]


@pytest.mark.parametrize(
    ("truth", "colour", "words"),
    [("wave", RIGHT, []), ("run", WRONG, ["is run"]), (None, "#57606a", [])],
)
def test_every_frame_shows_class_and_probability_in_the_colour_of_the_verdict(
    frames, truth, colour, words
):
    figure = prediction_figure([Prediction(frames, "wave", 0.876, truth)])
    assert len(figure.axes) == 4
    for ax in figure.axes:
        (label,) = ax.texts
        assert "wave 0.88" in label.get_text()
        assert all(word in label.get_text() for word in words)
        assert same_color(label.get_bbox_patch().get_facecolor()[:3], colour)
        assert all(same_color(spine.get_edgecolor(), colour) for spine in ax.spines.values())


def test_right_and_wrong_differ_by_more_than_colour(frames):
    shown = [Prediction(frames, "wave", 0.5, truth) for truth in ("wave", "run", None)]
    figure = prediction_figure(shown)
    marks = [figure.axes[4 * row].texts[0].get_text()[0] for row in range(3)]
    assert len(set(marks)) == 3


def test_prediction_figure_has_a_row_per_clip_from_its_first_to_its_last_frame(frames):
    figure = prediction_figure([Prediction(frames, "a", 0.5)] * 2)
    pictures = [ax.images[0].get_array() for ax in figure.axes]
    assert len(pictures) == 8
    assert np.array_equal(pictures[0], frames[0]) and np.array_equal(pictures[3], frames[15])


def test_prediction_figure_is_drawn_without_a_missing_glyph(frames):
    shown = [Prediction(frames, "wave", 0.5, truth) for truth in ("wave", "run", None)]
    prediction_figure(shown).canvas.draw()


@pytest.mark.parametrize(
    ("flow", "hue"),
    [((1, 0), 0), ((0, 1), 90), ((-1, 0), 180), ((0, -1), 270)],
    ids=["right", "down", "left", "up"],
)
def test_hue_of_flow_is_its_direction(flow, hue):
    field = np.broadcast_to(np.reshape(flow, (2, 1, 1)), (2, 5, 7)).astype(np.float32)
    rgb = flow_to_rgb(field)
    assert rgb.shape == (5, 7, 3) and rgb.dtype == np.uint8
    found, saturation, value = colorsys.rgb_to_hsv(*rgb[2, 3] / 255)
    assert 360 * found == pytest.approx(hue, abs=3)
    assert saturation == value == 1


def test_flow_to_the_right_is_red():
    field = np.stack([np.ones((2, 2)), np.zeros((2, 2))])
    assert (flow_to_rgb(field) == (255, 0, 0)).all()


def test_brightness_of_flow_is_its_speed():
    field = np.zeros((2, 1, 4), np.float16)
    field[0, 0] = [0, 1, 2, 8]
    assert flow_to_rgb(field, largest=4).max(-1).tolist() == [[0, 63, 127, 255]]


def test_still_flow_is_black():
    assert not flow_to_rgb(np.zeros((2, 3, 3))).any()


def test_evenly_goes_from_the_first_to_the_last():
    assert evenly(16, 4).tolist() == [0, 5, 10, 15]
    assert evenly(4, 4).tolist() == [0, 1, 2, 3]


def test_frames_are_shown_under_their_numbers(frames):
    shown = show_frames(axes(2), frames, [0, 9])
    assert [ax.get_title() for ax in shown] == ["frame 1", "frame 10"]
    assert np.array_equal(shown[1].images[0].get_array(), frames[9])


def test_flow_fields_share_one_scale():
    flow = np.zeros((2, 2, 3, 3), np.float32)
    flow[0, 0], flow[0, 1] = 1, 2
    slow, fast = (ax.images[0].get_array().max() for ax in show_flow(axes(2), flow, [0, 1]))
    assert (slow, fast) == (127, 255)


def test_maps_share_one_scale():
    maps = np.arange(12.0).reshape(2, 2, 3)
    shown = show_maps(axes(2), maps, ["a", "b"])
    assert [ax.get_title() for ax in shown] == ["a", "b"]
    assert {ax.images[0].get_clim() for ax in shown} == {(0, 11)}


def test_numbers_stand_in_their_cells():
    ax = show_numbers(axes(1)[0], np.array([[1.0, 2.5], [3.0, 4.0]]), "grid")
    assert [text.get_text() for text in ax.texts] == ["1", "2.5", "3", "4"]
    assert ax.texts[1].get_position() == (1, 0)


def test_learning_curve_counts_epochs_from_one():
    epochs = [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0}]
    (line,) = show_learning(axes(1)[0], epochs, "hst").lines
    assert line.get_xydata().tolist() == [[1, 2], [2, 1]] and line.get_label() == "hst"


def confusion(num_classes: int, unreadable: int) -> np.ndarray:
    """Ten videos per class, one wrong; the last class has none."""
    labels = np.repeat(np.arange(num_classes - 1), 10)
    predictions = labels.copy()
    predictions[::10] = (labels[::10] + 1) % num_classes
    predictions[1 : 1 + unreadable] = -1
    return confusion_matrix(labels, predictions, num_classes)


def square(inches: float):
    return plt.subplots(figsize=(inches, inches), layout="constrained")[1]


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_confusion_of_few_classes_has_their_videos_in_the_cells():
    ax = show_confusion(square(4), confusion(3, unreadable=0), ["run", "walk", "wave"])
    assert names(ax.get_xticklabels()) == names(ax.get_yticklabels()) == ["run", "walk", "wave"]
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "9", (1, 0): "1", (1, 1): "9", (2, 1): "1"}
    shares = ax.images[0].get_array()
    assert np.allclose(shares[:2], [[0.9, 0.1, 0], [0, 0.9, 0.1]])
    assert shares.mask.tolist() == [[False] * 3, [False] * 3, [True] * 3], "no videos, no share"


def test_confusion_shows_unreadable_videos_as_the_last_column():
    ax = show_confusion(square(4), confusion(3, unreadable=4), ["run", "walk", "wave"])
    assert names(ax.get_xticklabels()) == ["run", "walk", "wave", "unreadable"]
    assert names(ax.get_yticklabels()) == ["run", "walk", "wave"]
    assert ax.images[0].get_array()[0].tolist() == [0.5, 0.1, 0, 0.4]


@pytest.mark.parametrize("unreadable", [0, 1])
@pytest.mark.parametrize(
    ("num_classes", "inches", "step"),
    [(6, 4, 1), (51, 9, 1), (51, 5, 2), (101, 14, 1), (101, 9, 2)],
)
def test_names_of_classes_are_legible(num_classes, inches, step, unreadable):
    classes = [f"Class{i:03d}" for i in range(num_classes)]
    ax = show_confusion(square(inches), confusion(num_classes, unreadable), classes)
    ax.figure.draw_without_rendering()
    assert names(ax.get_yticklabels()) == classes[::step]
    assert names(ax.get_xticklabels())[-1] == ("unreadable" if unreadable else classes[::step][-1])
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert all(label.get_fontsize() >= 7 for label in labels)
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
        assert all(0 <= value <= inches * ax.figure.dpi for box in boxes for value in box.extents)


def test_confusion_of_many_classes_has_no_numbers():
    assert not show_confusion(square(9), confusion(51, 0), [str(i) for i in range(51)]).texts


def test_reliability_shows_accuracy_videos_and_distance_of_every_filled_bin():
    scores = np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [np.nan, np.nan]])
    ax = show_reliability(axes(1)[0], reliability(scores, [0, 0, 0, 0], bins=4), "hst")
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in ax.patches]
    assert bars == [(0.5, 0.25, 0.5), (0.75, 0.25, 1.0)]
    assert names(ax.texts) == ["2", "1"]
    gaps = ax.collections[0].get_segments()
    np.testing.assert_allclose(gaps, [[[0.65, 0.5], [0.65, 0.65]], [[0.9, 1], [0.9, 0.9]]])
    assert ax.get_title() == "hst"


def test_reliability_without_a_readable_video_is_an_empty_picture():
    ax = show_reliability(axes(1)[0], reliability(np.full((2, 3), np.nan), [0, 1]), "none")
    assert not ax.patches and not ax.texts
    ax.figure.canvas.draw()


def test_shares_lie_end_to_end_and_a_missing_part_is_nothing():
    (ax,) = axes(1)
    show_shares(ax, {"a": {"x": 0.25, "y": 0.75}, "b": {"y": 1.0}})
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 25), (0, 0), (25, 75), (0, 100)]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]
