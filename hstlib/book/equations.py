"""The equation index: the words, readings, source and tests of each equation of the paper.

Equation and words are read from the chapter that derives it, so the index cannot differ from it.
"""

import ast
import json
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from hstlib.book.paper import EQUATIONS, Equation
from hstlib.config import project_path

_OPS, _MODULES = "tests/test_ops.py", "tests/test_modules.py"
_TWIN_MODULE = f"{_MODULES}::test_modules_are_their_unfolded_twins_forward_and_backward"
_SPLIT = f"{_OPS}::test_split_channels_is_its_loop"
_STATISTICS = f"{_OPS}::test_window_statistics_are_their_loop"

TWIN_TESTS: dict[int, tuple[str, ...]] = {
    1: (f"{_MODULES}::test_temporal_feature_is_the_largest_over_the_frames", _TWIN_MODULE),
    2: (f"{_OPS}::test_merge_windows_is_its_loop",),
    3: (_STATISTICS, f"{_OPS}::test_window_statistics_by_hand"),
    4: (_STATISTICS, f"{_OPS}::test_window_statistics_by_hand"),
    5: (f"{_OPS}::test_normalise_windows_is_its_loop",),
    6: (f"{_OPS}::test_concat_windows_is_its_loop",),
    7: (f"{_OPS}::test_previous_windows_are_their_loop", _TWIN_MODULE),
    8: (f"{_OPS}::test_max_pool_is_its_loop", _TWIN_MODULE),
    9: (f"{_OPS}::test_masked_similarity_is_its_loop", _TWIN_MODULE),
    10: (f"{_OPS}::test_gelu_product_is_its_loop",),
    11: (f"{_OPS}::test_spatial_softmax_is_its_loop",),
    12: (f"{_MODULES}::test_spatial_attention_is_its_equations", _TWIN_MODULE),
    13: (_SPLIT,),
    14: (_SPLIT,),
    15: (f"{_MODULES}::test_hybrid_attention_is_its_equations", _TWIN_MODULE),
    16: (f"{_OPS}::test_expand_channels_is_its_loop",),
    17: (f"{_OPS}::test_block_in_attention_is_its_loop", _TWIN_MODULE),
}
"""Tests that compare the library with a plain transcription of the equation."""


@dataclass(frozen=True)
class Source:
    """Implementation of an equation.

    Attributes:
        name: Full name, such as ``hstlib.model.ops.merge_windows``.
        file: File that defines it.
        first: Name of the function or class in that file.
    """

    name: str
    file: Path
    first: str


@dataclass(frozen=True)
class IndexEntry:
    """An equation with everything that the book has about it.

    Attributes:
        equation: Number, chapter and readings.
        tex: The equation in TeX, without number.
        words: The paper's words in front of it, Markdown of one line.
        heading: Heading of its section in the chapter.
        chapter: Title of the chapter.
        sources: Functions and modules that implement it.
        tests: Tests that compare them with a transcription, as pytest names them.
    """

    equation: Equation
    tex: str
    words: str
    heading: str
    chapter: str
    sources: tuple[Source, ...]
    tests: tuple[str, ...]


def load_index() -> list[IndexEntry]:
    """Collect the index entries of all equations.

    Raises:
        ValueError: If an equation has no label or words in its chapter, no implementation, no entry
            in the readings register or no test. The message names the equation and what to do.
    """
    numbers = [equation.number for equation in EQUATIONS]
    if numbers != list(TWIN_TESTS):
        raise ValueError(
            f"hstlib.book.equations.TWIN_TESTS has tests for {list(TWIN_TESTS)}, but the paper's "
            f"equations are {numbers}; name the test of each"
        )
    return [_entry(equation) for equation in EQUATIONS]


def _entry(equation: Equation) -> IndexEntry:
    cells = _markdown_cells(equation.notebook)
    tex, words, heading = _find_in_chapter(equation, cells)
    register = project_path("book/readings.md").read_text()
    for reading in equation.readings:
        if f"(reading-r{reading})=" not in register:
            raise ValueError(
                f"equation ({equation.number}): book/readings.md has no entry R{reading}"
            )
    for test in TWIN_TESTS[equation.number]:
        _check_test(equation.number, test)
    return IndexEntry(
        equation,
        tex,
        words,
        heading,
        re.findall(r"(?m)^# (.+)$", "\n".join(cells))[0],
        tuple(_source(equation.number, code) for code in equation.code),
        TWIN_TESTS[equation.number],
    )


def _markdown_cells(notebook: str) -> list[str]:
    cells = json.loads(project_path(f"notebooks/{notebook}.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def _find_in_chapter(equation: Equation, cells: list[str]) -> tuple[str, str, str]:
    """Return TeX, words and heading: the last quote and the last heading before the label."""
    label = f"(eq-{equation.number})=\n"
    place = f"equation ({equation.number}): notebooks/{equation.notebook}.ipynb"
    text = next((cell for cell in cells if label in cell), None)
    if text is None:
        raise ValueError(f"{place} has no label {label.strip()}; put it before the equation")
    before, _, after = text.partition(label)
    shown = re.match(r"\\begin\{equation\*\}\n(.*?)\s*\\tag\{\d+\}\n\\end", after, re.DOTALL)
    quotes = re.findall(r"(?:^> ?.*\n)+", before, re.MULTILINE)
    headings = re.findall(r"(?m)^## (.+)$", before)
    if not (shown and quotes and headings):
        raise ValueError(f"{place} needs a heading, a quote of the paper and a numbered equation")
    words = " ".join(line.removeprefix(">").strip() for line in quotes[-1].splitlines())
    return shown[1], words, headings[-1]


def _source(number: int, code: str) -> Source:
    module_name, name = code.split(".")
    module: ModuleType = import_module(f"hstlib.model.{module_name}")
    file = Path(str(module.__file__))
    if name not in _definitions(file):
        raise ValueError(
            f"equation ({number}): {module.__name__} defines no {name}; correct "
            "hstlib.book.paper.EQUATIONS"
        )
    return Source(f"{module.__name__}.{name}", file, name)


def _check_test(number: int, test: str) -> None:
    file, _, name = test.partition("::")
    path = project_path(file)
    if not path.is_file() or name not in _definitions(path):
        raise ValueError(
            f"equation ({number}): there is no test {test}; correct "
            "hstlib.book.equations.TWIN_TESTS"
        )


def _definitions(path: Path) -> set[str]:
    """Return the names of the functions and classes that a file defines."""
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
