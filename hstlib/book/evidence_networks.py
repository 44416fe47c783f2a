"""Predicates on whole networks: parameters, sizes and cost, mostly on torch's meta device."""

import itertools
import math
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from hstlib.book.architecture import Layer, multiply_adds, parameter_formulas, trace
from hstlib.book.families import (
    STEMS,
    UNITS,
    factored_parameters,
    family_counts,
    plain_parameters,
    prints,
)
from hstlib.book.paper import PAPER_ROWS, PaperRow
from hstlib.book.tables import NOT_RUN
from hstlib.book.verdicts import HOLDS, UNCHECKABLE, Finding, decide
from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.clips import clip_indices, clip_starts
from hstlib.data.datasets import NUM_CLASSES
from hstlib.model.hst import BACKBONES, Backbone
from hstlib.model.reformer import HResidualUnit
from hstlib.model.registry import build_model
from hstlib.model.residual import ResidualBlock
from hstlib.training.metrics import count_parameters

PUBLISHED = ((2, "c3d"), (2, "r2plus1d"))
"""Rows whose counts belong to networks that are published elsewhere."""


def paper_row(table: int, model: str) -> PaperRow:
    """Return a row of Table 2 or 4."""
    return next(row for row in PAPER_ROWS if (row.table, row.model) == (table, model))


@cache
def multiply_adds_of(row: PaperRow) -> int:
    """Return the multiply-adds of one clip in the book's network for a row of Table 2 or 4."""
    return multiply_adds(
        partial(build_model, row.model, NUM_CLASSES[row.dataset], row.backbone), TrainConfig().size
    )


@cache
def network(table: int, model: str) -> nn.Module:
    """Build the network of a row of Table 2 or 4 on the meta device."""
    row = paper_row(table, model)
    with torch.device("meta"):
        return build_model(model, NUM_CLASSES[row.dataset], row.backbone)


@cache
def _layers() -> list[Layer]:
    return trace(lambda: build_model("hst", NUM_CLASSES["hmdb51"], "resnet21"))


def _prints(millions: float, printed: str) -> bool:
    return bool(prints(np.array(round(1e6 * millions)), printed))


@cache
def _family(table: int, model: str) -> np.ndarray:
    return family_counts(paper_row(table, model))


def parameters(table: int, model: str) -> Finding:
    """A network that is published elsewhere has the printed figure.

    Where no published network does, the paper leaves choices. Its family is counted, and the figure
    cannot be checked, whether some members print it or none.
    """
    printed = paper_row(table, model).parameters
    count, counts = count_parameters(network(table, model)), _family(table, model)
    fits = _prints(count / 1e6, printed)
    values = {
        "count": count,
        "printed": printed,
        "difference": count / 1e6 / float(printed) - 1,
        "fitting": int(prints(counts, printed).sum()),
        "tried": len(counts),
        "fits": "prints it" if fits else "does not print it",
    }
    return Finding(HOLDS if fits and (table, model) in PUBLISHED else UNCHECKABLE, values)


def blocks_of_r2plus1d(lists: list[list[int]]) -> Finding:
    """With one of these lists of blocks only, the public R2Plus1D has the figure of Table 2."""
    printed, classes = paper_row(2, "r2plus1d").parameters, NUM_CLASSES["hmdb51"]
    counts = [factored_parameters("public", "factored 7x7", n, None, classes) for n in lists]
    fitting = [n for n, count in zip(lists, counts, strict=True) if _prints(count / 1e6, printed)]
    listed = ", ".join("-".join(map(str, units)) for units in fitting)
    return decide(len(fitting) == 1, listed=listed, printed=printed, tried=len(lists))


def printed_widths() -> Finding:
    """HST with the printed channels, the larger of the two in every stage, has Table 2's count."""
    repeats = [units for units, _ in BACKBONES["resnet21"].stages]
    sizes = Backbone(64, tuple((units, 128) for units in repeats), 1024)
    total = sum(count for _, _, count in parameter_formulas(NUM_CLASSES["hmdb51"], sizes))
    printed = paper_row(2, "hst").parameters
    return decide(_prints(total / 1e6, printed), total=total / 1e6, printed=printed)


def literal_cells(
    cells: list[list[list[int]]], repeats: list[int], table: int, model: str
) -> Finding:
    """Some literal reading of a column of Table 1 has the printed number of parameters.

    Args:
        cells: Convolutions of each stage as (kernel, output channels).
        repeats: Repetitions of each stage.
        table: Number of the table with the parameters.
        model: Name of the model.
    """
    printed = paper_row(table, model).parameters
    classes = NUM_CLASSES[paper_row(table, model).dataset]
    counts = [_chain(cells, repeats, depth, classes) / 1e6 for depth in (1, 3)]
    fits = any(_prints(count, printed) for count in counts)
    return decide(fits, flat=counts[0], full=counts[1], printed=printed)


def _chain(cells: list[list[list[int]]], repeats: list[int], depth: int, classes: int) -> int:
    """Count a chain of convolutions and two fully connected layers, the first of 1024."""
    total, width = 0, 64
    for stage, times in zip(cells, repeats, strict=True):
        for size, channels in stage * times:
            total += depth * size**2 * width * channels + channels
            width = channels
    return total + (width + 1) * 1024 + 1025 * classes


def average_and_hidden_layer() -> Finding:
    """The two published networks have Table 2's counts with the printed end of Table 1."""
    counts, classes = {}, NUM_CLASSES["hmdb51"]
    for model in ("c3d", "r2plus1d"):
        built = network(2, model)
        end = 513 * 1024 + 1025 * classes
        counts[model] = (count_parameters(built) - count_parameters(built.head) + end) / 1e6
    fits = all(_prints(count, paper_row(2, m).parameters) for m, count in counts.items())
    printed = {f"printed_{m}": paper_row(2, m).parameters for m in counts}
    return decide(fits, **counts, **printed)


def residual_blocks(table: int, model: str) -> Finding:
    """The network that prints the count has residual blocks."""
    blocks = [m for m in network(table, model).modules() if isinstance(m, ResidualBlock)]
    return decide(bool(blocks), blocks=len(blocks), printed=paper_row(table, model).parameters)


def first_units() -> Finding:
    """The first unit of each stage has a 1x1 kernel, which saves parameters."""
    units = network(2, "hst").hierarchy.units
    small = [unit.phi for unit in units if unit.phi.kernel_size == (1, 1)]
    saved = sum(8 * phi.weight.numel() for phi in small)
    stages = len(BACKBONES["resnet21"].stages)
    return decide(len(small) == stages and saved > 0, units=len(small), saved=saved / 1e6)


def stage_sizes(sizes: list[int]) -> Finding:
    """The feature maps of HST have the sizes of the first column of Table 1."""
    built = sorted({layer.shape[-1] for layer in _layers() if layer.kernel}, reverse=True)
    return decide(built == sorted(set(sizes), reverse=True), built=", ".join(map(str, built)))


def mask_cost() -> Finding:
    """The mask and its weights W save parameters and multiply-adds."""
    units = network(2, "hst").hierarchy.units
    added = sum(count_parameters(unit.mask) + count_parameters(unit.similarity) for unit in units)
    with_mask, without = _unit_multiply_adds(True), _unit_multiply_adds(False)
    return decide(
        added < 0,
        added=added / 1e6,
        share=added / count_parameters(network(2, "hst")),
        extra=with_mask / without - 1,
    )


def _unit_multiply_adds(mask: bool) -> int:
    """Count the multiply-adds of a unit of the second stage, with the mask path or without."""
    width, total = BACKBONES["resnet21"].stages[1][1], [0]

    def add(layer: nn.Module, _: tuple, output: Tensor) -> None:
        total[0] += output.numel() * layer.weight[0].numel()

    with torch.device("meta"), torch.no_grad():
        unit = HResidualUnit(width, width, 3, halve=False).eval()
        for name, layer in unit.named_children():
            if isinstance(layer, nn.Conv2d) and (mask or name not in ("mask", "similarity")):
                layer.register_forward_hook(add)
        unit(torch.empty(1, 8, width, 14, 14))
    return total[0]


def matched_r3d() -> Finding:
    """An R3D with full kernels, and units and end as R2Plus1D, has Table 2's figure."""
    units, classes = UNITS["resnet21"][0], NUM_CLASSES["hmdb51"]
    full = min(plain_parameters(s, units, (27,) * 4, (27,) * 4, None, classes) for s in STEMS[:4])
    printed = {model: paper_row(2, model).parameters for model in ("r2plus1d", "r3d")}
    gap = float(printed["r2plus1d"]) - float(printed["r3d"])
    return Finding(UNCHECKABLE, {"matched": full / 1e6, "gap": gap, **printed})


def clip_cost(seconds: list[int]) -> Finding:
    """A longer video gives HST more frames to compute, in one of the two readings of R1."""
    frames = set()
    for duration, sampling in itertools.product(seconds, ("consecutive", "uniform")):
        config = ClipConfig(sampling=sampling)
        length = int(duration * config.fps)
        (start,) = clip_starts(length, config.num_frames, 1)
        frames.add(len(clip_indices(length, start, config)) - 1)
    listed = " or ".join(map(str, seconds))
    return decide(len(frames) > 1, seconds=listed, frames=min(frames))


def c3d_diverges(rate: float, lower: float, steps: int) -> Finding:
    """Whether C3D's loss explodes at one learning rate, and not at a lower one, at demo size.

    The paper's network was not run, so neither result decides.
    """
    high, low = _c3d_loss(rate, steps), _c3d_loss(lower, steps)
    limit = 10 * math.log(8)
    stays = f"{'stays below' if low < limit else 'exceeds'} {limit:.0f} at {lower:g}"
    explodes = "explodes" if high > limit else "does not explode"  # infinity stands for NaN
    small = f"C3D's loss {explodes} within {steps} steps at {rate:g}, and {stays}"
    return Finding(NOT_RUN, {"small": small})


def _c3d_loss(rate: float, steps: int) -> float:
    """Return the largest cross-entropy of Adam on eight random clips; infinity if it is NaN."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("c3d", 8, "demo").train()
        clips, labels = torch.randn(4, 3, 16, 16, 16), torch.arange(4)
        optimiser, losses = torch.optim.Adam(model.parameters(), rate), []
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(clips), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return max(losses) if all(map(math.isfinite, losses)) else math.inf
