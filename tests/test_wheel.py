"""The wheel works outside of the checkout; the source distribution is the whole project."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import hstlib

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
SCRIPT = """
import json, sys
import hstlib

predictor = hstlib.load("model.safetensors")
prediction = predictor("clip.avi", top=2)
windows = list(predictor.watch("clip.avi"))
answer = {"top": prediction.top, "first": windows[0].top, "count": len(windows)}
print(json.dumps({"file": hstlib.__file__, "classes": predictor.classes, **answer}))
"""
QUICK = ["test_metrics.py", "test_flow.py", "test_pages.py", "test_benchmarks.py"]


def project_files() -> list[str]:
    """Names of the files of the project, tracked or new; in an unpacked archive, of all files."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    names = listed.stdout.splitlines()
    if "pyproject.toml" not in names:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
        names = [
            name for name in names if not {"__pycache__", ".pytest_cache"} & {*Path(name).parts}
        ]
    return [name for name in names if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> SimpleNamespace:
    """The wheel and the source distribution of a copy of the project, and its files' names."""
    pytest.importorskip("setuptools", reason="setuptools builds the archives")
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    names = project_files()
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, project / name, follow_symlinks=False)
    for kind in ("wheel", "sdist"):
        command = [sys.executable, "-c", BUILD.format(kind=kind), folder]
        ran = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return SimpleNamespace(wheel=wheel, sdist=sdist, folder=folder, names={*names})


def test_a_plain_script_outside_the_checkout_predicts_with_the_wheel(
    built, finished_run, class_folders, tmp_path
):
    packages, elsewhere = tmp_path / "packages", tmp_path / "elsewhere"
    zipfile.ZipFile(built.wheel).extractall(packages)
    elsewhere.mkdir()
    shutil.copy(finished_run.checkpoint, elsewhere / "model.safetensors")
    video = next(class_folders.rglob("*.avi"))
    shutil.copy(video, elsewhere / "clip.avi")
    (elsewhere / "script.py").write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=elsewhere, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(packages)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert Path(answer["file"]) == packages / "hstlib" / "__init__.py"
    expected = hstlib.load(finished_run.checkpoint)(video)
    assert answer["classes"] == ["left", "right"] and answer["count"] == 1
    assert dict(answer["top"]) == pytest.approx(dict(expected.top), abs=1e-6)


def test_the_wheel_has_every_module_and_nothing_else(built):
    modules = {name for name in built.names if name.startswith("hstlib/")}
    names = {name for name in zipfile.ZipFile(built.wheel).namelist() if ".dist-info/" not in name}
    assert names == modules


def test_the_source_distribution_has_every_file_of_the_project(built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert built.names - names == set()


@pytest.mark.slow
def test_the_source_distribution_passes_tests_of_its_own(built):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(built.folder / "unpacked", filter="data")
    (project,) = (built.folder / "unpacked").iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, *(f"tests/{name}" for name in QUICK)], cwd=project, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
