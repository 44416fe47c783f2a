"""Imports go one way: shared modules, then model and data, then training, book, the shell."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import hstlib

ROOT = Path(hstlib.__file__).parents[1]
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.glob("hstlib/**/*.py")
}
# Shared modules: 0.
FLOOR = {
    "model": 1,
    "data": 1,
    "training": 2,
    "inference": 3,
    "book": 3,
    "commands": 4,
    "__main__": 5,
}


def imports(module: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(FILES[module].read_text())))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), module
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
        whole = {f"{node.module}.{name.name}" for name in node.names}
        names |= (whole & FILES.keys()) or {node.module}
    return names


def test_imports_go_one_way():
    for module in FILES.keys() - {"hstlib"}:
        wing = module.split(".")[1]
        for used in (name.split(".") for name in imports(module) if name.startswith("hstlib.")):
            floors = FLOOR.get(used[1], 0), FLOOR.get(wing, 0)
            assert used[1] == wing or floors[0] < floors[1] or floors == (0, 0), (module, used)
    graph = {module: imports(module) & FILES.keys() for module in FILES if "__init__" not in module}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_only_plots_imports_matplotlib_and_nothing_imports_a_notebook_tool():
    packages = {module: {name.partition(".")[0] for name in imports(module)} for module in FILES}
    assert {m for m, used in packages.items() if "matplotlib" in used} == {"hstlib.book.plots"}
    assert not any(used & {"IPython", "papermill", "ipykernel"} for used in packages.values())
