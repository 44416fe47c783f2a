"""Layers, parameters, multiply-adds, memory and traffic of a model, read from its modules.

Models are built on torch's meta device, which keeps shapes but no values, so models of any size are
analysed quickly and without memory.
"""

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

from hstlib.model import HST
from hstlib.model.hst import Backbone
from hstlib.model.inputs import NUM_FRAMES
from hstlib.model.reformer import HierarchyResidualNetwork
from hstlib.training.metrics import count_parameters


@dataclass(frozen=True)
class Layer:
    """One call of a convolution or fully connected layer.

    Attributes:
        kernel: Kernel size, (height, width) or (time, height, width); empty for a fully connected
            layer.
        channels: Number of output channels or features.
        shape: Shape of the output for one clip, with the batch axis.
        multiply_adds: Multiply-adds of this call for one clip.
    """

    kernel: tuple[int, ...]
    channels: int
    shape: tuple[int, ...]
    multiply_adds: int


def trace(build: Callable[[], nn.Module], size: int = 224) -> list[Layer]:
    """List the layers that one clip passes, in the order of their calls.

    Args:
        build: Function that builds the model; called on the meta device.
        size: Height and width of the clip, in pixels.

    Returns:
        The convolutions and fully connected layers; a layer called twice is listed twice.
    """
    layers: list[Layer] = []

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        kernel = tuple(getattr(module, "kernel_size", ()))
        inputs_per_value = module.weight[0].numel()
        cost = output.numel() * inputs_per_value
        layers.append(Layer(kernel, module.weight.shape[0], tuple(output.shape), cost))

    model = _on_meta(build).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_hook(record)
    _forward(model, size)
    return layers


def multiply_adds(build: Callable[[], nn.Module], size: int = 224) -> int:
    """Count the multiply-adds of one clip with torch's operator counter.

    Args:
        build: Function that builds the model; called on the meta device.
        size: Height and width of the clip, in pixels.

    Returns:
        Multiply-adds of the forward pass; each is two of torch's floating-point operations.
    """
    model = _on_meta(build).eval()
    with FlopCounterMode(display=False) as counter:
        _forward(model, size)
    return counter.get_total_flops() // 2


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def _forward(model: nn.Module, size: int) -> None:
    with torch.no_grad():
        model(*_empty_clips(size))


def _empty_clips(size: int, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return clips (B, 3, T, H, W) and flow (B, 2, T, H, W) on the meta device."""
    shape = (NUM_FRAMES, size, size)
    clips = torch.empty(count, 3, *shape, device="meta")
    return clips, torch.empty(count, 2, *shape, device="meta")


def kept_memory(build: Callable[[], nn.Module], size: int = 224) -> dict[str, int]:
    """Count the bytes that autograd saves in the forward pass of one clip for the backward pass.

    Args:
        build: Function that builds the model; called on the meta device, so nothing is allocated.
        size: Height and width of the clip, in pixels.

    Returns:
        Bytes per block in the order of the forward pass; HResidual units are added up by stage. A
        tensor saved by several blocks counts in the first. Parameters and buffers do not count.
    """
    model = _on_meta(build).train()
    saved_bytes: dict[str, int] = {}
    open_blocks = ["the rest"]
    parameters = model.state_dict(keep_vars=True).values()
    counted = {tensor.untyped_storage()._cdata for tensor in parameters}
    alive: list[torch.UntypedStorage] = []  # a freed storage's address could be used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            alive.append(storage)
            saved_bytes[open_blocks[-1]] = saved_bytes.get(open_blocks[-1], 0) + storage.nbytes()
        return tensor

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: open_blocks.append(name)

    def leave(*_: object) -> None:
        open_blocks.pop()

    for name, block in _blocks(model):
        block.register_forward_pre_hook(enter(name))
        block.register_forward_hook(leave)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(*_empty_clips(size))
    return saved_bytes


def training_traffic(build: Callable[[], nn.Module], size: int = 224) -> tuple[int, int]:
    """Count the bytes that the operators of a training step read and write, in float32.

    Every operator reads its inputs and writes its outputs once, assuming no caching and no operator
    fusion.

    Args:
        build: Function that builds the model; called on the meta device, so nothing is allocated.
        size: Height and width of the clip, in pixels.

    Returns:
        Bytes per clip, and bytes per step on top: weights, gradients and Adam.
    """
    two, four = (step_traffic(build, size, batch_size) for batch_size in (2, 4))
    return (four - two) // 2, 2 * two - four


def step_traffic(build: Callable[[], nn.Module], size: int, batch_size: int) -> int:
    """Count the bytes that one training step of a batch reads and writes, in float32."""
    model = _on_meta(build).train()
    optimiser = torch.optim.Adam(model.parameters())
    with _Traffic() as traffic:
        model(*_empty_clips(size, batch_size)).sum().backward()
        optimiser.step()
    return traffic.bytes


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of all operators' inputs and outputs."""

    WITHOUT_TRAFFIC = ("aten::_unsafe_view", "aten::empty", "aten::new_empty")

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        output = operator(*args, **(kwargs or {}))
        if not operator.is_view and not operator.name().startswith(self.WITHOUT_TRAFFIC):
            values = tree_leaves((args, kwargs, output))
            self.bytes += sum(value.nbytes for value in values if isinstance(value, Tensor))
        return output


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a model's children with their names; HST's hierarchy is split into prior and units."""
    blocks = []
    for name, child in model.named_children():
        if isinstance(child, HierarchyResidualNetwork):
            blocks += [("prior", child.prior), *zip(_stages(child), child.units, strict=True)]
        else:
            blocks.append((name.replace("_", " "), child))
    return blocks


def _stages(hierarchy: HierarchyResidualNetwork) -> list[str]:
    """Return the name of each unit's stage; the first unit of a stage has a 1x1 kernel."""
    starts = [int(unit.phi.kernel_size == (1, 1)) for unit in hierarchy.units]
    return [f"stage {number}" for number in accumulate(starts)]


def parameter_sum(module: nn.Module) -> str:
    """Format the number of parameters as a sum over layers.

    Args:
        module: Module of convolutions, fully connected layers and batch norms; others are ignored.

    Returns:
        A Python expression such as ``4 * (9*96*96) + 5 * (2*96)``. A convolution's weights are
        kernel area * input channels * output channels; equal layers are grouped.
    """
    terms = Counter(term for layer in module.modules() for term in _terms(layer))
    return " + ".join(f"{n} * ({term})" if n > 1 else term for term, n in terms.items())


def _terms(layer: nn.Module) -> list[str]:
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        area = math.prod(layer.kernel_size)
        weights = f"{layer.in_channels}*{layer.out_channels}"
        weights = weights if area == 1 else f"{area}*{weights}"
        return [weights] if layer.bias is None else [weights, f"{layer.out_channels}"]
    if isinstance(layer, nn.Linear):
        return [f"{layer.in_features}*{layer.out_features}", f"{layer.out_features}"]
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
        return [f"2*{layer.num_features}"]
    return []


def stage_table(layers: list[Layer]) -> pd.Series:
    """Summarise the convolutions of a trace by output size, as Tables 1 and 3 of the paper do.

    Args:
        layers: Layers from :func:`trace`.

    Returns:
        One text per output size, in the order of the trace. ``1x3x3, 64 (x8)`` means eight
        convolutions with kernel 1x3x3 (time, height, width) and 64 output channels.
    """
    stages: dict[str, Counter[str]] = {}
    for layer in layers:
        if not layer.kernel:
            continue
        kernel = layer.kernel if len(layer.kernel) == 3 else (1, *layer.kernel)
        size = f"{layer.shape[-2]} x {layer.shape[-1]}"
        stages.setdefault(size, Counter())[f"{'x'.join(map(str, kernel))}, {layer.channels}"] += 1
    return pd.Series(
        {
            size: "; ".join(text if n == 1 else f"{text} (x{n})" for text, n in counts.items())
            for size, counts in stages.items()
        }
    )


def parameter_formulas(num_classes: int, sizes: Backbone) -> list[tuple[str, str, int]]:
    """Compute the number of HST's parameters block by block, without building the model.

    Args:
        num_classes: Number of classes.
        sizes: Channels and units of every stage, as in :data:`hstlib.model.hst.BACKBONES`.

    Returns:
        Name, formula and number of parameters per block. In a formula, C0 and C are the channels of
        the windows and of the last stage, h is the hidden width and n the number of classes.
    """
    c0, hidden = sizes.channels, sizes.hidden
    windows, c = NUM_FRAMES // 2, sizes.stages[-1][1]
    rows = [
        ("Omega", "3 * 3 + 3", 12),
        ("Phi", "27 C0 + C0 + 2 C0", 30 * c0),
        ("prior", "9 * 8 C0 * C0 + C0", 9 * windows * c0 * c0 + c0),
    ]
    width = c0
    for stage, (units, out) in enumerate(sizes.stages, start=1):
        total = _unit_parameters(width, out, 1) + (units - 1) * _unit_parameters(out, out, 9)
        rows.append((f"stage {stage}", f"{units} units, {width} to {out} channels", total))
        width = out
    return rows + [
        ("temporal convolution", "7 C + 2 C", 9 * c),
        ("spatial attention", "2 C + 2 C^2 + C", 2 * c * c + 3 * c),
        ("hybrid attention: fc", "2 (4 C^2 + 2 C)", 8 * c * c + 4 * c),
        ("hybrid attention: W1, W2", "2 C^2 + 2 C", 2 * c * c + 2 * c),
        ("head", "C h + h + h n + n", c * hidden + hidden + hidden * num_classes + num_classes),
    ]


def _unit_parameters(c: int, out: int, area: int) -> int:
    """Return the number of parameters of a unit with c input channels; area: kernel area of Phi."""
    phi, weight, similarity, mask = area * c * out + 2 * out, out * out, out * out, 9 * c + 1
    projection = c * out + 2 * out if c != out else 0
    return phi + weight + similarity + mask + projection


def parameter_counts(model: HST) -> dict[str, int]:
    """Count the parameters of a built HST, by the blocks of :func:`parameter_formulas`."""
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
