"""The index of equations follows from chapters, code, register and tests; what is missing fails."""

import ast
import json
import re
import shutil
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from sphinx.application import Sphinx

from hstlib.book import equations
from hstlib.book.equations import TWIN_TESTS, load_index
from hstlib.book.model_map import STEPS

ROOT = Path(__file__).resolve().parents[1]
REFORMER = "notebooks/02_reformer.ipynb"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose pages and chapters can be changed."""
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib/__init__.py").touch()
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book/readings.md", tmp_path / "book")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(monkeypatch, number: int, **values) -> None:
    """Change the table's equation of that number."""
    table = [replace(e, **values) if e.number == number else e for e in equations.EQUATIONS]
    monkeypatch.setattr(equations, "EQUATIONS", tuple(table))


def test_every_equation_has_words_chapter_source_and_test():
    index = load_index()
    assert [entry.equation.number for entry in index] == list(range(1, 18))
    for entry in index:
        assert len(entry.words.split()) > 8 and entry.heading.startswith("Equation")
        assert entry.sources and entry.tests
        assert "tag" not in entry.tex
    assert index[5].tex == r"s_{spa} = \text{CONCAT}[s_1, \dots, s_8]"
    assert index[1].words.startswith('"The goal of the merge operation')


def test_the_named_tests_call_the_named_code():
    modules = (ROOT / "tests/test_modules.py").read_text()
    twins = re.search(r"(?s)^TWINS = \{(.*?)^\}", modules, re.MULTILINE)[1]
    for entry in load_index():
        bodies = ""
        for test in entry.tests:
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            (found,) = [n for n in tree.body if getattr(n, "name", "") == name]
            bodies += ast.unparse(found) + (twins if "twins" in name else "")
        called = [source.first for source in entry.sources if source.first in bodies]
        method = {1: "temporal_case", 12: "spatial", 15: "hybrid"}.get(entry.equation.number, "")
        assert called or method in bodies, entry.equation.number


def test_a_renamed_function_fails(monkeypatch):
    change(monkeypatch, 2, code=("ops.merge_window",))
    with pytest.raises(ValueError, match=r"equation \(2\): hstlib.model.ops defines no merge_wind"):
        load_index()


def test_a_missing_test_fails(monkeypatch):
    monkeypatch.setitem(TWIN_TESTS, 10, ("tests/test_ops.py::test_gelu",))
    with pytest.raises(ValueError, match=r"\(10\): there is no test tests/test_ops.py::test_gelu"):
        load_index()


def test_an_equation_without_a_test_fails(monkeypatch):
    monkeypatch.delitem(TWIN_TESTS, 17)
    with pytest.raises(ValueError, match="name the test of each"):
        load_index()


def test_an_unknown_reading_fails(monkeypatch):
    change(monkeypatch, 3, readings=(99,))
    with pytest.raises(ValueError, match=r"equation \(3\): book/readings.md has no entry R99"):
        load_index()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(eq-7)=", "(eq-70)=", r"equation \(7\): .*02_reformer.ipynb has no label \(eq-7\)="),
        (r"\tag{2}", r"\notag", r"equation \(2\): .* needs a heading, a quote .* and a numbered"),
    ],
)
def test_an_equation_that_its_chapter_lacks_fails(project, old, new, message):
    cells = json.loads((project / REFORMER).read_text())
    for cell in cells["cells"]:
        cell["source"] = [line.replace(old, new) for line in cell["source"]]
    (project / REFORMER).write_text(json.dumps(cells))
    with pytest.raises(ValueError, match=message):
        load_index()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The page as Sphinx builds it, with stubs of the pages that it links to."""
    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    source.mkdir()
    text, _, _ = (ROOT / "book/equations.md").read_text().partition("\nNext: ")
    (source / "index.md").write_text(text)
    register = re.findall(r"\(reading-r\d+\)=", (ROOT / "book/readings.md").read_text())
    sections = [f"{label}\n## {label.strip('()=')}\n" for label in register]
    (source / "readings.md").write_text("# Readings\n\n" + "\n".join(sections))
    labels = [f"(eq-{entry.equation.number})=\n## {entry.heading}\n" for entry in load_index()]
    (source / "chapters.md").write_text("# Chapters\n\n" + "\n".join(labels))
    (source / "claims.md").write_text("# Claims\n")
    settings = {"extensions": ["myst_parser", "equations"], "html_theme": "basic",
                "source_suffix": {".md": "markdown"},
                "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath"],
                "mathjax_path": "mathjax.js"}  # fmt: skip
    warnings = StringIO()
    sys.path.insert(0, str(ROOT / "book/_ext"))
    try:
        Sphinx(source, None, folder / "html", folder / "trees", "html", settings, status=None,
               warning=warnings).build(force_all=True)  # fmt: skip
    finally:
        sys.path.remove(str(ROOT / "book/_ext"))
    expected = re.compile("toctree|already registered")  # no contents; several sites in a process
    assert [w for w in warnings.getvalue().splitlines() if not expected.search(w)] == []
    return (folder / "html/index.html").read_text()


def test_the_page_shows_each_equation_with_number_source_and_links(page):
    plain = re.sub("<[^>]+>", "", page)
    for entry in load_index():
        number = entry.equation.number
        section = page.partition(f'id="equation-{number}"')[2].partition('id="equation-')[0]
        assert rf"\tag*{{({number})}}" in section
        assert f'chapters.html#eq-{number}"' in section
        for reading in entry.equation.readings:
            assert f'readings.html#reading-r{reading}"' in section
        for source in entry.sources:
            lines = source.file.read_text().splitlines()
            (head,) = [ln for ln in lines if re.match(rf"(def|class) {source.first}\b", ln)]
            assert head.partition("(")[0] in plain
    assert "claims.html#claim-m15" in page  # on Equation (3)
    assert "\\tag{" not in page  # a numbered equation stands in its chapter alone


def test_every_box_of_the_map_leads_to_a_section_of_the_page(page):
    for step in STEPS.values():
        for number in step.equations:
            assert f'href="#equation-{number}" aria-label="Equation {number}"' in page
    linked = {int(n) for n in re.findall(r'href="#equation-(\d+)"', page)}
    assert linked == set(range(1, 18))
