"""The workflow's plans, what the workflow and make never remove, and odd folder names."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from example_rows import make_row

from hstlib.config import ClipConfig, TrainConfig
from hstlib.training.plan import planned_runs, read_plan
from hstlib.training.rows import write_row

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
    lines = [line for line in output.splitlines() if "papermill notebooks/07" in line]
    commands = [shlex.split(line) for line in lines if "/runs/" in line]  # not the book's page
    return [yaml.safe_load(command[command.index("-y") + 1]) for command in commands]


@pytest.mark.parametrize("profile", PLANS)
def test_dry_run_plans_every_training_run(profile):
    output = dry_run("--profile", f"workflow/profiles/{profile}")
    stats = output.partition("Job stats:")[2].partition("\n\n")[0]
    counts = dict(line.split() for line in stats.strip().splitlines())
    p = parameters(profile)
    assert counts["train"] == str(len(planned_runs(p)))
    assert counts["site"] == "1"
    notebooks = papermill_parameters(output)
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


def test_chapters_that_look_into_a_trained_model_get_the_one_that_the_plan_trains():
    given = "checkpoint: build/demo/results/demo-hmdb51-hst-demo-s1-seed0/last.safetensors"
    assert dry_run("--profile", "workflow/profiles/demo").count(given) == 4
    assert "{checkpoint: " not in dry_run("--profile", "workflow/profiles/paper")


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


def test_changes_on_the_command_line_reach_the_notebook(tmp_path):
    plan = write_plan(tmp_path / "plan.yaml", models={"r3d": {"epochs": 9}, "hst": {}})
    call = ["--snakefile", "workflow/Snakefile", "--configfile", str(plan), "--config"]
    output = dry_run(
        *call, "model=r3d", "seed=[3,4]", "epochs=2", "fps=25", "build=build/other one"
    )
    notebooks = papermill_parameters(output)
    assert {(n["model"], n["seed"], n["epochs"], n["fps"]) for n in notebooks} == {
        ("r3d", 3, 2, 25.0),
        ("r3d", 4, 2, 25.0),
    }
    assert {n["results_dir"] for n in notebooks} == {"build/other one/results"}
    assert "rm -rf 'build/other one/book' && mkdir -p 'build/other one/book'/notebooks" in output


def test_a_change_that_is_no_setting_of_a_run_is_refused(tmp_path):
    """Snakemake would merge it into the plan, where the settings of a model override it."""
    plan = write_plan(tmp_path / "plan.yaml")
    call = ["--snakefile", "workflow/Snakefile", "--configfile", str(plan)]
    done = snakemake(*call, "--config", "train={epochs: 2}")
    assert done.returncode and "unknown setting 'train'" in done.stdout + done.stderr


class Checkout:
    """A copy of the checkout with finished runs, where programs only write down their calls."""

    def __init__(self, root: Path, **keys):
        self.root = root
        for name in ("hstlib", "workflow", "notebooks", "benchmarks"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.plan = write_plan(root / "plan.yaml", **keys)
        self.programs = root / "programs"
        self.programs.mkdir()
        for name in ("python", "papermill"):
            self.replace(name, f'printf "%s\\n" {name} "$@" >>"$CALLS"')
        self.calls = root / "calls"

    def replace(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def snakemake(self, *options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "runs", "--cores", "1", "--nolock"]
        command += ["--snakefile", "workflow/Snakefile", "--configfile", "plan.yaml"]
        command += ["--rerun-triggers", "mtime", *options]  # as in every profile
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "CALLS": str(self.calls)}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True
        )
        done.said = done.stdout + done.stderr
        return done

    def runs(self) -> dict[str, TrainConfig]:
        return planned_runs(read_plan(self.plan))

    def results(self) -> Path:
        return self.root / read_plan(self.plan)["build"] / "results"

    def finish(self) -> None:
        """Write what finished runs leave."""
        for config in self.runs().values():
            folder = write_row(make_row(**config.model_dump()), self.results()).parent
            (folder / "last.safetensors").write_text(config.run_id)

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.results().rglob("*") if path.is_file()}


def test_finished_runs_outlive_every_change_and_every_failure(tmp_path):
    checkout = Checkout(tmp_path / "checkout", models={"r3d": {}, "hst": {}})
    checkout.replace("papermill", 'touch "$2"')  # the notebook
    checkout.finish()
    contents = checkout.contents()
    assert len(contents) == 4
    assert checkout.snakemake().returncode == 0
    marks = [checkout.root / "build/never/finished" / run_id for run_id in checkout.runs()]
    assert all(mark.is_file() for mark in marks)

    for path in [*checkout.root.glob("hstlib/**/*.py"), *checkout.root.glob("notebooks/*.ipynb")]:
        path.write_bytes(path.read_bytes() + b"\n")
    checkout.replace("papermill", "exit 1")
    done = checkout.snakemake("--config", "num_workers=2")
    assert "Nothing to be done" in done.said, done.said
    assert not checkout.calls.exists()  # nothing is prepared for them either

    for options in (("--config", "epochs=200"), ("--forceall",)):
        assert checkout.snakemake(*options).returncode, options
    assert checkout.contents() == contents

    first = min(checkout.runs())
    (checkout.results() / first).rename(tmp_path / "away")
    done = checkout.snakemake("-n")
    assert f"output: build/never/finished/{first}, build/never/runs/{first}.ipynb" in done.said


def test_no_value_of_a_plan_runs_in_the_shell(tmp_path):
    place = "some/my clips$(touch PWNED);`touch PWNED`'"
    corpora = [{"dataset": "folder", "data_dir": place, "backbone": "demo"}]
    checkout = Checkout(tmp_path / "it's a $(x)", corpora=corpora, build="build/my plan")
    (checkout.root / "build").mkdir()
    bystander = checkout.root / "plan"
    bystander.mkdir()
    done = checkout.snakemake("--config", "variant=x")
    assert "Command 'set" not in done.said, done.said
    calls = checkout.calls.read_text().splitlines()
    assert f"--data-dir={place}" in calls
    parameters = yaml.safe_load(calls[calls.index("-y") + 1])
    assert (parameters["data_dir"], parameters["results_dir"]) == (place, "build/my plan/results")
    assert not list(checkout.root.rglob("PWNED")) and bystander.is_dir()
    written = {path.name for path in checkout.root.iterdir()}
    assert "my" not in written and (checkout.root / "build/my plan/logs").is_dir()


def make(folder: Path, *targets: str) -> str:
    """Call make in a folder with the project's Makefile."""
    shutil.copy(ROOT / "Makefile", folder)
    done = subprocess.run(["make", *targets], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_clean_removes_what_make_made_and_keeps_every_run(tmp_path):
    folder = tmp_path / "a checkout"
    kept = ["build/demo/results/r/row.json", "build/my plan/results/a/last.safetensors"]
    kept += ["build/my plan/results/a/row.json", "build/my plan/logs/x", "data/store/0/index.json"]
    kept += ["data/README.md", "data/hmdb51/list.txt", "results/r/row.json"]
    made = [".venv/bin/python", "build/demo/book/index.html", "build/demo/finished/r"]
    made += ["build/.lock", "data/demo/hmdb51/a.avi", "book/_build/a", "hstlib.egg-info/b"]
    for name in (*kept, *made):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for _ in range(2):
        said = make(folder, "clean")
        files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert files == {*kept, "Makefile"}
        assert all((folder / name).read_text() == name for name in kept)
        assert "kept: build/my plan, with 1 finished runs" in said
        assert "kept: build/demo, with 1 finished runs" in said
        assert "kept: data/store" in said


def test_clean_removes_the_clips_of_the_demo(tmp_path):
    for name in ("build/demo/logs", "data/demo", "data/store/0"):
        (tmp_path / name).mkdir(parents=True)
    make(tmp_path, "clean")
    assert not (tmp_path / "build").exists() and not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("target", ["site", "lab", "book"])
@pytest.mark.parametrize("name", ["b 1", """it's "b" $(1)`x`"""])
def test_make_works_in_a_folder_with_an_odd_name(tmp_path, target, name):
    folder = tmp_path / name / "my book"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    for name in ("jupyter", "jupyter-book", "snakemake"):
        (programs / name).write_text('#!/bin/sh\necho "called $0 in $PWD"\n')
        (programs / name).chmod(0o755)
    (folder / ".venv/.installed").touch()
    said = make(folder, target)
    assert "called " in said and f"in {folder}\n" in said


@pytest.mark.parametrize("target", ["site", "book", "test"])
def test_a_copy_without_symbolic_links_is_refused_with_the_remedy(tmp_path, target):
    (tmp_path / "book").mkdir()
    (tmp_path / "book/notebooks").write_text("../notebooks")
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(["make", target], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / ".venv").exists()
    assert "book/notebooks, book/_toc.yml and book/_config.yml are files" in done.stderr
    assert "git config core.symlinks true" in done.stderr


def test_an_audit_without_the_database_says_that_nothing_was_checked(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    call = ["make", "audit", "OSV=https://localhost:9"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / ".venv").exists()
    assert done.stderr.startswith("audit: https://localhost:9 cannot be reached from here, so no v")
