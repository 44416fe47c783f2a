"""The workflow's plan: every profile, without running anything."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hstlib.config import ClipConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted(path.name for path in (ROOT / "workflow/profiles").iterdir())


def parameters(profile: str) -> dict:
    return yaml.safe_load((ROOT / f"workflow/params/{profile}.yaml").read_text())


@pytest.mark.parametrize("profile", PROFILES)
def test_dry_run_plans_every_training_run(profile, tmp_path):
    command = [sys.executable, "-m", "snakemake", "--profile", f"workflow/profiles/{profile}"]
    command += ["--cores", "1", "-n", "--forceall", "--nolock", "--ignore-incomplete"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    counts = {line.split()[0]: line.split()[-1] for line in output.splitlines() if line.strip()}
    p = parameters(profile)
    runs = len(p["corpora"]) * len(p["models"]) * len(p["splits"]) * len(p["seeds"])
    assert counts["train"] == str(runs)
    assert counts["site"] == "1"


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_settings_are_valid(profile):
    p = parameters(profile)
    clip = {key: p["train"].pop(key) for key in ("size", "num_windows")}
    for corpus in p["corpora"]:
        for model, settings in p["models"].items():
            TrainConfig(model=model, clip=ClipConfig(**clip), **corpus, **settings, **p["train"])


def test_paper_profile_is_the_paper():
    p = parameters("paper")
    assert p["train"]["batch_size"] == 64
    assert p["train"]["size"] == 224
    assert all(settings == {"epochs": 100} for settings in p["models"].values())
    pairs = {(corpus["dataset"], corpus["backbone"]) for corpus in p["corpora"]}
    assert pairs == {("hmdb51", "resnet21"), ("ucf101", "vgg13")}
