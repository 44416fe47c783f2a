"""Figures have captions, numbers and texts; a stale or wiped output ends the build."""

import json
from io import StringIO
from pathlib import Path

import pytest
from example_rows import make_row
from sphinx.application import Sphinx

from hstlib.book.origin import (
    STAMP,
    describe_inputs,
    digest,
    measured_with,
    provenance,
    stale_inputs,
)
from hstlib.training.rows import publish_rows

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CAPTION = "Accuracy of two models by epoch."
ALT = "Two rising lines that cross in the middle."
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


@pytest.fixture(scope="module")
def extension():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book/_ext"))
        import figures

        yield figures


def figure_cells(path: Path) -> list[dict]:
    """Cells of a notebook whose stored output is a picture."""
    cells = json.loads(path.read_text())["cells"]
    return [
        cell
        for cell in cells
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    ]


CAPTIONED = [path for path in NOTEBOOKS if "mystnb" in path.read_text()]


@pytest.mark.parametrize("path", CAPTIONED, ids=lambda path: path.stem)
def test_every_figure_of_a_chapter_has_caption_name_and_text(path):
    for cell in figure_cells(path):
        settings = cell["metadata"]["mystnb"]
        figure, alt = settings["figure"], settings["image"]["alt"]
        assert figure["name"].startswith("fig-")
        assert len(alt) > 40 and alt not in figure["caption"]
        assert figure["caption"].endswith(".")


def test_names_of_figures_are_unique():
    cells = [cell for path in CAPTIONED for cell in figure_cells(path)]
    names = [cell["metadata"]["mystnb"]["figure"]["name"] for cell in cells]
    assert len(CAPTIONED) > 8 and len(set(names)) == len(names)


def page(caption: str = f"<p>Figure B1 {CAPTION}</p>", alt: str = ALT) -> str:
    return (
        f'<figure><img src="../_images/ab.png" alt="{alt}"><figcaption>{caption}</figcaption>'
        '</figure><img src="logo.png">'
    )


def test_faults_of_a_built_page_are_found(extension):
    assert extension.find_faults(page()) == []
    name = f"../_images/{'0a' * 32}.png"
    for html, fault in [
        (page(f"<p>{CAPTION}</p>"), "has no number"),
        (page(alt=name), "no text that says"),
        (page(alt=""), "no text that says"),
        (page(alt=CAPTION), "caption as text"),
        (page().replace("figure>", "div>").replace("figcaption", "p"), "has no caption"),
    ]:
        assert any(fault in line for line in extension.find_faults(html)), html


@pytest.mark.parametrize(
    "picture",
    [
        '<svg role="img" aria-label="A map of the model.">',
        '<div class="hst-player" role="group" aria-label="Frames that move.">',
    ],
)
def test_drawings_and_players_need_a_number_too(extension, picture):
    caption = f"<figcaption><p>Figure B1 {CAPTION}</p></figcaption>"
    assert extension.find_faults(f"<figure>{picture}{caption}</figure>") == []
    (fault,) = extension.find_faults(picture)
    assert "has no caption" in fault
    (fault,) = extension.find_faults(f"<figure>{picture}{caption}</figure>".replace("B1", ""))
    assert "has no number" in fault
    assert extension.find_faults("<svg viewBox='0 0 1 1'></svg>") == []  # an icon of the theme


def test_a_link_to_a_figure_becomes_its_number(extension):
    import plain_links

    source = ['"source": [\n "[The plot\\n",\n "below](#fig-a) and [a](x.md)."\n]']
    plain_links._rewrite(None, "", source)
    assert source == ['"source": [\n "{numref}`fig-a` and [a](x.md)."\n]']


def notebook(text: str, *, wiped: bool = False, caption: bool = True) -> dict:
    """A notebook with a printed line and a figure."""
    settings = {"figure": {"caption": CAPTION, "name": "fig-a"}, "image": {"alt": ALT}}
    picture = {"output_type": "display_data", "data": {"image/png": PIXEL}, "metadata": {}}
    printed = {"output_type": "stream", "name": "stdout", "text": [f"{text}\n"]}
    cell = {"cell_type": "code", "execution_count": 1, "source": ["x = 1\n", "plt.show()"]}
    cell |= {"metadata": {"mystnb": settings} if caption else {}}
    cell |= {"outputs": [] if wiped else [printed, picture]}
    return {
        "cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# A page"]}, cell],
        "metadata": {"language_info": {"name": "python", "pygments_lexer": "ipython3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def build(folder: Path, content: dict) -> tuple[str, str]:
    """Build a site of one notebook; return its page and the warnings."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    (source / "index.ipynb").write_text(json.dumps(content))
    settings = {
        "extensions": ["myst_nb", "figures"], "html_theme": "basic", "numfig": True,
        "numfig_format": {"figure": "Figure B%s"}, "nb_execution_mode": "off",
        "source_suffix": {".ipynb": "myst-nb"},
    }  # fmt: skip
    warnings = StringIO()
    Sphinx(source, None, folder / "html", folder / "trees", "html", settings, status=None,
           warning=warnings).build()  # fmt: skip
    lines = warnings.getvalue().splitlines()
    found = "\n".join(line for line in lines if "already registered" not in line)
    return (folder / "html/index.html").read_text(), found


@pytest.fixture
def rows(extension, tmp_path, monkeypatch) -> Path:
    """A project with published rows, in which a page is built."""
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    publish_rows([make_row()], tmp_path / "rows/rows.jsonl")
    return tmp_path / "rows"


def test_a_changed_row_and_a_wiped_output_end_the_build(rows, tmp_path):
    content = notebook(describe_inputs("rows"))
    html, warnings = build(tmp_path, content)
    assert warnings == "" and "Figure B1" in html and f'alt="{ALT}"' in html
    publish_rows([make_row(0.75)], rows / "rows.jsonl")
    _, warnings = build(tmp_path, content)
    assert f"rows has sha256 {digest(rows)}; the stored output" in warnings
    _, warnings = build(tmp_path, notebook("", wiped=True))
    assert "a cell that shows results has no output: 'plt.show()'" in warnings
    _, warnings = build(tmp_path, notebook("", caption=False))
    assert "picture 1 has no caption" in warnings


@pytest.mark.parametrize("source", ['show_table(table, "t")', "print(describe_inputs(*files))"])
def test_a_wiped_table_and_a_wiped_digest_are_found(extension, source):
    content = notebook("")
    cell = content["cells"][1] | {"metadata": {}, "source": [source], "outputs": []}
    (fault,) = extension.output_faults(content | {"cells": [cell]})
    assert "no output" in fault and source in fault
    assert extension.output_faults(content | {"cells": [cell | {"outputs": [{"text": "a"}]}]}) == []


def test_a_missing_input_is_named(rows):
    text = describe_inputs("rows", rows / "rows.jsonl")
    assert [name for name, _ in STAMP.findall(text)] == ["rows", "rows/rows.jsonl"]
    (rows / "rows.jsonl").unlink()
    empty, missing = stale_inputs(text)
    assert empty.startswith("rows has sha256") and missing.startswith("there is no")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_the_stored_results(path):
    outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", [])]
    text = "\n".join("".join(output.get("text", "")) for output in outputs)
    assert stale_inputs(text) == []


def test_provenance_says_data_settings_commit_hardware_date_and_cost():
    rows = [make_row(seed=0), make_row(seed=1, epochs=7), make_row(dataset="demo-hmdb51")]
    rows[0] = rows[0].model_copy(update={"test_contents": "ab12", "seconds": 10.4})
    rows[1] = rows[1].model_copy(update={"seconds": 3590.0, "dirty": True})
    facts = provenance(rows)["HMDB51, official"]
    assert facts["runs"] == "2" and facts["seeds"] == "0, 1"
    assert facts["test videos (hash)"] == "not recorded, ab12"
    assert "epochs" in facts["settings"] and "seed" not in facts["settings"]
    assert (facts["seconds, sum"], facts["hours, sum"]) == ("3600", "1.00")
    assert rows[1].commit[:9] + "+" in facts["commits"]
    assert facts["finished"] == rows[0].finished[:10]


def test_what_a_measurement_does_not_say_is_not_recorded(rows, tmp_path):
    file = tmp_path / "speed.json"
    file.write_text(json.dumps({"hardware": "CPU; OpenCV 5", "commit": "ab12", "cpu_threads": 2}))
    (tmp_path / "counts.json").write_text("{}")
    table = measured_with(file, "counts.json")
    assert table.loc["speed"].tolist() == [
        digest(file), "CPU, threads: 2", "OpenCV 5", "ab12", "not recorded"
    ]  # fmt: skip
    assert set(table.loc["counts"][1:]) == {"not recorded"}
