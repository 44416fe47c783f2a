"""Where the time of a piece of work goes: kernels on a GPU, operators on a CPU, by class."""

import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd.profiler_util import FunctionEvent

# The first that a name matches; the rest is element-wise.
CLASSES = {
    "optimiser": r"adam|multi_tensor",
    "normalisation": r"norm|bn_",
    "pooling": r"pool",
    "copies": r"copy|cat|fill|zero|clone|memset|memcpy|transpose|nchwToNhwc|nhwcToNchw",
    "convolution": r"conv|gemm|gemv|cutlass|xmma|cudnn|nvjet|aten::(mm|bmm|addmm)",
}
RANGES = r"Optimizer|ProfilerStep|##"
"""Names of what spans many kernels."""


def time_by_class(work: Callable[[], object], times: int = 3, top: int = 12) -> dict:
    """Profile some calls.

    Returns:
        Shares of the time: ``classes``, and ``top`` of the kernels or operators by name.
    """
    cuda = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=kinds) as record:
        for _ in range(times):
            work()
        if cuda:
            torch.cuda.synchronize()
    names, classes = Counter(), Counter()
    for event in record.events():
        spent = event.self_cpu_time_total
        if cuda:
            if "CUDA" not in str(event.device_type) or re.match(RANGES, event.name):
                continue
            spent = event.time_range.elapsed_us()
        names[event.name[:90]] += spent
        classes[_class(event)] += spent
    counters = {"classes": classes, "top": names}
    return {
        key: {name: round(spent / classes.total(), 3) for name, spent in counter.most_common(top)}
        for key, counter in counters.items()
    }


def _class(event: FunctionEvent) -> str:
    above = event
    while above is not None:
        if above.name.startswith("Optimizer"):
            return "optimiser"
        above = above.cpu_parent
    matches = (kind for kind, words in CLASSES.items() if re.search(words, event.name, re.I))
    return next(matches, "element-wise")
