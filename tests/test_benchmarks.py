"""Benchmarks use public names of hstlib and one shared module; their helpers work."""

import ast
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data.store import ClipStore

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = {path.stem: path for path in FOLDER.glob("*.py")}
SHARED = {"common", "unfolded"}  # unfolded: HST as its equations read
TESTS = {path.stem for path in Path(__file__).parent.glob("*.py")} | {"tests"}


def imported(path: Path) -> set[str]:
    """Return what a file imports, as dotted names of modules and of names in modules."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return modules | {
        f"{node.module}.{name.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


@pytest.mark.parametrize("name", FILES)
def test_a_benchmark_imports_public_names_and_no_other_benchmark_or_test(name):
    names = imported(FILES[name])
    private = [
        n for n in names if n.startswith("hstlib") and any(p[0] == "_" for p in n.split("."))
    ]
    assert private == []
    modules = {n.partition(".")[0] for n in names}
    assert modules & FILES.keys() <= SHARED - {name}
    assert modules & TESTS == set()


@pytest.mark.parametrize("name", FILES.keys() - SHARED)
def test_help_says_what_is_measured(name, monkeypatch, capsys):
    if name == "decoders":
        pytest.importorskip("av", reason="PyAV, the second decoder, is in the `test` extra")
    benchmark = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        benchmark.main()
    text = capsys.readouterr().out
    assert benchmark.__doc__.splitlines()[0] in text and "--out" in text


def test_results_have_a_line_per_row(tmp_path):
    content = {"hardware": "a", "rows": [{"x": 1}, {"x": 2}], "settings": {"size": 3}}
    path = tmp_path / "new" / "results.json"
    common = importlib.import_module("common")
    common.write(path, content)
    assert json.loads(path.read_text()) == {"commit": common.commit()} | content
    assert path.read_text().count("\n") == 2 + 2 + 4 + 1


def test_neighbours_vote_from_other_groups_only():
    geometry = importlib.import_module("geometry")
    features = np.array([[0.0], [0.1], [1.0], [1.2], [5.0], [5.1]])
    labels, groups = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2, 2])
    # nearest of another group: 2, 2, 1, 1, 3, 3, whose classes are 0, 0, 1, 1, 1, 1
    assert geometry.top1_by_neighbours(features, labels, groups, 1) == 3 / 6
    alone = np.arange(6)
    # nearest of all: 1, 0, 3, 2, 5, 4, each of the other class
    assert geometry.top1_by_neighbours(features, labels, alone, 1) == 0


def test_a_sparse_store_is_read_as_zeros(tmp_path):
    paths = [Path(f"{number}.avi") for number in range(9)]
    clip = ClipConfig(size=16, num_frames=4, clips_per_video=2)
    importlib.import_module("data_engine").write_sparse_store(tmp_path, paths, clip)
    frames, flow = ClipStore(tmp_path).read(paths[8], 1)
    assert frames.shape == (4, 16, 16, 3) and not frames.any()
    assert flow.shape == (2, 4, 16, 16) and not flow.any()
