"""Measure speed and memory of training steps and inference, by model and variant.

Examples:
    python benchmarks/train_step.py
        on a CPU
    python benchmarks/train_step.py --backbone resnet21 --size 224 --memory 64 --profile
        on a GPU, with the largest batch that fits into 64 GB

Results are written after every model, by default to
benchmarks/results/train_step_<device>_<backbone>_<size>.json. Ratios compare steps of the same call
of this script; on a CPU these steps take turns.
"""

import argparse
import gc
import importlib
import importlib.util
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import (
    CUDA,
    DEVICE,
    RESULTS,
    argument_parser,
    copy_rate,
    device_name,
    matrix_rate,
    time_by_class,
    time_in_turns,
    write,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from unfolded import UnfoldedHST

from hstlib.book.architecture import kept_memory, training_traffic
from hstlib.book.cost import roofline
from hstlib.model.inputs import NUM_FRAMES
from hstlib.model.registry import MODELS, build_model, to_channels_last
from hstlib.training.device import set_deterministic

NUM_CLASSES = 51
PEERS = ("r3d_18", "r2plus1d_18", "mc3_18") if importlib.util.find_spec("torchvision") else ()
"""Models of torchvision, if it is installed."""

VARIANTS = {
    "plain": {"unfolded"},
    "plain, channels last": {"unfolded", "channels_last"},
    "float32": set(),
    "channels last": {"channels_last"},
    "deterministic": {"channels_last", "deterministic"},
    "bfloat16": {"channels_last", "bf16"},
    "recomputed": {"channels_last", "bf16", "activation_checkpointing"},
    "compiled": {"channels_last", "bf16", "compile"},
    "compiled, fused Adam": {"channels_last", "bf16", "compile", "fused_adam"},
}
"""Switches of each variant: settings of a training run, and two more. ``unfolded`` is HST with
1x3x3 ``Conv3d``, ``fused_adam`` runs Adam as one kernel."""
HST_ONLY = {"unfolded", "activation_checkpointing"}
DETAILED = ("channels last", "bfloat16", "compiled")
"""Variants that are also measured in inference and profiled."""


def build(name: str, backbone: str) -> nn.Module:
    """Build a model of hstlib or torchvision; both are called with clips and flow."""
    if name in MODELS:
        return build_model(name, NUM_CLASSES, backbone)
    video = importlib.import_module("torchvision.models.video")
    model = getattr(video, name)(num_classes=NUM_CLASSES)
    forward = model.forward
    model.forward = lambda clips, flow: forward(clips)
    return model


class Step:
    """A training step with random clips; each call does one step.

    Args:
        name: Name of the model.
        switches: Switches from :data:`VARIANTS`.
        batch: Clips per step.
        options: ``backbone``, and ``size`` of the clips in pixels.
    """

    def __init__(self, name: str, switches: set[str], batch: int, options: argparse.Namespace):
        torch.manual_seed(0)
        frames = torch.randn(batch, NUM_FRAMES, options.size, options.size, 3, device=DEVICE)
        clips = frames.movedim(-1, 1)  # (B, 3, T, H, W), channels last in memory, as decoded
        self.clips = clips if "channels_last" in switches else clips.contiguous()
        self.flow = torch.randn(batch, 2, *clips.shape[2:], device=DEVICE)
        self.labels = torch.randint(NUM_CLASSES, (batch,), device=DEVICE)
        network = build(name, options.backbone)
        network = (UnfoldedHST(network) if "unfolded" in switches else network).to(DEVICE)
        if "activation_checkpointing" in switches:
            network.enable_activation_checkpointing()
        if "channels_last" in switches:
            to_channels_last(network)
        fused = True if "fused_adam" in switches else None
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, fused=fused)
        self.network, self.switches = network, switches
        self.model = torch.compile(network, dynamic=False) if "compile" in switches else network

    def forward(self) -> Tensor:
        """Compute the logits, shape (B, NUM_CLASSES)."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled="bf16" in self.switches):
            return self.model(self.clips, self.flow)

    def __call__(self) -> None:
        """Forward, loss, backward, Adam; the loss is not read."""
        set_deterministic("deterministic" in self.switches)
        loss = functional.cross_entropy(self.forward().float(), self.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def describe(name: str, options: argparse.Namespace) -> dict:
    """Count operations, memory kept for the backward pass, and memory traffic of one clip."""
    shape = (NUM_FRAMES, options.size, options.size)
    with torch.device("meta"):
        network = build(name, options.backbone)
        clip, flow = torch.empty(1, 3, *shape), torch.empty(1, 2, *shape)
        with FlopCounterMode(display=False) as counter:
            logits = network(clip, flow)
            forward = counter.get_total_flops()
            logits.sum().backward()
    builder = partial(build, name, options.backbone)
    kept = sum(kept_memory(builder, options.size).values())
    per_clip, per_step = training_traffic(builder, options.size)
    return {
        "model": name,
        "gflop_inference": _round(forward / 1e9),
        "gflop_training": _round(counter.get_total_flops() / 1e9),
        "kept_gigabytes_float32": _round(kept / 1e9),
        "moved_gigabytes_float32": _round(per_clip / 1e9),
        "moved_gigabytes_per_step": _round(per_step / 1e9),
    }


def peak_gigabytes(work: Callable) -> float | None:
    """Return the peak GPU memory of a call; None without a GPU."""
    if not CUDA:
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    return _round(torch.cuda.max_memory_allocated() / 1e9)


def pick_batch(name: str, switches: set[str], options: argparse.Namespace) -> int:
    """Return the largest power of two that fits into the memory, extrapolated from two batches."""
    if not (CUDA and options.memory):
        return options.batch
    peaks = []
    for batch in (2, 4):
        peaks.append(peak_gigabytes(Step(name, switches - {"compile"}, batch, options)))
        _free_memory()
    per_clip = max((peaks[1] - peaks[0]) / 2, 1e-6)
    return 2 ** int(math.log2(max(1, (options.memory - peaks[0]) / per_clip + 2)))


def _free_memory() -> None:
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()


class ModelBenchmark:
    """Measurements of all variants of one model.

    Args:
        model: Counts of the model, from :func:`describe`.
        options: Options of the command line.
        rates: ``float32`` and ``bfloat16`` products per second, and ``copies`` in bytes per second.

    Attributes:
        rows: Rows of the results by section: ``training``, ``inference`` and ``profile``.
    """

    def __init__(self, model: dict, options: argparse.Namespace, rates: dict[str, float]):
        self.model, self.options, self.rates = model, options, rates
        self.rows: dict[str, list[dict]] = {"training": [], "inference": [], "profile": []}
        self.first: np.ndarray | None = None  # seconds per clip of the first variant

    def measure(self) -> None:
        """Measure the variants: in turns on a CPU, one by one on a GPU, where memory is short."""
        variants = self.options.variants
        if self.model["model"] != "hst":
            variants = [variant for variant in variants if not VARIANTS[variant] & HST_ONLY]
        for group in [[variant] for variant in variants] if CUDA else [variants]:
            try:
                self._measure_together(group)
            except RuntimeError as error:  # such as out of memory; the other variants may fit
                message = str(error).strip().partition("\n")[0][:200]
                self._report("training", {**self._row(", ".join(group)), "error": message})
            _free_memory()

    def _measure_together(self, variants: list[str]) -> None:
        name = self.model["model"]
        batch = pick_batch(name, VARIANTS[variants[0]], self.options)
        steps = [Step(name, VARIANTS[variant], batch, self.options) for variant in variants]
        seconds_per_clip = time_in_turns(steps, self.options.steps) / batch
        if self.first is None:
            self.first = seconds_per_clip[0]
        for variant, step, times in zip(variants, steps, seconds_per_clip, strict=True):
            row = {**self._row(variant), "batch": batch}
            memory = {"peak_gigabytes": peak_gigabytes(step)}
            self._report("training", {**row, **self._training(step, batch, times), **memory})
            if variant not in DETAILED:
                continue
            if self.options.profile:
                self._report("profile", {**row, **time_by_class(step)})
            self._report("inference", {**row, **self._inference(step, batch)})

    def _row(self, variant: str) -> dict:
        return {"model": self.model["model"], "variant": variant}

    def _report(self, section: str, row: dict) -> None:
        print(row, flush=True)
        self.rows[section].append(row)

    def _training(self, step: Step, batch: int, times: np.ndarray) -> dict[str, float]:
        """Return speed and ratios of a training step, from its seconds per clip."""
        gflops = self._gflops(step)
        result = speed(times, batch, self.model["gflop_training"], gflops)
        result["times_first"] = round(float(np.median(self.first / times)), 3)
        if not step.switches - {"channels_last"}:
            ideal = roofline(self.model, batch, gflops, self.rates["copies"] / 1e9)
            result["times_roofline"] = _round(float(np.median(times)) * batch / ideal)
        return result

    def _inference(self, step: Step, batch: int) -> dict[str, float]:
        """Return latency of one clip and speed of a batch."""
        one = Step(self.model["model"], step.switches, 1, self.options)
        latency = 1000 * np.median(infer(one, self.options))
        times = infer(step, self.options) / batch
        counts = self.model["gflop_inference"], self._gflops(step)
        return {"latency_milliseconds": _round(latency), **speed(times, batch, *counts)}

    def _gflops(self, step: Step) -> float:
        return self.rates["bfloat16" if "bf16" in step.switches else "float32"] / 1e9


def speed(times: np.ndarray, batch: int, gflop: float, gflops: float) -> dict[str, float]:
    """Describe the speed of a batch.

    Args:
        times: Seconds per clip, one per call.
        batch: Clips per call.
        gflop: Floating-point operations of one clip, in 1e9.
        gflops: Rate of matrix products, in 1e9 operations per second.
    """
    clips_per_second = 1 / np.median(times)
    return {
        "milliseconds": _round(1000 * batch / clips_per_second),
        "clips_per_second": _round(clips_per_second),
        "clips_per_second_per_gflop": _round(clips_per_second / gflop),
        "share_of_matrix_rate": _round(clips_per_second * gflop / gflops),
    }


def infer(step: Step, options: argparse.Namespace) -> np.ndarray:
    """Return the seconds of each forward pass in evaluation mode."""
    step.network.eval()
    if "compile" in step.switches and CUDA:
        step.model = torch.compile(step.network, mode="reduce-overhead", dynamic=False)
    with torch.inference_mode():
        return time_in_turns([step.forward], options.steps)[0]


def _round(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def _parse() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--backbone", default="demo", choices=("resnet21", "vgg13", "demo"))
    default = "; default: %(default)s"
    text = f"height and width of the clips in pixels{default}"
    parser.add_argument("--size", type=int, default=48, help=text)
    parser.add_argument("--batch", type=int, default=16, help=f"clips per step{default}")
    text = "on a GPU, use the largest batch that fits into this memory, in GB, not --batch"
    parser.add_argument("--memory", type=float, help=text)
    models, variants = [*MODELS, *PEERS], [*VARIANTS][: None if CUDA else -2]
    parser.add_argument("--models", nargs="+", default=models, choices=models)
    text = f"default: all that the device supports, of {'; '.join(VARIANTS)}"
    parser.add_argument(
        "--variants", nargs="+", default=variants, choices=VARIANTS, metavar="VARIANT", help=text
    )
    text = f"timed steps; a third as many warm up before{default}"
    parser.add_argument("--steps", type=int, default=30 if CUDA else 9, help=text)
    text = "also measure the time by operator or GPU kernel"
    parser.add_argument("--profile", action="store_true", help=text)
    return parser.parse_args()


def _setup(options: argparse.Namespace, rates: dict[str, float]) -> dict:
    """Return the part of the results that holds for all models."""
    return {
        "device": DEVICE.type,
        "hardware": device_name(),
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": {key: vars(options)[key] for key in ("backbone", "size", "steps")},
        "float32_products": "TF32" if CUDA else "float32",
        "matrix_teraflops": {key: _round(rates[key] / 1e12) for key in ("float32", "bfloat16")},
        "copied_gigabytes_per_second": _round(rates["copies"] / 1e9),
    }


def _default_out(options: argparse.Namespace) -> Path:
    device = device_name() if CUDA else "cpu"
    name = f"train_step {device} {options.backbone} {options.size}".lower()
    return RESULTS / f"{re.sub('[^a-z0-9]+', '_', name)}.json"


def main() -> None:
    """Measure, print and write the results."""
    options = _parse()
    if not PEERS:
        print("torchvision is not installed; its models are left out")
    torch.backends.cuda.matmul.allow_tf32 = True  # as in training
    rates = {name: matrix_rate(name) for name in ("float32", "bfloat16")}
    rates["copies"] = copy_rate()
    results = {**_setup(options, rates), "models": []}
    for name in options.models:
        model = describe(name, options)
        print(model, flush=True)
        results["models"].append(model)
        benchmark = ModelBenchmark(model, options, rates)
        benchmark.measure()
        for section, rows in benchmark.rows.items():
            results[section] = results.get(section, []) + rows
        write(options.out or _default_out(options), results)


if __name__ == "__main__":
    main()
