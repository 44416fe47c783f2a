"""Players and the trained model of the chapters."""

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hstlib.book.inside import look_inside
from hstlib.book.player import Player, maps_to_rgb
from hstlib.book.study import FITTED
from hstlib.book.trained import SIZE, book_run, load_clip, load_trained, untrained
from hstlib.training.rows import ROW, load_row

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("02_reformer", "03_spatial_attention", "04_hybrid_attention")


def pictures(count: int, height: int = 4, width: int = 6) -> np.ndarray:
    shape = count, height, width, 3
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def cells_of(chapter: str) -> list[dict]:
    return json.loads((ROOT / f"notebooks/{chapter}.ipynb").read_text())["cells"]


def code_cells(chapter: str) -> list[dict]:
    return [cell for cell in cells_of(chapter) if cell["cell_type"] == "code"]


def test_a_player_holds_its_pictures_and_needs_nothing_else():
    frames, maps = pictures(16), pictures(8)
    html = Player("What moves", {"frames": frames, "maps <8>": maps}).html()
    strips = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    for strip, expected in zip(strips, (frames, maps), strict=True):
        png = np.frombuffer(base64.b64decode(strip), np.uint8)
        decoded = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.array_equal(decoded, np.concatenate(expected, axis=1))
    assert re.findall(r'data-count="(\d+)"', html) == ["16", "8"]
    assert 'data-steps="16"' in html and 'max="16"' in html
    assert "http" not in html and 'alt="maps &lt;8&gt;"' in html
    assert "prefers-reduced-motion" in html and '<div class="controls" hidden>' in html


def test_a_player_without_scripts_shows_the_first_frame():
    html = Player("x", {"frames": pictures(16)}).html()
    assert 'style="aspect-ratio:6/4"' in html and 'style="width:1600%"' in html
    assert "overflow:hidden" in html and "transform" not in html.partition("<script>")[0]


@pytest.mark.parametrize("panel", [pictures(3)[0], pictures(3).astype(float), pictures(3)[:0]])
def test_other_than_pictures_is_refused(panel):
    with pytest.raises(ValueError, match="panel 'frames' has .* expected uint8"):
        Player("x", {"frames": panel})


def test_a_player_without_panels_is_refused():
    with pytest.raises(ValueError, match="at least one panel"):
        Player("x", {})


def test_maps_have_one_scale():
    maps = np.array([[[0.0, 1.0]], [[2.0, 4.0]]])
    colours = maps_to_rgb(maps)
    assert colours.shape == (2, 1, 2, 3) and colours.dtype == np.uint8
    assert colours[0, 0, 0].sum() < colours[0, 0, 1].sum() < colours[1, 0, 1].sum()
    assert np.array_equal(maps_to_rgb(maps, 0, 2)[1, 0, 0], maps_to_rgb(maps, 0, 2)[1, 0, 1])


def test_the_weights_of_the_book_know_both_directions_of_unseen_films():
    model, classes = load_trained()
    right = 0
    for seed in range(3):
        for reverse, name in ((False, "slide_right"), (True, "slide_left")):
            clip = load_clip(seed=seed, reverse=reverse)
            logits = look_inside(model, clip.clips, clip.flow)["logits"]
            right += classes[int(logits.argmax())] == name
    assert right >= 5  # a random model of eight classes finds fewer than one of six
    run, results = book_run()
    assert run.size == SIZE
    row = load_row(results / run.run_id / ROW)
    assert row.training_top1 >= FITTED and row.test["top1"] > 7 / len(classes)


def test_a_checkpoint_can_be_loaded_where_the_default_data_type_is_another():
    """As in the chapters, whose equations are compared in float64."""
    model, _ = load_trained()
    torch.set_default_dtype(torch.float64)
    try:
        again, _ = load_trained()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float64 and torch.equal(one, other)


def test_an_untrained_model_has_the_size_of_the_trained_one_and_fixed_weights():
    model, _ = load_trained()
    clip = load_clip()
    one, other = (look_inside(untrained(model, clip), clip.clips, clip.flow) for _ in range(2))
    seen = look_inside(model, clip.clips, clip.flow)
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in seen.items()}
    assert all((one[name] == other[name]).all() for name in one)


def test_a_clip_played_backwards_moves_the_other_way():
    forwards, backwards = load_clip(), load_clip(reverse=True)
    assert forwards.frames.shape == backwards.frames.shape == (16, SIZE, SIZE, 3)
    speed = SIZE / 48  # pixels per frame, of one at 48 pixels
    assert forwards.motion[0].max() > speed and backwards.motion[0].min() < -speed


def test_steps_of_the_reformer_have_at_most_eight_lines():
    for cell in code_cells("02_reformer"):
        if {"hide-input", "hide-cell", "parameters"} & set(cell["metadata"].get("tags", [])):
            continue
        lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
        assert len(lines) <= 8, lines[0]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_has_caption_number_and_text_for_readers_who_do_not_see_it(chapter):
    names = []
    for cell in code_cells(chapter):
        outputs = [output.get("data", {}) for output in cell["outputs"]]
        drawn = [data for data in outputs if {"image/png", "text/html"} & data.keys()]
        if not drawn:
            continue
        options = cell["metadata"]["mystnb"]
        assert options["figure"]["caption"].endswith(".")
        names.append(options["figure"]["name"])
        if "image/png" in drawn[0]:
            assert len(options["image"]["alt"].split()) > 8
        else:
            assert re.search(r'aria-label="[^"]{9,}"', "".join(drawn[0]["text/html"]))
    assert len(names) == len(set(names)) >= 3


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_exercises_come_before_the_end_with_a_folded_solution_that_asserts(chapter):
    cells = cells_of(chapter)
    (at,) = [i for i, c in enumerate(cells) if "".join(c["source"]).startswith("## Exercises")]
    solution, closing = cells[at + 1], "".join(cells[at + 2]["source"])
    assert "hide-cell" in solution["metadata"]["tags"]
    assert solution["metadata"]["jupyter"] == {"source_hidden": True}
    source = "".join(solution["source"])
    questions = re.findall(r"(?m)^\d\. ", "".join(cells[at]["source"]))
    assert len(re.findall(r"(?m)^# \d\. ", source)) == len(questions) >= 3
    assert source.count("assert") >= 2
    assert "## What the paper claims, and what was measured" in closing
