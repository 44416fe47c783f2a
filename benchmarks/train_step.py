"""Speed and memory of the training step and of inference, model by model and variant by variant.

Run `python benchmarks/train_step.py` on a CPU; on a GPU, for the largest batch within 64 GB,
`python benchmarks/train_step.py --backbone resnet21 --size 224 --memory 64 --profile`. It writes
benchmarks/results/train_step_<device>_<backbone>_<size>.json after every model. Ratios are within
one call; on a CPU the steps that they compare take turns.
"""

import argparse
import gc
import importlib
import importlib.util
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from flow import RESULTS, hardware, write
from profiles import time_by_class
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hstlib.architecture import kept_memory, training_traffic
from hstlib.hst import NUM_FRAMES
from hstlib.models import MODELS, build_model, lay_channels_last
from hstlib.plan import roofline
from hstlib.train import choose_algorithms

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
from unfolded import UnfoldedHST  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CLASSES = 51
PEERS = ("r3d_18", "r2plus1d_18", "mc3_18") if importlib.util.find_spec("torchvision") else ()

# plain: HST's twin of unfolded 1x3x3 Conv3d. last: clips and weights lie with the channels last.
# same: deterministic algorithms, not the fastest. bf16: autocast. compiled: torch.compile. fused:
# Adam as one kernel. recompute: HST's units work out again in the backward pass what they did not
# keep.
VARIANTS = {
    "plain": {"plain"},
    "plain, channels last": {"plain", "last"},
    "float32": set(),
    "channels last": {"last"},
    "deterministic": {"last", "same"},
    "bfloat16": {"last", "bf16"},
    "recomputed": {"last", "bf16", "recompute"},
    "compiled": {"last", "bf16", "compiled"},
    "compiled, fused Adam": {"last", "bf16", "compiled", "fused"},
}
LOOKED_INTO = ("channels last", "bfloat16", "compiled")  # inference and profile


def build(name: str, backbone: str) -> nn.Module:
    """Build one of our models or of torchvision's, which is to be called as ours are."""
    if name in MODELS:
        return build_model(name, CLASSES, backbone)
    model = getattr(importlib.import_module("torchvision.models.video"), name)(num_classes=CLASSES)
    forward = model.forward
    model.forward = lambda clips, flow: forward(clips)
    return model


class Step:
    """One training step of a variant, ready to be called again and again."""

    def __init__(self, name: str, how: set[str], batch: int, options: argparse.Namespace):
        torch.manual_seed(0)
        frames = torch.randn(batch, NUM_FRAMES, options.size, options.size, 3, device=DEVICE)
        clips = frames.movedim(-1, 1)  # as decoded frames lie in memory
        self.clips = clips if "last" in how else clips.contiguous()
        self.flow = torch.randn(batch, 2, *clips.shape[2:], device=DEVICE)
        self.labels = torch.randint(CLASSES, (batch,), device=DEVICE)
        network = build(name, options.backbone)
        network = (UnfoldedHST(network) if "plain" in how else network).to(DEVICE)
        if "recompute" in how:
            network.recompute()
        if "last" in how:
            lay_channels_last(network)
        fused = True if "fused" in how else None
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, fused=fused)
        self.network, self.how = network, how
        self.run = torch.compile(network, dynamic=False) if "compiled" in how else network

    def forward(self) -> Tensor:
        """Compute the logits."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled="bf16" in self.how):
            return self.run(self.clips, self.flow)

    def __call__(self) -> None:
        """Forward, loss, backward, Adam; nothing is looked at."""
        choose_algorithms("same" in self.how)
        loss = functional.cross_entropy(self.forward().float(), self.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def seconds(works: list[Callable], turns: int) -> np.ndarray:
    """Time works, which take turns: on one thread by processor time, on a GPU by its events."""
    for work in works * max(1, turns // 3):
        work()
    marks = [_mark()]
    for work in works * turns:
        work()
        marks.append(_mark())
    if CUDA:
        torch.cuda.synchronize()
        marks = np.cumsum([0, *(a.elapsed_time(b) / 1000 for a, b in pairwise(marks))])
    return np.diff(marks).reshape(turns, len(works)).T


def _mark() -> torch.cuda.Event | float:
    if not CUDA:
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def matrix_rate(dtype: str) -> float:
    """Measure operations per second of a large product of random matrices, at its best."""
    size = 8192 if CUDA else 1024
    a, b = (torch.randn(size, size, device=DEVICE).to(getattr(torch, dtype)) for _ in "ab")
    return 2 * size**3 / float(seconds([lambda: a @ b], 30).min())


def copy_rate() -> float:
    """Measure bytes per second, read and written, of a large copy, at its best."""
    a, b = torch.empty(2, 2**30 if CUDA else 2**26, device=DEVICE).fill_(1)
    return 2 * a.nbytes / float(seconds([lambda: b.copy_(a)], 30).min())


def describe(name: str, options: argparse.Namespace) -> dict:
    """Count operations, kept memory and traffic of one clip, all without any values."""
    with torch.device("meta"):
        network = build(name, options.backbone)
        shape = (NUM_FRAMES, options.size, options.size)
        clip, flow = torch.empty(1, 3, *shape), torch.empty(1, 2, *shape)
        with FlopCounterMode(display=False) as counter:
            logits = network(clip, flow)
            forward = counter.get_total_flops()
            logits.sum().backward()
    make = partial(build, name, options.backbone)
    kept = kept_memory(make, options.size)
    per_clip, per_step = training_traffic(make, options.size)
    return {
        "model": name,
        "gflop_inference": _digits(forward / 1e9),
        "gflop_training": _digits(counter.get_total_flops() / 1e9),
        "kept_gigabytes_float32": _digits(sum(kept.values()) / 1e9),
        "moved_gigabytes_float32": _digits(per_clip / 1e9),
        "moved_gigabytes_per_step": _digits(per_step / 1e9),
    }


def peak_gigabytes(work: Callable) -> float | None:
    """Return the most memory of the GPU that a call takes."""
    if not CUDA:
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    return _digits(torch.cuda.max_memory_allocated() / 1e9)


def pick_batch(name: str, how: set[str], options: argparse.Namespace) -> int:
    """Find the largest power of two that fits, from the memory of two small batches."""
    if not (CUDA and options.memory):
        return options.batch
    peaks = []
    for batch in (2, 4):
        peaks.append(peak_gigabytes(Step(name, how - {"compiled"}, batch, options)))
        _free()
    per_clip = max((peaks[1] - peaks[0]) / 2, 1e-6)
    return 2 ** int(math.log2(max(1, (options.memory - peaks[0]) / per_clip + 2)))


def _free() -> None:
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()


def measure(model: dict, options: argparse.Namespace, rates: dict[str, float]) -> dict[str, list]:
    """Measure the variants of one model; return the rows of each section of the results."""
    theirs = {"plain", "recompute"} if model["model"] != "hst" else set()
    keys = [key for key in options.variants if not VARIANTS[key] & theirs]
    found: dict[str, list] = {"training": [], "inference": [], "profile": []}
    first: list[np.ndarray] = []  # seconds per clip of the first variant
    for group in [[key] for key in keys] if CUDA else [keys]:  # one by one, for their memory
        try:
            _measure(group, model, options, rates, found, first)
        except RuntimeError as error:  # such as out of memory: the other rows are worth having
            row = {"model": model["model"], "variant": ", ".join(group)}
            text = str(error).strip().partition("\n")[0]
            _report(found["training"], row | {"error": text[:200]})
        _free()
    return found


def _measure(group, model, options, rates, found, first) -> None:
    name = model["model"]
    batch = pick_batch(name, VARIANTS[group[0]], options)
    steps = [Step(name, VARIANTS[key], batch, options) for key in group]
    taken = seconds(steps, options.steps) / batch
    first += [] if first else [taken[0]]
    for key, step, clip in zip(group, steps, taken, strict=True):
        row = {"model": name, "variant": key, "batch": batch}
        rate = rates["bfloat16" if "bf16" in step.how else "float32"] / 1e9
        times = {"times_first": round(float(np.median(first[0] / clip)), 3)}
        if not step.how - {"last"}:
            ideal = roofline(model, batch, rate, rates["copies"] / 1e9)
            times["times_roofline"] = _digits(float(np.median(clip)) * batch / ideal)
        memory = {"peak_gigabytes": peak_gigabytes(step)}
        speed = as_speed(clip, batch, model["gflop_training"], rate)
        _report(found["training"], row | speed | times | memory)
        if key not in LOOKED_INTO:
            continue
        if options.profile:
            _report(found["profile"], row | time_by_class(step))
        one = infer(Step(name, step.how, 1, options), options)
        speed = as_speed(infer(step, options) / batch, batch, model["gflop_inference"], rate)
        latency = {"latency_milliseconds": _digits(1000 * np.median(one))}
        _report(found["inference"], row | latency | speed)


def as_speed(clip: np.ndarray, batch: int, gflop: float, rate: float) -> dict[str, float]:
    """Describe the seconds per clip that the steps of a batch took."""
    per_second = 1 / np.median(clip)
    return {
        "milliseconds": _digits(1000 * batch / per_second),
        "clips_per_second": _digits(per_second),
        "clips_per_second_per_gflop": _digits(per_second / gflop),
        "share_of_matrix_rate": _digits(per_second * gflop / rate),
    }


def infer(step: Step, options: argparse.Namespace) -> np.ndarray:
    """Return the seconds of each forward pass in evaluation mode."""
    step.network.eval()
    if "compiled" in step.how and CUDA:
        step.run = torch.compile(step.network, mode="reduce-overhead", dynamic=False)
    with torch.inference_mode():
        return seconds([step.forward], options.steps)[0]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _report(rows: list[dict], row: dict) -> None:
    print(row, flush=True)
    rows.append(row)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="demo", help="resnet21, vgg13 or demo")
    parser.add_argument("--size", type=int, default=48, help="of the frames, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="clips")
    parser.add_argument("--memory", type=float, help="GB: the largest batch within, on a GPU")
    names, variants = [*MODELS, *PEERS], [*VARIANTS][: None if CUDA else -2]
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--variants", nargs="+", default=variants, choices=[*VARIANTS])
    parser.add_argument("--steps", type=int, default=30 if CUDA else 9, help="after a third more")
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    parser.add_argument("--out", type=Path, help="file, instead of that in benchmarks/results")
    return parser.parse_args()


def main() -> None:
    """Measure, print and store."""
    options = _parse()
    print("" if PEERS else "torchvision is not installed: its models are left out")
    torch.backends.cuda.matmul.allow_tf32 = True  # as in training
    device = torch.cuda.get_device_name() if CUDA else "cpu"
    rates = {name: matrix_rate(name) for name in ("float32", "bfloat16")}
    rates["copies"] = copy_rate()
    content = {
        "device": DEVICE.type,
        "hardware": device if CUDA else hardware().partition(", one thread")[0],
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": _commit(),
        "settings": {key: vars(options)[key] for key in ("backbone", "size", "steps")},
        "float32_products": "TF32" if CUDA else "float32",
        "matrix_teraflops": {key: _digits(rates[key] / 1e12) for key in ("float32", "bfloat16")},
        "copied_gigabytes_per_second": _digits(rates["copies"] / 1e9),
        "models": [],
    }
    name = f"train_step {device} {options.backbone} {options.size}".lower()
    path = options.out or RESULTS / f"{re.sub('[^a-z0-9]+', '_', name)}.json"
    for name in options.models:
        _report(content["models"], describe(name, options))
        for section, rows in measure(content["models"][-1], options, rates).items():
            content[section] = content.get(section, []) + rows
        write(path, content)


if __name__ == "__main__":
    main()
