"""Which training runs a plan asks for, and how long they will take on a GPU."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hstlib.config import TrainConfig, project_root

TRAINING_VIDEOS = {"hmdb51": 3570, "ucf101": 9537}
"""Of split 1; the others differ by 1 %."""
VARIANTS = {
    ("fp32", True, False): "channels last",
    ("fp32", False, False): "float32",
    ("bf16", True, False): "bfloat16",
    ("bf16", True, True): "compiled",
}
"""Of ``benchmarks/train_step.py``, by a run's precision, channels_last and compile_model."""


@dataclass(frozen=True)
class GPU:
    """Rates of a GPU in float32.

    Attributes:
        name: As its maker says.
        teraflops: Of matrix products, per second.
        terabytes: Read and written by a copy, per second.
    """

    name: str
    teraflops: float
    terabytes: float


# Copies at 4.3 TB/s and bfloat16 products at 790 TFLOP/s were measured on an H200; TF32, which
# convolutions and products in float32 are there, has half of bfloat16's rate by the datasheet.
H200 = GPU("H200", 395, 4.3)
# The paper's GPU, by its datasheet.
P100 = GPU("P100", 10.6, 0.732)


def planned_runs(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """List the training runs of a plan.

    Args:
        plan: Content of a file of ``workflow/params``.

    Returns:
        Parameters of ``notebooks/06_train.ipynb`` by run id. What the plan says of a corpus
        overrides what it says of a model, and that what it says of all.
    """
    runs = {}
    for corpus in plan["corpora"]:
        for name, settings in plan["models"].items():
            for split in corpus.get("splits", plan["splits"]):
                for seed in plan["seeds"]:
                    run = {
                        "learning_rate": 0,  # the paper's, unless the plan names one
                        **plan["train"],
                        "model": name,
                        **settings,
                        **{key: value for key, value in corpus.items() if key != "splits"},
                        "split": split,
                        "seed": seed,
                        "results_dir": f"{plan['build']}/results",
                    }
                    runs[_run_id(run)] = run
    return runs


def _run_id(run: dict[str, Any]) -> str:
    keys = ("dataset", "data_dir", "protocol", "backbone", "model", "reading", "split", "seed")
    return TrainConfig(**{key: run[key] for key in keys if key in run}).run_id


def measured_hours(run: dict[str, Any], folder: Path | None = None) -> float | None:
    """Return the hours of a run's training steps on the GPU that such a step was measured on.

    Args:
        run: Of :func:`planned_runs`.
        folder: Of the measurements of ``benchmarks/train_step.py``; none: the project's.

    Returns:
        Hours without decoding and evaluation; none if no GPU was measured, or the number of videos
        is not known.
    """
    found = _find(run, "cuda", folder)
    return _hours(run, run["batch_size"] / found.row["clips_per_second"]) if found else None


def estimated_hours(run: dict[str, Any], gpu: GPU, folder: Path | None = None) -> float | None:
    """Estimate the hours of a run's training steps on a GPU from a step measured on a CPU.

    The step's arithmetic and memory traffic are counted, and the GPU's rates say how long both
    take. The measured step took longer than the CPU's rates say; the GPU's is taken to be longer
    by the same factor.

    Args:
        run: Of :func:`planned_runs`; in float32.
        gpu: Its rates.
        folder: Of the measurements; none: the project's.

    Returns:
        Hours without decoding and evaluation; none if no such step was measured, or the number of
        videos is not known.
    """
    found = _find(run, "cpu", folder)
    if not found or "times_roofline" not in found.row:
        return None
    rates = 1e3 * gpu.teraflops, 1e3 * gpu.terabytes
    ideal = roofline(found.model, run["batch_size"], *rates)
    return _hours(run, found.row["times_roofline"] * ideal)


def roofline(model: dict[str, Any], batch: int, gflops: float, gigabytes: float) -> float:
    """Return the seconds of a float32 step whose arithmetic and traffic run at given rates.

    Args:
        model: What ``benchmarks/train_step.py`` counted of it.
        batch: Clips.
        gflops: Of matrix products, per second.
        gigabytes: Read and written, per second.
    """
    moved = batch * model["moved_gigabytes_float32"] + model["moved_gigabytes_per_step"]
    return batch * model["gflop_training"] / gflops + moved / gigabytes


def kept_gigabytes(run: dict[str, Any], folder: Path | None = None) -> float | None:
    """Return what a float32 step keeps for its backward pass; none if it was not counted."""
    found = _find(run, "cuda", folder) or _find(run, "cpu", folder)
    if not found or run.get("precision", "fp32") != "fp32":
        return None
    parts = run.get("accumulation", 1)
    return run["batch_size"] / parts * found.model["kept_gigabytes_float32"]


@dataclass(frozen=True)
class _Measured:
    """What ``benchmarks/train_step.py`` counted of a model, and measured of its step."""

    model: dict[str, Any]
    row: dict[str, Any]


def _find(run: dict[str, Any], device: str, folder: Path | None) -> _Measured | None:
    """Return the measurement of a run's step on a kind of device, if there is one."""
    how = run.get("precision", "fp32"), run.get("channels_last", True)
    variant = VARIANTS.get((*how, run.get("compile_model", False)))
    if run.get("recompute"):
        return None  # it is measured in bfloat16 only
    wanted = device, run["backbone"], run.get("crop") or run["size"]
    folder = folder or project_root() / "benchmarks/results"
    for path in sorted(folder.glob("train_step_*.json")):
        content = json.loads(path.read_text())
        settings = content["settings"]
        if wanted != (content["device"], settings["backbone"], settings["size"]):
            continue
        for row in content["training"]:
            if (row["model"], row["variant"]) == (run["model"], variant) and "error" not in row:
                (model,) = (model for model in content["models"] if model["model"] == run["model"])
                return _Measured(model, row)
    return None


def _hours(run: dict[str, Any], seconds_per_step: float) -> float | None:
    """Return the hours of all steps of a run; an incomplete batch is left out of its epoch."""
    videos = TRAINING_VIDEOS.get(run["dataset"])
    if videos is None:
        return None
    return run["epochs"] * (videos // run["batch_size"]) * seconds_per_step / 3600


def cost_table(runs: Iterable[dict[str, Any]], folder: Path | None = None) -> pd.DataFrame:
    """Tabulate what runs cost, by corpus, model and backbone.

    Args:
        runs: Values of :func:`planned_runs`.
        folder: Of the measurements; none: the project's.

    Returns:
        Number of runs; GPU hours of all of them, measured, and estimated for an H200; gigabytes
        that a step keeps for its backward pass. What is not known is NaN.
    """
    rows = [
        {
            "corpus": run["dataset"],
            "model": run["model"],
            "backbone": run["backbone"],
            "GPU hours, measured": measured_hours(run, folder),
            f"GPU hours, estimated for {H200.name}": estimated_hours(run, H200, folder),
            "kept (GB)": kept_gigabytes(run, folder),
        }
        for run in runs
    ]
    groups = pd.DataFrame(rows).groupby(["corpus", "model", "backbone"], sort=False)
    table = groups.sum(min_count=1).assign(**{"kept (GB)": groups["kept (GB)"].max()})
    table.insert(0, "runs", groups.size())
    return table.astype({name: float for name in table.columns[1:]})


def describe_cost(runs: Iterable[dict[str, Any]], folder: Path | None = None) -> str:
    """Describe the cost of a plan's runs in a table and a sentence."""
    table = cost_table(list(runs), folder)
    hours = table.columns[1:3]
    shown = table.assign(**{name: table[name].map(_rounded) for name in table.columns[1:]})
    parts = [
        f"{table[name].sum():.0f} {name} ({table['runs'][table[name].notna()].sum()} runs)"
        for name in hours
        if table[name].notna().any()
    ]
    total = f"{table['runs'].sum()} training runs; " + (
        "; ".join(parts) or "their hours are not known (benchmarks/train_step.py)"
    )
    return f"{shown.to_string()}\n{total}"


def _rounded(value: float) -> str:
    return "not known" if pd.isna(value) else f"{value:.1f}"
