import ast
from pathlib import Path

import hstlib

LAYERS = [
    {"config", "files", "processes", "unpack"},
    {
        "ops",
        "video",
        "overlay",
        "flow",
        "augment",
        "metrics",
        "paper",
        "demo",
        "diagrams",
        "download",
    },
    {"store", "inspection"},
    {"datasets", "reformer", "attention"},
    {"hst", "baselines"},
    {
        "ablation",
        "architecture",
        "evaluate",
        "export",
        "verify",
        "leakage",
        "results",
        "plots",
        "plan",
    },
    {"models"},
    {"checkpoint"},
    {"train"},
    {"experiment"},
    {"__main__"},
]
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}
FILES = {path.stem: path for path in Path(hstlib.__file__).parent.glob("*.py")}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_every_module_has_a_layer():
    assert FILES.keys() - {"__init__"} == LAYER.keys()


def test_no_module_imports_from_a_later_layer():
    for module, layer in LAYER.items():
        used = {name.split(".")[1] for name in imports(FILES[module]) if name.startswith("hstlib.")}
        assert all(LAYER[name] <= layer for name in used & LAYER.keys()), (module, used)


def test_only_plots_imports_matplotlib_and_nothing_imports_a_notebook():
    for module, path in FILES.items():
        packages = {name.partition(".")[0] for name in imports(path)}
        assert not packages & {"IPython", "papermill", "ipykernel"}, module
        assert "matplotlib" not in packages or module == "plots"
