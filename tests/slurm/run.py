"""Run the workflow on a real Slurm, with one job per training run, and interrupt both runs.

    python tests/slurm/run.py [--install]

An urgent job preempts the first training run; Slurm must requeue it. The second run is cancelled,
as Slurm does when a job exceeds its time limit; Snakemake must submit it again.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import yaml
from cluster import cluster, output, wait_until

ROOT = Path(__file__).resolve().parents[2]
PLAN = yaml.safe_load((ROOT / "tests/slurm/params.yaml").read_text())
BUILD = ROOT / PLAN["build"]
EPOCHS = PLAN["train"]["epochs"]
WORKFLOW = [
    *(sys.executable, "-m", "snakemake", "runs", "--nolock", "--drop-metadata"),
    *("--profile", "tests/slurm/profile", "--workflow-profile", "workflow/profiles/slurm"),
    *("--slurm-logdir", str(BUILD / "slurm"), "--slurm-keep-successful-logs"),
    # Snakemake's defaults assume accounting, and jobs that take hours.
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
]


def main() -> None:
    begin = time.monotonic()
    with cluster("--install" in sys.argv[1:]), workspace(), workflow() as process:
        first = running_job(process, set())
        output(*"sbatch -p urgent --gpus=1 --mem=100 --output=/dev/null --wrap=true".split())
        second = running_job(process, {first})
        output("scancel", second)
        code = process.wait(300)
        check(code, jobs(), first, second)
    print(f"passed in {time.monotonic() - begin:.0f} s")


@contextmanager
def workspace() -> Iterator[None]:
    """Draw videos of two classes, a texture moving right or left; remove everything at the end."""
    shutil.rmtree(BUILD, ignore_errors=True)
    try:
        for group in range(9):
            texture = np.random.default_rng(group).integers(0, 256, (48, 128, 3), np.uint8)
            texture = cv2.GaussianBlur(texture, (0, 0), 2)
            frames = [np.roll(texture, 2 * step, axis=1)[:, :64] for step in range(32)]
            videos = ROOT / PLAN["corpora"][0]["data_dir"]
            write_video(videos / f"right/seq{group}_0.avi", frames)
            write_video(videos / f"left/seq{group}_1.avi", frames[::-1])
        yield
    finally:
        shutil.rmtree(BUILD)


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), 25, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()


@contextmanager
def workflow() -> Iterator[subprocess.Popen]:
    environment = os.environ | {"HST_DATA": str(BUILD / "data")}
    process = subprocess.Popen(WORKFLOW, cwd=ROOT, env=environment)
    try:
        yield process
    except BaseException:
        for path in sorted([*BUILD.glob("logs/*"), *BUILD.glob("slurm/**/*.log")]):
            print(f"--- {path}", *path.read_text().splitlines()[-20:], sep="\n")
        raise
    finally:
        process.terminate()
        process.wait(60)


def jobs() -> dict[str, dict[str, str]]:
    """Return all jobs since Slurm was started: the fields that ``scontrol`` prints, by job id."""
    lines = output("scontrol", "show", "job", "--oneliner").splitlines()
    pairs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return {job["JobId"]: job for job in pairs if "JobId" in job}


def running_job(process: subprocess.Popen, excluded: set[str]) -> str:
    """Wait until another training run has finished an epoch, and return its job id."""
    running: list[str] = []

    def has_begun() -> bool:
        assert process.poll() is None, "snakemake ended too early"
        for job_id, job in jobs().items():
            run = job.get("Comment", "").removeprefix("rule_train_wildcards_")
            trained = (BUILD / "results" / run / "epochs.jsonl").is_file()
            if trained and job_id not in excluded and job["JobState"] == "RUNNING":
                running.append(job_id)
        return bool(running)

    wait_until(has_begun, 120)
    return running[0]


def check(code: int, jobs: dict[str, dict[str, str]], first: str, second: str) -> None:
    for job in jobs.values():
        keys = ("JobId", "Comment", "JobState", "Restarts", "NumCPUs", "TresPerJob", "TimeLimit")
        print(*(f"{key}={job.get(key, '-')}" for key in (*keys, "StartTime", "EndTime")))
    assert code == 0, f"snakemake ended with {code}"
    rows = sorted(BUILD.glob("results/*/row.json"))
    assert len(rows) == 2, rows
    for row in rows:
        assert len(json.loads(row.read_text())["epochs"]) == EPOCHS
        log = row.with_name("log.txt").read_text()
        assert log.count(" training videos,") == 2, f"not started twice:\n{log}"
        assert log.count(f" epoch 1/{EPOCHS} ") == 1, f"did not resume:\n{log}"
    assert jobs[first]["Restarts"] == "1" and jobs[first]["JobState"] == "COMPLETED"
    assert jobs[second]["JobState"] == "CANCELLED"
    same_run = [i for i, job in jobs.items() if job.get("Comment") == jobs[second]["Comment"]]
    assert [jobs[job_id]["JobState"] for job_id in same_run] == ["CANCELLED", "COMPLETED"]
    for job_id in (first, *same_run):
        assert jobs[job_id]["TresPerJob"].replace("/", ":") == "gres:gpu:1"
    training = sorted((jobs[i]["StartTime"], jobs[i]["EndTime"]) for i in (first, *same_run))
    for (_, end), (start, _) in zip(training, training[1:], strict=False):
        assert end <= start, f"two runs had the only GPU: {training}"


if __name__ == "__main__":
    main()
