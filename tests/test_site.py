"""The site as `jupyter-book build book/` builds it from the stored outputs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hstlib.book.paper import EQUATIONS

ROOT = Path(__file__).resolve().parents[1]
EQUATION = r'id="equation-(\S+?)">\s*<span class="eqno">\((\d+)\)'
REMOTE = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="https?://')


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """The text of every page, by its path."""
    folder = tmp_path_factory.mktemp("site")
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["-W", "-n", "--keep-going", "--path-output", str(folder)]
    command = [str(program), "build", "book/", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    html = folder / "_build/html"
    return {str(path.relative_to(html)): path.read_text() for path in html.rglob("*.html")}


def test_equations_carry_the_papers_numbers_and_no_other_equation_has_one(pages):
    shown = {
        label: int(number)
        for text in pages.values()
        for label, number in re.findall(EQUATION, text)
    }
    assert shown == {f"eq-{equation.number}": equation.number for equation in EQUATIONS}
    assert sum(text.count('class="eqno"') for text in pages.values()) == len(EQUATIONS)


def test_references_to_equations_show_the_same_numbers(pages):
    links = [
        link
        for text in pages.values()
        for link in re.findall(r'href="[^"]*#equation-eq-(\d+)">\((\d+)\)<', text)
    ]
    assert len(links) > 20
    assert all(label == number for label, number in links), links


def test_every_notebook_has_outputs_and_no_page_needs_a_network(pages):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "cell_output" in pages[f"notebooks/{notebook.stem}.html"], notebook.stem
    assert [name for name, text in pages.items() if REMOTE.search(text)] == []
