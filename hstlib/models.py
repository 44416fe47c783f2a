"""The models by name."""

import torch
from torch import nn

from hstlib.ablation import change_reading
from hstlib.baselines import C3D, R3D, R2Plus1D
from hstlib.hst import HST

MODELS: dict[str, type[nn.Module]] = {"hst": HST, "c3d": C3D, "r2plus1d": R2Plus1D, "r3d": R3D}


def build_model(model: str, num_classes: int, backbone: str, reading: str = "paper") -> nn.Module:
    """Build a model by its name.

    Args:
        model: A key of :data:`MODELS`.
        num_classes: Number of classes.
        backbone: ``resnet21``, ``vgg13`` or ``demo``.
        reading: Of HST, see :func:`hstlib.ablation.change_reading`.

    Raises:
        ValueError: If model, backbone or reading is unknown.
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; use one of {sorted(MODELS)}")
    built = MODELS[model](num_classes, backbone)
    if isinstance(built, HST):
        change_reading(built, reading)
    elif reading != "paper":
        raise ValueError(f"reading {reading!r} is one of HST; {model} has 'paper' only")
    return built


def lay_channels_last(model: nn.Module) -> None:
    """Lay the weights of convolutions, of 2-D and 3-D ones alike, with their channels last."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if layout := layouts.get(parameter.ndim):
            parameter.data = parameter.data.contiguous(memory_format=layout)
