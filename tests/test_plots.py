import colorsys
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from hstlib.book.findings import OFFICIAL, RANDOM
from hstlib.book.plots import (
    RIGHT,
    WRONG,
    Prediction,
    evenly,
    flow_to_rgb,
    prediction_figure,
    show_efficiency,
    show_flow,
    show_frames,
    show_leak,
    show_learning,
    show_maps,
    show_numbers,
    show_shares,
)


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


def test_an_epoch_is_a_whole_number_on_the_axis():
    ax = show_learning(axes(1)[0], [{"epoch": 0, "loss": 2.0}], "hst")
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_the_leak_is_a_line_for_everything_that_was_run_both_ways():
    values = {"HST": (20, 60), "histogram": (10, 70), "C3D": (30, math.nan)}
    table = pd.DataFrame.from_dict(values, "index", columns=[OFFICIAL, RANDOM])
    ax = show_leak(axes(1)[0], table, ceiling=84)
    official, random, public, ceiling = ax.get_lines()
    assert official.get_xdata().tolist() == [20, 10] and random.get_xdata().tolist() == [60, 70]
    assert official.get_ydata().tolist() == ["HST", "histogram"]
    assert public.get_xdata() == [64.7, 64.7] and ceiling.get_xdata() == [84, 84]
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == [OFFICIAL, RANDOM]


def test_shares_lie_end_to_end_and_a_missing_part_is_nothing():
    (ax,) = axes(1)
    show_shares(ax, {"a": {"x": 0.25, "y": 0.75}, "b": {"y": 1.0}})
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 25), (0, 0), (25, 75), (0, 100)]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]


def test_efficiency_has_a_marker_and_an_interval_per_model_and_a_line_per_reference():
    values = {"HST": (1e5, 30, 20, 40, True), "C3D": (2e5, 25, 15, 35, False)}
    columns = ["parameters", "top-1", "low", "high", "fitted"]
    table = pd.DataFrame.from_dict(values, "index", columns=columns)
    ax = show_efficiency(axes(1)[0], table, "parameters", {"histogram": 12.5})
    interval, fitted, _, unfitted, line = ax.get_lines()
    assert interval.get_xydata().tolist() == [[1e5, 20], [1e5, 40]]
    assert same_color(fitted.get_markerfacecolor(), fitted.get_color())
    assert same_color(unfitted.get_markerfacecolor(), "white")
    assert set(line.get_ydata()) == {12.5}
    assert ax.get_legend_handles_labels()[1] == ["HST", "C3D, not fitted", "histogram, no network"]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "parameters")


def test_a_class_name_is_neither_a_formula_nor_markup(tmp_path, monkeypatch):
    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
    frames = np.zeros((16, 24, 32, 3), np.uint8)
    names = ("<script>alert(1)</script>", r"$\frac$")
    prediction_figure([Prediction(frames, names[0], 0.5, names[1])]).savefig(tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert "<script>alert" not in drawn and "&lt;script&gt;alert" in drawn and names[1] in drawn
