"""What the built models look like, read from their modules: sizes, kernels, parameters, cost."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hstlib.hst import HST, NUM_FRAMES, Backbone
from hstlib.metrics import count_parameters
from hstlib.reformer import HierarchyResidualNetwork


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
    with torch.no_grad():
        model(*_empty_clips(size))


def _empty_clips(size: int, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return frames and flow of clips on the meta device."""
    shape = (NUM_FRAMES, size, size)
    frames = torch.empty(count, 3, *shape, device="meta")
    return frames, torch.empty(count, 2, *shape, device="meta")


def kept_memory(build: Callable[[], nn.Module], size: int = 224) -> dict[str, int]:
    """Count what a training step keeps of one clip's forward pass for its backward pass.

    Args:
        build: Makes the model; called on the meta device, so nothing is really allocated.
        size: Height and width of the clip, in pixels.

    Returns:
        Bytes by block, in the order in which the blocks are met; the HResidual units by their
        stage. A tensor that several blocks keep counts for the first; parameters and buffers do
        not count.
    """
    with torch.device("meta"):
        model = build().train()
    kept: dict[str, int] = {}
    blocks: list[str] = []
    own = {tensor.untyped_storage()._cdata for tensor in model.state_dict(keep_vars=True).values()}
    seen: list[torch.UntypedStorage] = []  # alive, so that no two share an address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            own.add(storage._cdata)
            seen.append(storage)
            kept[blocks[-1]] = kept.get(blocks[-1], 0) + storage.nbytes()
        return tensor

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: blocks.append(name)

    for name, block in _blocks(model):
        block.register_forward_pre_hook(enter(name))
        block.register_forward_hook(lambda *_: blocks.pop() and None)
    blocks.append("the rest")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(*_empty_clips(size))
    return kept


def training_traffic(build: Callable[[], nn.Module], size: int = 224) -> tuple[int, int]:
    """Count what the operators of a training step read and write, in float32.

    Every operator reads its inputs and writes its outputs once, as if no cache kept them and no
    two operators were one.

    Args:
        build: Makes the model; called on the meta device, so nothing is really allocated.
        size: Height and width of the clip, in pixels.

    Returns:
        Bytes of each clip, and bytes of each step besides: weights, gradients and Adam.
    """
    two, four = (_count_traffic(build, size, count) for count in (2, 4))
    return (four - two) // 2, 2 * two - four


def _count_traffic(build: Callable[[], nn.Module], size: int, count: int) -> int:
    with torch.device("meta"):
        model = build().train()
    optimiser = torch.optim.Adam(model.parameters())
    with _Traffic() as traffic:
        model(*_empty_clips(size, count)).sum().backward()
        optimiser.step()
    return traffic.bytes


class _Traffic(TorchDispatchMode):
    """Counts the bytes of the inputs and outputs of operators."""

    ONLY_NAMED = ("aten::_unsafe_view", "aten::empty", "aten::new_empty")

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        output = operator(*args, **(kwargs or {}))
        if not operator.is_view and not operator.name().startswith(self.ONLY_NAMED):
            touched = tree_leaves((args, kwargs, output))
            self.bytes += sum(x.nbytes for x in touched if isinstance(x, Tensor))
        return output


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the blocks of a model; of HST's hierarchy, its prior and the units by stage."""
    named = []
    for name, block in model.named_children():
        if isinstance(block, HierarchyResidualNetwork):
            stages = _stages(block)
            named += [("prior", block.prior), *zip(stages, block.units, strict=True)]
        else:
            named.append((name.replace("_", " "), block))
    return named


def _stages(hierarchy: HierarchyResidualNetwork) -> list[str]:
    """Name the stage of every unit; a stage begins with a 1x1 unit."""
    starts = [int(unit.phi.kernel_size == (1, 1)) for unit in hierarchy.units]
    return [f"stage {number}" for number in accumulate(starts)]


def parameter_sum(module: nn.Module) -> str:
    """Write the number of parameters as a sum over layers, from their sizes.

    Returns:
        Such as ``4 * (9*96*96) + 5 * (2*96)``: weights of convolutions as kernel area, input and
        output channels, biases and batch norms; equal layers are taken together.
    """
    terms = Counter(term for layer in module.modules() for term in _terms(layer))
    return " + ".join(f"{n} * ({term})" if n > 1 else term for term, n in terms.items())


def _terms(layer: nn.Module) -> list[str]:
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        area = f"{math.prod(layer.kernel_size)}*"
        weights = f"{area if area != '1*' else ''}{layer.in_channels}*{layer.out_channels}"
        return [weights] + [f"{layer.out_channels}"] * (layer.bias is not None)
    if isinstance(layer, nn.Linear):
        return [f"{layer.in_features}*{layer.out_features}", f"{layer.out_features}"]
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
        return [f"2*{layer.num_features}"]
    return []


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
    for name, unit in zip(_stages(hierarchy), hierarchy.units, strict=True):
        counts[name] = counts.get(name, 0) + count_parameters(unit)
    return counts | {
        "temporal convolution": count_parameters(model.temporal),
        "spatial attention": count_parameters(model.spatial_attention),
        "hybrid attention: fc": count_parameters(hybrid.branches),
        "hybrid attention: W1, W2": count_parameters(hybrid.weights)
        + count_parameters(hybrid.norm),
        "head": count_parameters(model.head),
    }
