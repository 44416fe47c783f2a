"""The Slurm profile combined with a plan's; tests/slurm/run.py runs it on a real Slurm."""

import subprocess
import sys
from pathlib import Path

import yaml

from hstlib.training.plan import planned_runs

ROOT = Path(__file__).resolve().parents[1]


def test_every_training_run_is_a_job_with_the_gpus_and_cpus_of_its_plan():
    command = [sys.executable, "-m", "snakemake", "runs", "-n", "--nolock", "--quiet", "host"]
    command += ["--profile", "workflow/profiles/paper"]
    command += ["--workflow-profile", "workflow/profiles/slurm", "--forceall"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = yaml.safe_load((ROOT / "workflow/params/paper.yaml").read_text())
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    jobs = (done.stdout + done.stderr).split("rule train:")[1:]
    assert len(jobs) == len(planned_runs(plan)) > 0
    for job in jobs:
        assert f"threads: {plan['resources']['cpus']}\n" in job
        resources = profile["set-resources"]["train"] | {
            "gpu": plan["resources"]["gpus"],
            "nodes": 1,
        }
        for name, value in resources.items():
            assert f" {name}={value}" in job, job
