"""Sizes of modules and functions, and the worst patterns of hard prose."""

import ast
import json
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(ROOT.glob("hstlib/**/*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("book/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef

HARD_IN_PROSE = {
    r"\btold apart\b|\btell apart\b": "cannot be distinguished",
    r"\bso many\b": "a number",
    r"\bgo(es)? on\b(?! to)": "resumes, continues",
    r"\bsaid of\b": "described",
    r"\bis there if\b|\bis not there\b": "exists, is missing",
    r"\b(lies|lie|lay) (in|at|under|beside|among|there|on disk)\b": "is stored, is in",
    r"\bas good as\b": "equally valid",
    r"\bwork(s|ed)? (it |them |the \w+ )?out again\b": "recompute",
}
HARD_IN_DOCSTRINGS = HARD_IN_PROSE | {
    r"(?m)^\s*(\w+: )?(Of|By|Whose) ": "begin with the noun",
    r"\bnone: |\bnone (if|where|without|when)\b": "None: ..., None if ...",
}


def prose_of(path: Path) -> str:
    """The Markdown of a page or a notebook, without code blocks and quotes of the paper."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r'(?m)^>.*$|"[^"]*"', "", text)


def docstrings_of(path: Path) -> list[str]:
    """Docstrings of modules, classes, functions and attributes."""
    constants = (
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )
    return [node.value for node in constants if isinstance(node.value, str)]


def hard(text: str, patterns: dict[str, str]) -> list[str]:
    """Hard words with some context, and what to write instead."""
    return [
        f"{text[max(0, match.start() - 30) : match.end() + 30]!r}: {instead}"
        for pattern, instead in patterns.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_plain(path):
    assert [found for text in docstrings_of(path) for found in hard(text, HARD_IN_DOCSTRINGS)] == []


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_pages_are_plain(path):
    assert hard(prose_of(path), HARD_IN_PROSE) == []


def test_the_check_finds_hard_words():
    assert len(hard("fold: Of the run; none: all. It goes on.", HARD_IN_DOCSTRINGS)) == 3
    assert len(hard("    width: Of the frames.", HARD_IN_DOCSTRINGS)) == 1


def test_modules_and_functions_are_short():
    lengths = {}
    for path in MODULES:
        source = path.read_text()
        assert len(source.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, FUNCTION):
                lengths[f"{path.stem}.{node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert median(lengths.values()) < 12
