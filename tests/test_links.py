"""Links work on the site and in JupyterLab: paths that start at the file's own folder, no roles.

`book/notebooks` is a symbolic link for the site. A chapter that JupyterLab opens through it would
look for `../book` in `book/book`, so pages link to `../notebooks`, and `book/_ext/plain_links.py`
translates.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PAGES = [*sorted(ROOT.glob("book/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
ROLE = re.compile(r"\{[a-z][a-z:-]*\}`[^`]+`")
LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^()\s]+)\)")
TARGET = re.compile(r"(?m)^\(([a-z0-9-]+)\)=$")
FIGURE = re.compile(r'"name": "(fig-[a-z0-9-]+)"')
GENERATED = {"index.md": ["fig-verdict"], "equations.md": ["fig-model-map"]}

needs_symbolic_link = pytest.mark.skipif(
    not (ROOT / "book/notebooks").is_symlink(),
    reason="an unpacked archive has a copy of the notebooks in place of a symbolic link",
)


def text_of(path: Path) -> str:
    """The Markdown of a page or a notebook, without its code blocks."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def dead_links(path: Path, text: str) -> list[str]:
    """Links to a missing file, or to a target that the file lacks."""
    dead = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        content = text if target == path else text_of(target) if target.is_file() else None
        if content is None or (anchor and anchor not in targets(target, content)):
            dead.append(link)
    return dead


def targets(path: Path, text: str) -> list[str]:
    """Labels of a file: those of its text, and the names of its figures."""
    figures = FIGURE.findall(path.read_text()) if path.suffix == ".ipynb" else []
    return [*TARGET.findall(text), *figures, *GENERATED.get(path.name, [])]


def needs_jupyter_book(path: Path, text: str) -> bool:
    """Whether a text has a role, or a link through a symbolic link, for JupyterLab to fail at."""
    places = [link.partition("/")[0] for link in LINK.findall(text)]
    return bool(ROLE.search(text)) or any((path.parent / place).is_symlink() for place in places)


def test_no_file_has_a_role_or_a_path_which_jupyterlab_cannot_follow():
    files = [*NOTEBOOKS, *PAGES]
    assert not [path.stem for path in files if needs_jupyter_book(path, text_of(path))]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.stem)
def test_links_lead_to_files_and_targets(path):
    assert dead_links(path, text_of(path)) == []


def test_dead_links_are_found():
    text = "(eq-1)=\n[a](#eq-1) [b](#eq-0) [c](../readings.md) [d](../book/readings.md#reading-r99)"
    dead = ["#eq-0", "../readings.md", "../book/readings.md#reading-r99"]
    assert dead_links(ROOT / "notebooks/02_reformer.ipynb", text) == dead


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("see {doc}`x`", True),
        ("see {eq}`eq-1`", True),
        ("a {math} in braces", False),
        pytest.param("[a](notebooks/02_reformer.ipynb)", True, marks=needs_symbolic_link),
        ("[a](../notebooks/02_reformer.ipynb#eq-9)", False),
    ],
)
def test_roles_and_paths_through_the_symbolic_link_are_found(text, needed):
    assert needs_jupyter_book(ROOT / "book/index.md", text) == needed
