"""Models by name.

``hst``, ``c3d``, ``r2plus1d`` and ``r3d`` are the paper's; ``r3d-standard``, ``r2plus1d-standard``
and ``r3d-flow`` are ours, to be compared beside them.
"""

import torch
from torch import nn

from hstlib.model.baselines import C3D, R3D, R2Plus1D
from hstlib.model.fusion import R3DFlow
from hstlib.model.hst import HST
from hstlib.model.readings import apply_reading
from hstlib.model.standard import StandardR2Plus1D, StandardR3D

MODELS: dict[str, type[nn.Module]] = {
    "hst": HST,
    "c3d": C3D,
    "r2plus1d": R2Plus1D,
    "r3d": R3D,
    "r3d-standard": StandardR3D,
    "r2plus1d-standard": StandardR2Plus1D,
    "r3d-flow": R3DFlow,
}
USES_FLOW = (HST, R3DFlow)
"""Models that read the flow; all others ignore it."""


def build_model(model: str, num_classes: int, backbone: str, reading: str = "paper") -> nn.Module:
    """Build a model by name.

    Args:
        model: A key of :data:`MODELS`.
        num_classes: Number of action classes.
        backbone: ``resnet21``, ``vgg13`` or ``demo``.
        reading: Interpretation of the paper, HST only;
            :func:`hstlib.model.readings.apply_reading` lists the values.

    Raises:
        ValueError: If model, backbone or reading is unknown, or a baseline is given a reading.
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; use one of {sorted(MODELS)}")
    built = MODELS[model](num_classes, backbone)
    if isinstance(built, HST):
        apply_reading(built, reading)
    elif reading != "paper":
        raise ValueError(f"reading {reading!r} is for hst only; {model} needs reading 'paper'")
    return built


def to_channels_last(model: nn.Module) -> None:
    """Convert convolution weights (2-D and 3-D) to the channels-last memory format, in place."""
    memory_formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if memory_format := memory_formats.get(parameter.ndim):
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
