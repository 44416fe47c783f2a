"""How long the training runs of a plan take, from steps that were measured on a GPU."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks/results"
TRAINING_VIDEOS = {"hmdb51": 3570, "ucf101": 9537}  # of split 1; the others differ by 1 %
VARIANTS = {
    ("fp32", False): "channels last",
    ("bf16", False): "bfloat16",
    ("bf16", True): "compiled",
}


def clips_per_second(run: dict[str, Any], folder: Path = BENCHMARKS) -> float | None:
    """Return the measured training rate of a run's model, size and precision, if there is one."""
    variant = VARIANTS.get((run.get("precision", "fp32"), run.get("compile_model", False)))
    found = None
    for path in sorted(folder.glob("train_step_*.json")):
        content = json.loads(path.read_text())
        settings = content["settings"]
        if path.stem.endswith("_cpu") or (settings["backbone"], settings["size"]) != (
            run["backbone"],
            run["size"],
        ):
            continue
        for row in content["training"]:
            if (row["model"], row["variant"]) == (run["model"], variant) and "error" not in row:
                found = row["clips_per_second"]
    return found


def hours(run: dict[str, Any], folder: Path = BENCHMARKS) -> float | None:
    """Return the hours of a run without decoding and evaluation; none if nothing was measured."""
    rate = clips_per_second(run, folder)
    if rate is None or run["dataset"] not in TRAINING_VIDEOS:
        return None
    return run["epochs"] * TRAINING_VIDEOS[run["dataset"]] / rate / 3600


def summary(runs: Iterable[dict[str, Any]], folder: Path = BENCHMARKS) -> str:
    """Describe the time of a plan in a line."""
    known = [hours(run, folder) for run in runs]
    measured = [value for value in known if value is not None]
    text = f"{len(known)} training runs"
    if measured:
        text += f", about {sum(measured):.0f} GPU hours for {len(measured)} of them"
    if len(measured) < len(known):
        text += (
            f"; of {len(known) - len(measured)} no training step was measured on a GPU "
            "(benchmarks/train_step.py)"
        )
    return text
