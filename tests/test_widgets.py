"""Controls of the chapters, without a browser: a changed value changes what is shown."""

import json
from datetime import datetime
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from hstlib.book import widgets
from hstlib.book.player import Player
from hstlib.book.tables import NOT_RUN
from hstlib.book.trained import load_clip, load_trained, turned_clip
from hstlib.model.readings import READINGS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def in_jupyterlab(monkeypatch):
    monkeypatch.setenv(widgets.JUPYTER_SESSION, "notebook.ipynb")


@pytest.fixture(scope="module")
def trained():
    return load_trained()


def text_of(box: ipywidgets.VBox) -> str:
    """The text of what is shown below the controls."""
    (output,) = box.children[-1].outputs
    return output["data"]["text/plain"]


def lines(**values: object) -> widgets.Shown:
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    return widgets.Shown(
        Player("x", {"p": picture}), tuple(f"{k} < {v}" for k, v in values.items())
    )


def test_without_jupyterlab_the_first_values_are_shown_and_no_control_is_made(monkeypatch):
    monkeypatch.delenv(widgets.JUPYTER_SESSION, raising=False)
    shown = widgets.explore(lines, scene=("slide", "open"), every=(2, 1))
    assert shown.lines == ("scene < slide", "every < 2")
    assert "<p>scene &lt; slide</p>" in shown._repr_html_()
    assert widgets.choose_clip(lambda path: lines(path=path), Path("a.mp4")).lines == (
        "path < a.mp4",
    )


@pytest.mark.usefixtures("in_jupyterlab")
def test_a_control_changes_what_is_shown():
    box = widgets.explore(lines, scene=("slide", "open"), every=(2, 1))
    scene, every, _ = box.children
    assert text_of(box).endswith("scene < slide\nevery < 2")
    scene.value = "open"
    every.value = 1
    assert text_of(box).endswith("scene < open\nevery < 1")
    assert isinstance(scene, ipywidgets.Dropdown) and isinstance(every, ipywidgets.SelectionSlider)


@pytest.mark.usefixtures("in_jupyterlab")
def test_a_clip_is_uploaded_or_named_and_an_unusable_one_is_named(tmp_path):
    def draw(path: Path) -> widgets.Shown:
        if path.suffix != ".mp4":
            raise ValueError(f"{path.name}: no video")
        return lines(name=path.name, size=path.stat().st_size)

    (first := tmp_path / "first.mp4").write_bytes(b"12")
    box = widgets.choose_clip(draw, first)
    upload, path, _ = box.children
    assert text_of(box).endswith("name < first.mp4\nsize < 2")
    file = {"name": "../own.mp4", "content": memoryview(b"123"), "type": "", "size": 3}
    upload.value = (file | {"last_modified": datetime.now()},)
    assert text_of(box).endswith("name < own.mp4\nsize < 3")
    path.value = "notes.txt"
    assert text_of(box) == "notes.txt: no video"


def test_a_turned_clip_moves_in_its_direction():
    for direction, expected in ((0, (1, 0)), (90, (0, 1)), (180, (-1, 0))):
        clip = turned_clip("slide", direction, 2, 0)
        fast = np.hypot(*clip.motion) > 0.7 * np.hypot(*clip.motion).max()
        mean = np.array([component[fast].mean() for component in clip.motion])
        assert mean @ expected > 0.9 * np.linalg.norm(mean) > 0
    assert np.array_equal(turned_clip("slide", 0, 2, 0).frames, load_clip().frames)


@pytest.mark.usefixtures("in_jupyterlab")
def test_moving_the_drawn_clip_changes_frames_flow_and_maps(trained):
    draw = partial(widgets.draw_motion, *trained)
    before, after = (draw("slide", direction, 2, 0) for direction in (0, 180))
    for name, pictures in before.player.panels.items():
        assert not np.array_equal(pictures, after.player.panels[name]), name
    assert "slide_right" in before.lines[-1].partition(",")[0] != after.lines[-1].partition(",")[0]


def test_every_reading_of_the_list_changes_the_logits_but_not_the_model(trained):
    model, classes = trained
    names = widgets.same_weights()
    assert names[0] == "paper" and "modules-in-each-unit" not in names
    shown = {name: widgets.draw_reading(model, classes, load_clip(), name) for name in names}
    assert len({s.player.panels["attention (17)"].tobytes() for s in shown.values()}) > 8
    for name in names[1:]:
        assert READINGS[name].sentence in shown[name].lines[0]
        assert shown[name].lines[1].startswith("logits: ")
    again = widgets.draw_reading(model, classes, load_clip(), "paper")
    assert again.lines == shown["paper"].lines


def test_accuracy_comes_from_published_rows(monkeypatch):
    assert "%, split" in widgets.published("paper")[0]
    monkeypatch.setattr(widgets, "study_rows", lambda: [])
    assert widgets.published("paper")[0].endswith(NOT_RUN)


@pytest.mark.parametrize(
    ("chapter", "count"), [("01_data_and_flow", 3), ("04_hybrid_attention", 2)]
)
def test_stored_outputs_have_players_and_no_controls(chapter, count):
    text = (ROOT / f"notebooks/{chapter}.ipynb").read_text()
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    assert sum("hst-player" in page for page in pages) == count
    assert "widget-view" not in text and "widget-state" not in text
