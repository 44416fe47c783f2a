"""The workflow's plan: every profile, without running anything."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hstlib.config import AugmentConfig, ClipConfig, LoopConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PLANS = sorted(path.stem for path in (ROOT / "workflow/params").glob("*.yaml"))


def parameters(profile: str) -> dict:
    return yaml.safe_load((ROOT / f"workflow/params/{profile}.yaml").read_text())


def dry_run(profile: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--profile", f"workflow/profiles/{profile}"]
    command += ["--cores", "1", "-n", "-p", "--forceall", "--nolock", "--ignore-incomplete"]
    command += ["--quiet", "host"]  # and not the rules, as the profiles do
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("profile", PLANS)
def test_dry_run_plans_every_training_run(profile):
    output = dry_run(profile)
    stats = output.partition("Job stats:")[2].partition("\n\n")[0]
    counts = dict(line.split() for line in stats.strip().splitlines())
    p = parameters(profile)
    splits = sum(len(corpus.get("splits", p["splits"])) for corpus in p["corpora"])
    runs = splits * len(p["models"]) * len(p["seeds"])
    assert counts["train"] == str(runs)
    assert counts["site"] == "1"
    rate = p["models"]["hst"].get("learning_rate", 0)  # 0: the paper's
    hst = [line for line in output.splitlines() if '"model": "hst"' in line]
    assert hst and all(f'"learning_rate": {rate}' in line for line in hst)


@pytest.mark.parametrize("profile", PLANS)
def test_profile_settings_are_valid(profile):
    p = parameters(profile)
    for corpus in p["corpora"]:
        corpus.pop("splits", None)
        for model, settings in p["models"].items():
            merged = {**p["train"], "model": model, **settings, **corpus}
            clip = {key: merged.pop(key) for key in ClipConfig.model_fields if key in merged}
            change = {key: merged.pop(key) for key in AugmentConfig.model_fields if key in merged}
            loop = {key: merged.pop(key) for key in LoopConfig.model_fields if key in merged}
            TrainConfig(clip=clip, augment=change, loop=loop, **merged)


def test_paper_profile_is_the_paper():
    p = parameters("paper")
    assert p["train"]["batch_size"] == 64
    assert p["train"]["size"] == 224
    assert all(settings == {"epochs": 100} for settings in p["models"].values())
    pairs = {(corpus["dataset"], corpus["backbone"]) for corpus in p["corpora"]}
    assert pairs == {("hmdb51", "resnet21"), ("ucf101", "vgg13")}
