"""What the built models look like, read from their modules: sizes, kernels, parameters, cost."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hstlib.hst import HST, NUM_FRAMES, Backbone
from hstlib.metrics import count_parameters


@dataclass(frozen=True)
class Layer:
    """One convolution or fully connected layer, as a forward pass met it.

    Attributes:
        name: Of the module.
        kernel: Height and width or time, height and width; empty for a fully connected layer.
        channels: Of the output.
        shape: Of the output, for one clip.
        multiply_adds: Of this layer, for one clip.
    """

    name: str
    kernel: tuple[int, ...]
    channels: int
    shape: tuple[int, ...]
    multiply_adds: int


def trace(build: Callable[[], nn.Module], size: int = 224) -> list[Layer]:
    """Run one clip through a model without memory for its values, and list its layers.

    Args:
        build: Makes the model; called on the meta device.
        size: Height and width of the clip, in pixels.

    Returns:
        Convolutions and fully connected layers in the order of their calls.
    """
    layers: list[Layer] = []

    def hook(name: str):
        def record(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            per_value = module.weight[0].numel()  # inputs that one output value is made of
            kernel = getattr(module, "kernel_size", ())
            shape = tuple(output.shape)
            layers.append(
                Layer(
                    name, tuple(kernel), module.weight.shape[0], shape, output.numel() * per_value
                )
            )

        return record

    with torch.device("meta"):
        model = build().eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_hook(hook(name))
    _forward(model, size)
    return layers


def multiply_adds(build: Callable[[], nn.Module], size: int = 224) -> int:
    """Count the multiply-adds of one clip with torch's counter, which counts each as two."""
    with torch.device("meta"):
        model = build().eval()
    with FlopCounterMode(display=False) as counter:
        _forward(model, size)
    return counter.get_total_flops() // 2


def _forward(model: nn.Module, size: int) -> None:
    with torch.no_grad(), torch.device("meta"):
        shape = (NUM_FRAMES, size, size)
        model(torch.empty(1, 3, *shape), torch.empty(1, 2, *shape))


def stage_table(layers: list[Layer]) -> pd.Series:
    """Summarise a trace by the height of the output, as Tables 1 and 3 of the paper do.

    Returns:
        One text per height, such as ``1x3x3, 64 (x8)`` for eight equal layers, largest first.
    """
    stages: dict[str, dict[str, int]] = {}
    for layer in layers:
        if not layer.kernel:
            continue
        kernel = layer.kernel if len(layer.kernel) == 3 else (1, *layer.kernel)
        text = f"{'x'.join(map(str, kernel))}, {layer.channels}"
        counts = stages.setdefault(f"{layer.shape[-2]} x {layer.shape[-1]}", {})
        counts[text] = counts.get(text, 0) + 1
    return pd.Series(
        {
            size: "; ".join(text if n == 1 else f"{text} (x{n})" for text, n in counts.items())
            for size, counts in stages.items()
        }
    )


def parameter_formulas(num_classes: int, sizes: Backbone) -> list[tuple[str, str, int]]:
    """Return block, formula and value of HST's parameters, worked out without building it."""
    c0, hidden = sizes.channels, sizes.hidden
    windows, c = NUM_FRAMES // 2, sizes.stages[-1][1]
    rows = [
        ("Omega", "3 * 3 + 3", 12),
        ("Phi", "27 C0 + C0 + 2 C0", 30 * c0),
        ("prior", "9 * 8 C0 * C0 + C0", 9 * windows * c0 * c0 + c0),
    ]
    width = c0
    for stage, (units, out) in enumerate(sizes.stages, start=1):
        total = _unit(width, out, 1) + (units - 1) * _unit(out, out, 9)
        rows.append((f"stage {stage}", f"{units} units, {width} to {out} channels", total))
        width = out
    return rows + [
        ("temporal convolution", "7 C + 2 C", 9 * c),
        ("spatial attention", "2 C + 2 C^2 + C", 2 * c * c + 3 * c),
        ("hybrid attention: fc", "2 (4 C^2 + 2 C)", 8 * c * c + 4 * c),
        ("hybrid attention: W1, W2", "2 C^2 + 2 C", 2 * c * c + 2 * c),
        ("head", "C h + h + h n + n", c * hidden + hidden + hidden * num_classes + num_classes),
    ]


def _unit(c: int, out: int, area: int) -> int:
    """Phi and its norm, W, W_s, mask, and a projection where the channels change."""
    projection = c * out + 2 * out if c != out else 0
    return area * c * out + 2 * out + 2 * out * out + 9 * c + 1 + projection


def parameter_counts(model: HST) -> dict[str, int]:
    """Count HST's parameters by the blocks of :func:`parameter_formulas`."""
    windows, hierarchy, hybrid = model.windows, model.hierarchy, model.hybrid_attention
    counts = {
        "Omega": count_parameters(windows.omega),
        "Phi": count_parameters(windows.phi) + count_parameters(windows.norm),
        "prior": count_parameters(hierarchy.prior),
    }
    stage = 0
    for unit in hierarchy.units:
        stage += unit.phi.kernel_size == (1, 1)  # a stage begins with a 1x1 unit
        name = f"stage {stage}"
        counts[name] = counts.get(name, 0) + count_parameters(unit)
    return counts | {
        "temporal convolution": count_parameters(model.temporal),
        "spatial attention": count_parameters(model.spatial_attention),
        "hybrid attention: fc": count_parameters(hybrid.branches),
        "hybrid attention: W1, W2": count_parameters(hybrid.weights)
        + count_parameters(hybrid.norm),
        "head": count_parameters(model.head),
    }
