"""Options, results files, hardware, and time and profile of calls, for all benchmarks."""

import argparse
import json
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.autograd.profiler_util import FunctionEvent

RESULTS = Path(__file__).parent / "results"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")

CLASSES = {
    "optimiser": r"adam|multi_tensor",
    "normalisation": r"norm|bn_",
    "pooling": r"pool",
    "copies": r"copy|cat|fill|zero|clone|memset|memcpy|transpose|nchwToNhwc|nhwcToNchw",
    "convolution": r"conv|gemm|gemv|cutlass|xmma|cudnn|nvjet|aten::(mm|bmm|addmm)",
}
"""Patterns of kernel and operator names; the first match decides, the rest is element-wise."""
RANGES = r"Optimizer|ProfilerStep|##"
"""Names of profiler ranges, which contain kernels and are none."""


def argument_parser(description: str, default_out: Path | None = None) -> argparse.ArgumentParser:
    """Return a parser with the option ``--out``.

    Args:
        description: Docstring of the benchmark, shown by ``--help``.
        default_out: Results file if ``--out`` is not given; None if it depends on other options.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument(
        "--out", type=Path, default=default_out, help="results file; default: in benchmarks/results"
    )
    return parser


def write(path: Path, content: dict) -> None:
    """Write JSON with the commit, and with one line per row of every list."""
    items = []
    for key, value in {"commit": commit(), **content}.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(row)}" for row in value)
            items.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        else:
            items.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(items) + "\n}\n")


def processor() -> str:
    """Return the name of the processor, with family and model where Linux lists them."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if not info.is_file():
        return name
    lines = [line.partition(":") for line in info.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name", name)
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def hardware() -> str:
    """Return the processor and the versions that affect the speed of OpenCV on one thread."""
    python = platform.python_version()
    return f"{processor()}, one thread; OpenCV {cv2.__version__}, Python {python}"


def device_name() -> str:
    """Return the name of the GPU, or of the processor if there is no GPU."""
    return torch.cuda.get_device_name() if CUDA else processor()


@cache
def commit() -> str:
    """Return the commit of the checkout before anything was written, or ``unknown``."""
    command = ["git", "-C", str(RESULTS), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call; unlike wall time it excludes waiting for other tasks."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def time_in_turns(functions: Sequence[Callable], calls: int) -> np.ndarray:
    """Time functions that are called in turns, after a third as many calls to warm up.

    Args:
        functions: Functions to call.
        calls: Timed calls of each.

    Returns:
        Seconds of every call, shape (functions, calls): time of the GPU if there is one, processor
        time if torch has one thread, else wall time.
    """
    for function in [*functions] * max(1, calls // 3):
        function()
    times = [_now()]
    for function in [*functions] * calls:
        function()
        times.append(_now())
    if CUDA:
        torch.cuda.synchronize()
        times = np.cumsum([0, *(a.elapsed_time(b) / 1000 for a, b in pairwise(times))])
    return np.diff(times).reshape(calls, len(functions)).T


def _now() -> float | torch.cuda.Event:
    if not CUDA:
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def matrix_rate(dtype: str) -> float:
    """Return the highest measured rate of a large matrix product, in operations per second."""
    size = 8192 if CUDA else 1024
    a, b = (torch.randn(size, size, device=DEVICE).to(getattr(torch, dtype)) for _ in "ab")
    return 2 * size**3 / float(time_in_turns([lambda: a @ b], 30).min())


def copy_rate() -> float:
    """Return the highest measured rate of a large copy, in bytes read and written per second."""
    a, b = torch.empty(2, 2**30 if CUDA else 2**26, device=DEVICE).fill_(1)
    return 2 * a.nbytes / float(time_in_turns([lambda: b.copy_(a)], 30).min())


def time_by_class(work: Callable[[], object], calls: int = 3, top: int = 12) -> dict:
    """Profile calls of a function: GPU kernels if there is a GPU, else operators.

    Args:
        work: Function to call.
        calls: Number of calls.
        top: Number of kernels or operators to list.

    Returns:
        Fractions of the time: ``classes`` per class, ``top`` per kernel or operator.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * CUDA
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(calls):
            work()
        if CUDA:
            torch.cuda.synchronize()
    names, classes = Counter(), Counter()
    for event in profile.events():
        microseconds = event.self_cpu_time_total
        if CUDA:
            if "CUDA" not in str(event.device_type) or re.match(RANGES, event.name):
                continue
            microseconds = event.time_range.elapsed_us()
        names[event.name[:90]] += microseconds
        classes[_class(event)] += microseconds
    total = classes.total()
    return {
        "classes": {name: round(value / total, 3) for name, value in classes.most_common()},
        "top": {name: round(value / total, 3) for name, value in names.most_common(top)},
    }


def _class(event: FunctionEvent) -> str:
    caller = event
    while caller is not None:
        if caller.name.startswith("Optimizer"):
            return "optimiser"
        caller = caller.cpu_parent
    matches = (name for name, words in CLASSES.items() if re.search(words, event.name, re.I))
    return next(matches, "element-wise")
