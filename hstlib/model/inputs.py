"""Checks that every model makes before it computes: backbone name, clips and flow."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

NUM_FRAMES = 16
"""Frames per clip; two frames make a window."""

Sizes = TypeVar("Sizes")


def lookup_backbone(sizes: Mapping[str, Sizes], backbone: str) -> Sizes:
    """Return the sizes of a backbone.

    Args:
        sizes: Sizes by name of the backbone.
        backbone: A key of ``sizes``.

    Raises:
        ValueError: If the backbone is unknown; the message lists the known ones.
    """
    if backbone not in sizes:
        raise ValueError(f"backbone {backbone!r} is unknown; use one of {sorted(sizes)}")
    return sizes[backbone]


def check_clips(clips: Tensor, divisor: int, dtype: torch.dtype) -> None:
    """Raise an error for clips that a model cannot take.

    Args:
        clips: Checked for shape (B, 3, 16, H, W), floating-point type and finite values.
        divisor: Number that H and W must be divisible by.
        dtype: Type of the model's weights.

    Raises:
        ValueError: If shape, type or values do not fit; the message shows the shape.
    """
    shape = tuple(clips.shape)
    fits = len(shape) == 5 and shape[1:3] == (3, NUM_FRAMES) and 0 not in shape
    if not fits or shape[3] % divisor or shape[4] % divisor:
        raise ValueError(
            f"clips have shape {shape}, expected (B, 3, {NUM_FRAMES}, H, W) "
            f"with H and W divisible by {divisor}"
        )
    if not torch.is_floating_point(clips):
        raise ValueError(
            f"clips {shape} are {clips.dtype}, expected floating point; "
            "normalise uint8 frames with hstlib.data.clips.normalise"
        )
    _check_dtype(clips, "clips", dtype)
    _check_finite(clips, "clips")


def check_flow(flow: Tensor, clips: Tensor, dtype: torch.dtype) -> None:
    """Raise an error for flow that does not belong to the clips.

    Args:
        flow: Checked for shape (B, 2, 16, H, W), floating-point type and finite values.
        clips: Shape (B, 3, 16, H, W).
        dtype: Type of the model's weights.

    Raises:
        ValueError: If shape, type or values do not fit; the message shows the shape.
    """
    expected = (clips.shape[0], 2, *clips.shape[2:])
    if tuple(flow.shape) != expected or not torch.is_floating_point(flow):
        raise ValueError(
            f"flow has shape {tuple(flow.shape)} and type {flow.dtype}, "
            f"expected floating point {expected} for clips {tuple(clips.shape)}"
        )
    _check_dtype(flow, "flow", dtype)
    _check_finite(flow, "flow")


def _check_dtype(values: Tensor, name: str, dtype: torch.dtype) -> None:
    """Raise an error for a type other than the weights', unless autocast converts both."""
    if values.dtype == dtype:
        return
    device = values.device.type
    # is_autocast_enabled raises an error for a device without autocast, such as meta
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and torch.float64 not in (values.dtype, dtype):  # autocast never converts float64
        return
    raise ValueError(
        f"{name} {tuple(values.shape)} are {values.dtype}, but the model's weights are {dtype}; "
        f"convert {name} with .to({dtype})"
    )


def _check_finite(values: Tensor, name: str) -> None:
    """Raise an error for NaN and infinity on the CPU; on a GPU the check would synchronise."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return
    # Minimum and maximum carry NaN on and, unlike a sum, cannot overflow.
    if not (values.amin().isfinite() and values.amax().isfinite()):
        raise ValueError(
            f"{name} {tuple(values.shape)} contain NaN or infinity, expected finite numbers"
        )


def check_same_shape(mix: Tensor, temporal: Tensor) -> None:
    """Raise ValueError if the two inputs of Eq. (17) differ in shape."""
    if mix.shape != temporal.shape:
        raise ValueError(f"mix {tuple(mix.shape)} and T {tuple(temporal.shape)} differ in shape")
