"""Every equation of the paper has code, a test, a cell in the book and its readings."""

import importlib
import json
import re
from pathlib import Path

import pytest

from hstlib.book.paper import EQUATIONS

ROOT = Path(__file__).resolve().parents[1]
TESTS = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
READINGS = (ROOT / "book/readings.md").read_text()


def numbers_in(text: str) -> set[int]:
    """Equation numbers of 'Eq. (7)', 'Eqs. (3) and (4)' and 'Eqs. (10)-(12)'."""
    numbers = set()
    for words in re.findall(r"Eqs?\. ((?:\(\d+\)(?:-|, | and )?)+)", text):
        ends = [int(number) for number in re.findall(r"\d+", words)]
        numbers |= set(range(ends[0], ends[-1] + 1)) if "-" in words else set(ends)
    return numbers


def test_all_seventeen_equations_are_listed():
    assert [equation.number for equation in EQUATIONS] == list(range(1, 18))


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda equation: f"eq{equation.number}")
def test_equation_has_code_test_cell_and_readings(equation):
    notebook = json.loads((ROOT / f"notebooks/{equation.notebook}.ipynb").read_text())
    source = {"code": "", "markdown": ""}
    for cell in notebook["cells"]:
        source[cell["cell_type"]] += "".join(cell["source"]) + "\n"
    assert f"(eq-{equation.number})" in source["markdown"], "no labelled equation"
    for code in equation.code:
        module, name = code.split(".")
        implementation = getattr(importlib.import_module(f"hstlib.model.{module}"), name)
        assert equation.number in numbers_in(implementation.__doc__), code
        assert re.search(rf"\b{name}\b", TESTS), f"{code} has no test"
        assert re.search(rf"\b{name}\b", source["code"]), f"{code} is in no cell"
    for reading in equation.readings:
        assert f"(reading-r{reading})=" in READINGS
