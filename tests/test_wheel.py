"""The wheel works outside of the checkout; the source distribution is the whole project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from own_folders import draw_folders

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


TRAIN = """train --dataset folder --data-dir my-clips --backbone demo --size 48 --batch-size 4
    --learning-rate 0.003 --schedule cosine"""
RUN = "results/my-clips-hst-demo-s1-seed0"


class Environment:
    """A new environment with the wheel, and a folder to work in that is no checkout.

    Attributes:
        seconds: Time of every step, by its name.
    """

    def __init__(self, folder: Path, wheel: Path):
        self.folder, self.seconds = folder, {}
        venv.create(folder / "environment", with_pip=True)
        (self.bin,) = {*folder.glob("environment/bin"), *folder.glob("environment/Scripts")}
        self.variables = {
            name: value for name, value in os.environ.items() if name != "PYTHONPATH"
        } | {"HST_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
        with self.step("install"):
            options = ["-q", "--constraint", str(ROOT / "constraints.txt")]
            process = self.start(
                "-m", "pip", "install", *options, f"{wheel}[export]", "onnxruntime"
            )
            said, _ = process.communicate()
        if "No matching distribution" in said:
            pytest.skip(f"packages cannot be installed here: {said[-300:]}")
        assert process.returncode == 0, said
        draw_folders(folder)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.bin / "python", *arguments], cwd=self.folder, env=self.variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def call(self, name: str, command: str, program: str = "-m hstlib") -> str:
        """Run a command to its end, and return what it printed."""
        with self.step(name):
            process = self.start(*program.split(), *command.split())
            said, _ = process.communicate(timeout=3600)
        assert process.returncode == 0, said
        return said

    def interrupt(self, name: str, command: str, epochs: Path) -> str:
        """Press Ctrl-C after the first epoch, and return what was printed."""
        with self.step(name):
            process = self.start("-m", "hstlib", *command.split())
            while process.poll() is None and not (epochs.is_file() and epochs.stat().st_size):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=600)
        assert process.returncode == 130, said
        return said


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on this machine; the address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_from_a_folder_of_clips_to_onnx_in_a_new_environment(built, tmp_path):
    shell = Environment(tmp_path, built.wheel)
    run, weights = tmp_path / RUN, f"{RUN}/last.safetensors"
    assert "class folders" in shell.call("adopt", "adopt my-clips")
    said = shell.interrupt("train, Ctrl-C", f"{TRAIN} --epochs 2", run / "epochs.jsonl")
    place = said.rstrip().rpartition(" the same command resumes ")[2]
    assert place == "after epoch 1" or place.startswith("in epoch 2, after step ")
    said = shell.call("resume", f"{TRAIN} --epochs 2")
    assert f"resuming {place}" in said and "test top-1" in said
    said = shell.call("train longer", f"{TRAIN} --epochs 4")
    assert "resuming after epoch 2" in said and "epochs is 4 instead of 2" in said
    assert len((run / "epochs.jsonl").read_text().splitlines()) == 4
    other = TRAIN.replace("my-clips", "other-clips").replace("0.003", "0.001")
    said = shell.call("fine-tune on other classes", f"{other} --epochs 1 --from {weights}")
    assert "tensors made anew: head.2.weight, head.2.bias" in said
    said = shell.call("evaluate on a labelled folder", f"evaluate {weights} --on other-clips")
    assert "12 clips of 1 of the model's 2 classes" in said and "disc (12)" in said
    assert "warning: the model was trained on" in said and "  close: " in said
    shell.call("train a baseline", f"{TRAIN} --epochs 4 --model r3d-standard")
    assert "HST minus standard R3D" in shell.call("compare", "compare results")
    shell.call("explain", f"predict clip.avi --checkpoint {weights} --explain maps.mp4")
    assert (tmp_path / "maps.mp4").stat().st_size > 1000
    said = shell.call("predict a file", f"predict clip.avi --checkpoint {weights} --json")
    predicted = dict(json.loads(said.splitlines()[-1])["top"])
    assert predicted.keys() == {"close", "slide_left"}
    with served(tmp_path) as address:
        said = shell.call("stream", f"stream {address}/clip.avi --checkpoint {weights}")
    windows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert dict(windows[0]["top"]).keys() == predicted.keys() and "windows, 0 left out" in said
    shell.call("export", f"export {weights} model.onnx")
    example = f"{ROOT / 'examples/onnx_predict.py'}"
    said = shell.call("ONNX example", "model.onnx clip.avi", program=example)
    without_torch = {name: float(p) for name, p in map(str.split, said.splitlines())}
    assert without_torch == pytest.approx(predicted, abs=1e-4)
    print(*(f"{name:32}{seconds:7.1f} s" for name, seconds in shell.seconds.items()), sep="\n")
