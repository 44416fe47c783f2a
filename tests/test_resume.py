"""Runs that are stopped or killed, as on a cluster, and started again by the same command."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hstlib.config import TrainConfig
from hstlib.files import UNFINISHED
from hstlib.training.rows import load_rows

EPOCHS = 12
SIGNALS = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


def command(folders: Path, results: Path, workers: int = 0) -> list[str]:
    return [
        sys.executable, "-m", "hstlib", "train", "--dataset", "folder", "--data-dir", str(folders),
        "--model", "hst", "--backbone", "demo", "--epochs", str(EPOCHS), "--batch-size", "4",
        "--device", "cpu", "--size", "16", "--clips-per-video", "2", "--flip", "--ema-decay", "0.9",
        "--num-workers", str(workers), "--results", str(results),
    ]  # fmt: skip


def epochs(results: Path) -> list[int]:
    found = list(results.glob("*/epochs.jsonl"))
    return (
        [json.loads(line)["epoch"] for line in found[0].read_text().splitlines()] if found else []
    )


def kill_in_training(arguments: list[str], results: Path, delay: float, number: int) -> bool:
    """Start a run, and send it a signal ``delay`` seconds after it has finished one more epoch.

    Returns:
        Whether it was still training.
    """
    before = len(epochs(results))
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(epochs(results)) == before:
        time.sleep(0.005)
    time.sleep(delay)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, number)
    code = process.wait()
    if alive and number != signal.SIGKILL and not list(results.glob("*/row.json")):
        assert code == 128 + number
        assert not list(results.glob(f"*/.*{UNFINISHED}"))
    return alive


def finish(arguments: list[str], results: Path) -> str:
    """Run to the end and return the hash of the weights."""
    subprocess.run(arguments, check=True, capture_output=True)
    (weights,) = results.glob("*/last.safetensors")
    names = {path.name for path in weights.parent.iterdir()} - {"state.safetensors"}
    kept = {"run.json", "row.json", "epochs.jsonl", "log.txt", "last.safetensors"}
    assert names == kept | {"curves.csv", "curves.png"}
    digest = hashlib.sha256()
    for name, value in sorted(load_file(weights).items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def check_kills(folders: Path, tmp_path: Path, kills: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = finish(command(folders, whole), whole)
    rng, killed = random.Random(0), 0
    for number in range(kills):
        # As many loader processes as there have been kills: they must not matter either.
        arguments = command(folders, broken, workers=number % 3)
        killed += kill_in_training(arguments, broken, rng.random() * 0.2, SIGNALS[number % 3])
        for name in ("state.safetensors", "row.json"):
            assert len(list(broken.glob(f"*/{name}"))) <= 1
        if list(broken.glob("*/row.json")):  # it was finished: begin anew
            assert finish(command(folders, broken), broken) == expected
            for path in broken.glob("*/*"):
                path.unlink()
    assert finish(command(folders, broken), broken) == expected
    assert killed >= kills // 2
    assert epochs(broken) == epochs(whole) == list(range(EPOCHS))
    (row,), (other,) = load_rows(broken), load_rows(whole)
    assert [e["loss"] for e in row.epochs] == [e["loss"] for e in other.epochs]
    assert (row.test, row.videos) == (other.test, other.videos)
    assert isinstance(row.config, TrainConfig)


def test_a_killed_run_resumes_to_the_same_weights(class_folders, tmp_path):
    check_kills(class_folders, tmp_path, kills=3)


@pytest.mark.slow
def test_twenty_of_each_signal(class_folders, tmp_path):
    check_kills(class_folders, tmp_path, kills=20 * len(SIGNALS))
