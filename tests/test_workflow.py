"""The workflow's plans: every profile, without running anything."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hstlib.config import ClipConfig, TrainConfig
from hstlib.training.plan import planned_runs

ROOT = Path(__file__).resolve().parents[1]
PLANS = sorted(path.stem for path in (ROOT / "workflow/params").glob("*.yaml"))


def parameters(profile: str) -> dict:
    return yaml.safe_load((ROOT / f"workflow/params/{profile}.yaml").read_text())


def snakemake(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "--cores", "1", "--nolock", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def dry_run(*options: str) -> str:
    done = snakemake("--forceall", "--ignore-incomplete", "--quiet", "host", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def papermill_parameters(output: str) -> list[dict]:
    """Return the parameters of all training notebooks, as papermill reads them."""
    commands = [
        shlex.split(line) for line in output.splitlines() if "papermill notebooks/07" in line
    ]
    return [yaml.safe_load(command[command.index("-y") + 1]) for command in commands]


@pytest.mark.parametrize("profile", PLANS)
def test_dry_run_plans_every_training_run(profile):
    output = dry_run("--profile", f"workflow/profiles/{profile}")
    stats = output.partition("Job stats:")[2].partition("\n\n")[0]
    counts = dict(line.split() for line in stats.strip().splitlines())
    p = parameters(profile)
    splits = sum(len(corpus.get("splits", p["splits"])) for corpus in p["corpora"])
    runs = splits * len(p["models"]) * len(p["seeds"])
    assert counts["train"] == str(runs)
    assert counts["site"] == "1"
    rate = p["models"]["hst"].get("learning_rate", 0.01)  # by default the paper's
    notebooks = papermill_parameters(output)
    hst = [notebook for notebook in notebooks if notebook["model"] == "hst"]
    assert hst and all(notebook["learning_rate"] == rate for notebook in hst)
    for notebook in notebooks:
        assert notebook.pop("results_dir") == f"{p['build']}/results"
        assert notebook.keys() == TrainConfig.model_fields.keys()
    configs = [TrainConfig.from_flat(notebook) for notebook in notebooks]
    assert {config.run_id: config for config in configs} == planned_runs(p)


def write_plan(path: Path, **keys) -> Path:
    plan = {
        "build": "build/never",
        "seeds": [0],
        "splits": [1],
        "corpora": [{"dataset": "folder", "data_dir": "some/my clips", "backbone": "demo"}],
        "train": {"learning_rate": 1e-5, "fps": 12.5, "size": 48, "flow": "farneback"},
        "models": {"r3d": {}},
        "resources": {"gpus": 2, "cpus": 1},
    }
    path.write_text(yaml.safe_dump(plan | keys))
    return path


def test_every_setting_of_a_plan_reaches_the_notebook_and_the_clips(tmp_path):
    plan = write_plan(tmp_path / "plan.yaml")
    output = dry_run("--snakefile", "workflow/Snakefile", "--configfile", str(plan))
    (notebook,) = papermill_parameters(output)
    assert notebook.pop("num_processes") == 2  # one for each GPU
    assert notebook.pop("results_dir") == "build/never/results"
    config = TrainConfig.from_flat(notebook)
    assert (config.learning_rate, config.fps, config.size) == (1e-5, 12.5, 48)
    (prepare,) = (line for line in output.splitlines() if "hstlib prepare" in line)
    options = dict(part[2:].split("=") for part in shlex.split(prepare) if "=" in part)
    assert options.pop("data-dir") == "some/my clips"
    clip = {name.replace("-", "_"): value for name, value in options.items()}
    assert ClipConfig.from_flat(clip) == config.clip


def test_a_typing_error_in_a_plan_fails_in_plain_words(tmp_path):
    plan = write_plan(tmp_path / "plan.yaml", train={"epoch": 3})
    done = snakemake("--snakefile", "workflow/Snakefile", "--configfile", str(plan))
    assert done.returncode
    assert "train: unknown setting 'epoch'; did you mean 'epochs'?\n" in done.stdout + done.stderr


@pytest.mark.parametrize("profile", PLANS)
def test_profile_settings_are_valid(profile):
    assert planned_runs(parameters(profile))


def test_paper_profile_is_the_paper():
    p = parameters("paper")
    assert p["train"]["batch_size"] == 64
    assert p["train"]["size"] == 224
    assert all(settings == {"epochs": 100} for settings in p["models"].values())
    pairs = {(corpus["dataset"], corpus["backbone"]) for corpus in p["corpora"]}
    assert pairs == {("hmdb51", "resnet21"), ("ucf101", "vgg13")}
