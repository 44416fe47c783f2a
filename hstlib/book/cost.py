"""Cost of training runs: GPU hours and memory, from training steps that were measured."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from hstlib.config import ClipConfig, TrainConfig

TRAINING_VIDEOS = {"hmdb51": 3570, "ucf101": 9537}
"""Training videos of split 1; those of the other splits differ by 1 %."""

LISTED_VIDEOS = {"hmdb51": 6766, "ucf101": 13320, "jhmdb": 922}
"""Videos in the lists of a data set."""

VARIANTS = {
    ("fp32", True, False): "channels last",
    ("fp32", False, False): "float32",
    ("bf16", True, False): "bfloat16",
    ("bf16", True, True): "compiled",
}
"""Variants of ``benchmarks/train_step.py``, by a run's precision, channels_last and compile."""


@dataclass(frozen=True)
class GPU:
    """Float32 rates of a GPU.

    Attributes:
        name: Name of the model.
        teraflops: Matrix products, in TFLOP/s.
        terabytes: Memory traffic of a copy, read and written, in TB/s.
        gigabytes: Memory, in GB.
    """

    name: str
    teraflops: float
    terabytes: float
    gigabytes: float


# Measured on an H200: copies at 4.3 TB/s, bfloat16 products at 790 TFLOP/s. Convolutions and
# products in float32 use TF32, at half of bfloat16's rate according to the datasheet.
H200 = GPU("H200", 395, 4.3, 141)

# The paper's GPU, according to its datasheet.
P100 = GPU("P100", 10.6, 0.732, 16)


@dataclass(frozen=True)
class MeasuredStep:
    """One training step of ``benchmarks/train_step.py``.

    Attributes:
        model: Arithmetic, memory and traffic that were counted for the model.
        times: Speed that was measured for one variant of the step.
    """

    model: dict[str, Any]
    times: dict[str, Any]


class Measurements:
    """Training steps that ``benchmarks/train_step.py`` measured."""

    def __init__(self, contents: Sequence[dict[str, Any]]):
        """Index the steps by device, backbone, size, model and variant.

        Args:
            contents: Contents of the result files. If two measured the same step, the first counts.
        """
        self._steps: dict[tuple[str, str, int, str, str], MeasuredStep] = {}
        for content in contents:
            settings = content["settings"]
            models = {model["model"]: model for model in content["models"]}
            for times in (times for times in content["training"] if "error" not in times):
                setup = content["device"], settings["backbone"], settings["size"]
                key = (*setup, times["model"], times["variant"])
                self._steps.setdefault(key, MeasuredStep(models[times["model"]], times))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the files ``train_step_*.json`` of a folder, such as ``benchmarks/results``."""
        return cls(
            [json.loads(path.read_text()) for path in sorted(folder.glob("train_step_*.json"))]
        )

    def measured_hours(self, config: TrainConfig) -> float | None:
        """Return the hours of a run's training steps on the GPU that was measured.

        Returns:
            Hours without decoding and evaluation. None if the step was not measured on a GPU, or
            the number of training videos is not known.
        """
        step = self._find(config, "cuda")
        if not step:
            return None
        return _total_hours(config, config.batch_size / step.times["clips_per_second"])

    def estimated_hours(self, config: TrainConfig, gpu: GPU) -> float | None:
        """Estimate the hours of a run's training steps on a GPU from a step measured on a CPU.

        The measured CPU step was slower than its roofline by some factor; the GPU is assumed to be
        slower than its own by the same factor.

        Args:
            config: Settings of the run, in float32.
            gpu: The GPU.

        Returns:
            Hours without decoding and evaluation. None if the step was not measured on a CPU, or
            the number of training videos is not known.
        """
        step = self._find(config, "cpu")
        if not step or "times_roofline" not in step.times:
            return None
        rates = 1e3 * gpu.teraflops, 1e3 * gpu.terabytes
        ideal = roofline(step.model, config.batch_size, *rates)
        return _total_hours(config, step.times["times_roofline"] * ideal)

    def training_flop(self, config: TrainConfig) -> float | None:
        """Return the floating-point operations of a run's training steps; None if not counted."""
        step = self._find(config, "cuda") or self._find(config, "cpu")
        steps = _training_steps(config)
        if not step or steps is None:
            return None
        return steps * config.batch_size * 1e9 * step.model["gflop_training"]

    def kept_gigabytes(self, config: TrainConfig) -> float | None:
        """Return the memory that a float32 step keeps for its backward pass; None if not known."""
        step = self._find(config, "cuda") or self._find(config, "cpu")
        if not step or config.precision != "fp32":
            return None
        clips = config.batch_size / config.accumulation_steps
        return clips * step.model["kept_gigabytes_float32"]

    def _find(self, config: TrainConfig, device: str) -> MeasuredStep | None:
        if config.activation_checkpointing:  # measured in bfloat16 only
            return None
        variant = VARIANTS.get((config.precision, config.channels_last, config.compile))
        return self._steps.get((device, config.backbone, config.input_size, config.model, variant))


def roofline(model: dict[str, Any], batch: int, gflops: float, gigabytes: float) -> float:
    """Return the time of a float32 step whose arithmetic and memory traffic run at given rates.

    Args:
        model: Arithmetic and traffic that ``benchmarks/train_step.py`` counted for the model.
        batch: Number of clips.
        gflops: Matrix products, in GFLOP/s.
        gigabytes: Memory traffic, read and written, in GB/s.

    Returns:
        Seconds: the arithmetic, then the traffic, without overlap.
    """
    moved = batch * model["moved_gigabytes_float32"] + model["moved_gigabytes_per_step"]
    return batch * model["gflop_training"] / gflops + moved / gigabytes


def hours_at_share(flop: float, gpu: GPU, share: float) -> float:
    """Return the hours of an amount of arithmetic at a share of a GPU's peak rate.

    Args:
        flop: Floating-point operations.
        gpu: The GPU.
        share: Fraction of its matrix products' rate that is reached on average.
    """
    return flop / (share * 1e12 * gpu.teraflops) / 3600


def _training_steps(config: TrainConfig) -> int | None:
    """Return the number of a run's steps; an epoch drops its incomplete batch."""
    videos = TRAINING_VIDEOS.get(config.dataset)
    return None if videos is None else config.epochs * (videos // config.batch_size)


def _total_hours(config: TrainConfig, seconds_per_step: float) -> float | None:
    """Return the hours of all steps of a run."""
    steps = _training_steps(config)
    return None if steps is None else steps * seconds_per_step / 3600


def store_gigabytes(clip: ClipConfig, videos: int) -> float:
    """Return the size of the clip store of a number of videos, in GB.

    A clip is frames in RGB as bytes, and flow in two directions as half floats.
    """
    pixels = videos * clip.clips_per_video * clip.num_frames * clip.size**2
    return pixels * (3 + 2 * 2) / 1e9


def cost_table(runs: Iterable[TrainConfig], measurements: Measurements) -> pd.DataFrame:
    """Tabulate the cost of runs by corpus, model and backbone.

    Args:
        runs: Settings of the runs.
        measurements: Training steps that were measured.

    Returns:
        Number of runs, their total GPU hours (measured, and estimated for an H200), and the memory
        that a step keeps for its backward pass, in GB. What is not known is NaN.
    """
    rows = [
        {
            "corpus": config.dataset,
            "model": config.model,
            "backbone": config.backbone,
            "GPU hours, measured": measurements.measured_hours(config),
            f"GPU hours, estimated for {H200.name}": measurements.estimated_hours(config, H200),
            "kept (GB)": measurements.kept_gigabytes(config),
        }
        for config in runs
    ]
    groups = pd.DataFrame(rows).groupby(["corpus", "model", "backbone"], sort=False)
    table = groups.sum(min_count=1).assign(**{"kept (GB)": groups["kept (GB)"].max()})
    table.insert(0, "runs", groups.size())
    return table.astype({name: float for name in table.columns[1:]})


def arithmetic_table(
    runs: Iterable[TrainConfig], measurements: Measurements, gpus: Sequence[GPU]
) -> pd.DataFrame:
    """Tabulate the arithmetic of runs, and the share of a GPU's peak that their hours imply.

    Args:
        runs: Settings of the runs, in float32.
        measurements: Training steps that were measured.
        gpus: The GPUs.

    Returns:
        Rows by corpus, model and backbone: floating-point operations of all runs, and for each GPU
        the share of its peak rate at which they take the hours of
        :meth:`Measurements.estimated_hours`. What is not known is NaN.
    """
    rows = []
    for config in runs:
        flop = measurements.training_flop(config)
        row = {"corpus": config.dataset, "model": config.model, "backbone": config.backbone}
        row["operations"] = flop
        for gpu in gpus:
            hours = measurements.estimated_hours(config, gpu)
            known = flop is not None and hours is not None
            name = f"share of peak, {gpu.name}"
            row[name] = hours_at_share(flop, gpu, 1) / hours if known else None
        rows.append(row)
    keys = ["corpus", "model", "backbone"]
    table = pd.DataFrame(rows).set_index(keys).astype(float)
    groups = table.groupby(keys, sort=False)
    return groups.mean().assign(operations=groups["operations"].sum(min_count=1))


def memory_table(
    runs: Iterable[TrainConfig], measurements: Measurements, gpu: GPU, count: int
) -> pd.DataFrame:
    """Tabulate the memory of a training step that is spread over GPUs, without recomputation.

    Args:
        runs: Settings of the runs, in float32.
        measurements: Training steps that were measured.
        gpu: The GPU.
        count: Number of GPUs that share a batch.

    Returns:
        Rows by corpus, model and backbone: clips per GPU, the memory that they keep for the
        backward pass, in GB, and whether it is less than the GPU has. What is not known is NaN
        or None.
    """
    rows = {}
    for config in runs:
        whole = config.model_copy(update={"accumulation_steps": 1})
        kept = measurements.kept_gigabytes(whole)
        per_gpu = float("nan") if kept is None else kept / count
        rows[config.dataset, config.model, config.backbone] = {
            "clips per GPU": config.batch_size / count,
            "kept per GPU (GB)": per_gpu,
            f"less than {gpu.gigabytes} GB": None if kept is None else per_gpu < gpu.gigabytes,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(["corpus", "model", "backbone"])


def describe_cost(runs: Iterable[TrainConfig], measurements: Measurements) -> str:
    """Describe the cost of runs: the table of :func:`cost_table`, and a line of totals."""
    table = cost_table(runs, measurements)
    rounded = table.assign(**{name: table[name].map(_round) for name in table.columns[1:]})
    totals = [
        f"{table[name].sum():.0f} {name} (runs: {table['runs'][table[name].notna()].sum()})"
        for name in table.columns[1:3]
        if table[name].notna().any()
    ]
    unknown = "their hours are not known (benchmarks/train_step.py)"
    summary = f"training runs: {table['runs'].sum()}; {'; '.join(totals) or unknown}"
    return f"{rounded.reset_index().to_string(index=False)}\n{summary}"


def _round(value: float) -> str:
    return "not known" if pd.isna(value) else f"{value:.1f}"
