"""The site as `jupyter-book build book/` builds it from the stored outputs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hstlib
from hstlib.book.paper import EQUATIONS

ROOT = Path(__file__).resolve().parents[1]
EQUATION = re.compile(
    r'<div class="amsmath[^"]*"(?: id="([^"]+)")?>\s*\\\[(.*?)\\\]</div>', re.DOTALL
)
REMOTE = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="https?://')
LINK = re.compile(r'<a [^>]*href="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["-W", "-n", "--keep-going", "--path-output", str(folder)]
    command = [str(program), "build", "book/", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build/html"


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    """The text of every page, by its path."""
    return {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.html")}


def test_equations_carry_the_papers_numbers_and_no_other_equation_has_one(pages):
    shown = {}
    for text in pages.values():
        for label, content in EQUATION.findall(text):
            if label:
                (number,) = re.findall(r"\\tag\{(\d+)\}", content)
                shown[label] = int(number)
    assert shown == {f"eq-{equation.number}": equation.number for equation in EQUATIONS}
    assert sum(text.count(r"\tag{") for text in pages.values()) == len(EQUATIONS)
    assert not [name for name, text in pages.items() if 'class="eqno"' in text]


def test_references_to_equations_show_the_same_numbers(pages):
    shown = re.compile(r'href="[^"]*#eq-(\d+)"><span class="std std-ref">\((\d+)\)<')
    links = [link for text in pages.values() for link in shown.findall(text)]
    assert len(links) > 20
    assert all(label == number for label, number in links), links


def test_every_link_of_the_site_leads_to_a_page_and_a_place(site, pages):
    places = {
        (site / name).resolve(): set(re.findall(r'\bid="([^"]+)"', text))
        for name, text in pages.items()
    }
    dead = []
    for name, text in pages.items():
        for link in set(LINK.findall(text)) - {"#"}:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (site / name).parent / file.partition("?")[0] if file else site / name
            known = places.get(target.resolve(), {anchor})
            if not target.exists() or (anchor and anchor not in known):
                dead.append((name, link))
    assert dead == []


def test_every_notebook_has_outputs_and_no_page_needs_a_network(pages):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "cell_output" in pages[f"notebooks/{notebook.stem}.html"], notebook.stem
    assert [name for name, text in pages.items() if REMOTE.search(text)] == []


def test_every_page_shows_the_version(pages):
    shown = f"Version {hstlib.__version__}"
    missing = {name for name, text in pages.items() if shown not in text}
    assert [name for name in missing if not name.startswith("_static/")] == []
