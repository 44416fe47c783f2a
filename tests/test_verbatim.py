"""Commands of the pages work as written: each file that one names exists or is made before."""

import json
import re
import shlex
from pathlib import Path

import pytest

from hstlib.data import demo
from hstlib.training.plan import planned_runs, read_plan

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("book/*.md"))]
SOURCES = [*PAGES, *sorted(ROOT.glob("notebooks/*.ipynb"))]
TRACKED = re.compile(r"(?:workflow|notebooks|benchmarks|tests)/[\w./-]*\w")
RUN = re.compile(r"build/demo/results/([\w-]+)/last\.safetensors")
VIDEO = re.compile(r"data/demo/hmdb51/(\S+\.avi)")


def commands(path: Path) -> list[list[str]]:
    """The words of each command in the bash blocks and in the code of the text of a page."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    spans = re.findall(r"`((?:papermill|pytest|snakemake|python) [^`<>]+)`", text)
    return [shlex.split(line, comments=True) for line in (*blocks.splitlines(), *spans)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_files_of_the_project_that_commands_name_exist(path):
    named = {word for words in commands(path) for word in words if TRACKED.fullmatch(word)}
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_training_with_papermill_names_a_folder_of_results_to_resume_from(path):
    training = [w for w in commands(path) if w[:2] == ["papermill", "notebooks/07_train.ipynb"]]
    assert all("results_dir" in words for words in training)


def test_the_files_are_found():
    assert sum(len(commands(path)) for path in SOURCES) > 40
    named = {w for path in SOURCES for words in commands(path) for w in words}
    assert {"notebooks/07_train.ipynb", "workflow/profiles/paper"} <= named


def test_checkpoints_of_the_pages_are_runs_of_the_demo():
    runs = planned_runs(read_plan(ROOT / "workflow/params/demo.yaml"))
    named = {name for path in PAGES for name in RUN.findall(path.read_text())}
    assert named and named <= runs.keys()


def test_videos_of_the_pages_are_drawn_by_the_demo(tmp_path):
    drawn = {str(c.path.relative_to(tmp_path)) for c in demo._write_hmdb51(tmp_path, 0)}
    named = {name for path in PAGES for name in VIDEO.findall(path.read_text())}
    assert named and named <= drawn
