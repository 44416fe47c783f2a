"""Run the workflow on a real Slurm: one job per training run, and what happens when jobs die.

    python tests/slurm/run.py [--install]

A more urgent job takes the GPU from the first training run; Slurm has to start that run again. The
second one is cancelled, as Slurm does at the end of a job's time; Snakemake has to submit another.
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
    # The defaults are for a cluster with accounting, and for jobs of hours.
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
    """Draw two classes of a moving texture, to the right and to the left; at the end remove all."""
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
    """Ask Slurm for all jobs since it was started: what ``scontrol`` prints, by job number."""
    lines = output("scontrol", "show", "job", "--oneliner").splitlines()
    pairs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return {job["JobId"]: job for job in pairs if "JobId" in job}


def running_job(process: subprocess.Popen, others: set[str]) -> str:
    """Wait for another training run to have an epoch behind it, and return its job's number."""
    found: list[str] = []

    def look() -> bool:
        assert process.poll() is None, "snakemake ended too early"
        for number, job in jobs().items():
            run = job.get("Comment", "").removeprefix("rule_train_wildcards_")
            begun = (BUILD / "results" / run / "epochs.jsonl").is_file()
            if begun and number not in others and job["JobState"] == "RUNNING":
                found.append(number)
        return bool(found)

    wait_until(look, 120)
    return found[0]


def check(code: int, jobs: dict[str, dict[str, str]], first: str, second: str) -> None:
    for job in jobs.values():
        shown = ("JobId", "Comment", "JobState", "Restarts", "NumCPUs", "TresPerJob", "TimeLimit")
        print(*(f"{key}={job.get(key, '-')}" for key in (*shown, "StartTime", "EndTime")))
    assert code == 0, f"snakemake ended with {code}"
    rows = sorted(BUILD.glob("results/*/row.json"))
    assert len(rows) == 2, rows
    for row in rows:
        assert len(json.loads(row.read_text())["epochs"]) == EPOCHS
        log = row.with_name("log.txt").read_text()
        assert log.count(" training videos,") == 2, f"not started twice:\n{log}"
        assert log.count(f" epoch 1/{EPOCHS} ") == 1, f"did not go on where it was:\n{log}"
    assert jobs[first]["Restarts"] == "1" and jobs[first]["JobState"] == "COMPLETED"
    assert jobs[second]["JobState"] == "CANCELLED"
    again = [n for n, job in jobs.items() if job.get("Comment") == jobs[second]["Comment"]]
    assert [jobs[number]["JobState"] for number in again] == ["CANCELLED", "COMPLETED"]
    for number in (first, *again):
        assert jobs[number]["TresPerJob"].replace("/", ":") == "gres:gpu:1"
    training = sorted((jobs[n]["StartTime"], jobs[n]["EndTime"]) for n in (first, *again))
    for (_, end), (start, _) in zip(training, training[1:], strict=False):
        assert end <= start, f"two runs had the only GPU: {training}"


if __name__ == "__main__":
    main()
