"""The chapters come in the order of the table of contents, and each names the next."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"Next: \[([^]]+)\]\(([^)]+)\)\s*$")


def pages() -> list[Path]:
    """The pages of the book in order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    places = [(ROOT / f"book/{name}.md", ROOT / f"{name}.ipynb") for name in names]
    return [page if page.exists() else notebook for page, notebook in places]


def markdown(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_notebooks_are_numbered_in_reading_order():
    names = [page.stem for page in pages() if page.suffix == ".ipynb"]
    assert names == sorted(names) == sorted(p.stem for p in ROOT.glob("notebooks/*.ipynb"))
    assert [int(name[:2]) for name in names] == list(range(1, len(names) + 1))


def test_every_page_but_the_reference_ends_with_a_link_to_the_next():
    order = pages()
    for page, following in zip(order[:-2], order[1:-1], strict=True):
        title, target = LINK.search(markdown(page)).groups()
        assert (page.parent / target).resolve() == following, page.name
        heading = re.search(r"(?m)^# (.+)$", markdown(following))[1]
        assert title == heading, page.name
