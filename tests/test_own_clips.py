"""The page "Your own clips": every command runs as it is written there, outside of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from own_folders import draw_folders

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book/own_clips.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path) -> Path:
    draw_folders(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_the_commands_of_the_page_run_as_written(folder):
    python = Path(sys.executable).parent
    environment = os.environ | {
        "HST_CACHE": str(folder / "cache"),
        "PATH": f"{python}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def call(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + done.stderr

    said = call("bash", "-euc", "\n".join(blocks("bash")))
    for words in (
        "class folders",
        "epochs is 3 instead of 2",
        "HST minus standard R3D",
        "tensors made anew: head.2.weight, head.2.bias",
        "warning: the model was trained on",
    ):
        assert words in said, said
    run = folder / "results/my-clips-hst-demo-s1-seed0"
    assert {"curves.csv", "curves.png", "row.json", "last.safetensors"} <= {*os.listdir(run)}
    assert (folder / "maps.mp4").stat().st_size > 1000
    windows = [json.loads(line) for line in said.splitlines() if line.startswith('{"start"')]
    assert windows and windows[0]["end"] == 1.0
    (script,) = blocks("python")
    assert "('close', 'slide_left')" in call(sys.executable, "-c", script)
