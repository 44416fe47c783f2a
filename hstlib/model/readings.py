"""Other readings of the paper, to be trained beside HST.

HST has one reading of every sentence and no switches. A reading of :data:`READINGS` replaces single
steps of a built model, so that everything else, initial weights included, stays equal. The readings
register of the book (book/readings.md) says why each is allowed by the paper's words.

A step is an attribute of a module: a function that is defined at module level, so that a changed
model can be pickled and copied, or a module without parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hstlib.model import ops
from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.hst import HST
from hstlib.model.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
)


@dataclass(frozen=True)
class Change:
    """Replacement of one step of the model.

    Attributes:
        owner: Class of the modules that have the step; all of them are changed.
        step: Name of the attribute.
        replacement: Function, or class of a module without parameters.
    """

    owner: type[nn.Module]
    step: str
    replacement: Callable | type[nn.Module]


@dataclass(frozen=True)
class Reading:
    """Another interpretation of the paper.

    Attributes:
        name: Value of the setting ``reading``.
        entry: Number of its entry in the readings register, 3 for R3.
        sentence: Description of what it changes.
        changes: Steps that it replaces.
    """

    name: str
    entry: int
    sentence: str
    changes: tuple[Change, ...]


def mean_over_time(features: Tensor) -> Tensor:
    """Average the frames, Eq. (1): (B, C, T, H, W) to (B, C, H, W)."""
    return features.mean(2)


def instance_norm(features: Tensor, noise: Tensor) -> Tensor:
    """Normalise the merged windows with their own mean and variance, in place of Eqs. (3)-(5).

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.
        noise: Added to the variance, shape (B, 1, C, 1, 1).

    Returns:
        Windows, shape (B, T / 2, C, H, W).
    """
    merged = ops.merge_windows(features)
    variance, mean = torch.var_mean(merged, ops.FRAMES_AND_POSITIONS, correction=0, keepdim=True)
    return ops.normalise_windows(merged, mean, variance, noise)


def same_windows(windows: Tensor, prior: Tensor | None) -> Tensor:
    """Return the windows themselves, Eq. (7), with the prior added to the first.

    Args:
        windows: Shape (B, K, C, H, W).
        prior: Shape (B, C, H, W), or None.

    Returns:
        Shape (B, K, C, H, W).
    """
    if prior is None:
        return windows
    first = windows[:, :1] + prior.unsqueeze(1)  # (B, 1, C, H, W)
    return torch.cat([first, windows[:, 1:]], dim=1)  # (B, K, C, H, W)


def converge_interleaved(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Average the odd windows into s1, the even ones into s2.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    return windows[:, 0::2].mean(1), windows[:, 1::2].mean(1)


def converge_maximum(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Take the maximum over the first half of the windows as s1, over the second half as s2.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    first, second = windows.chunk(2, dim=1)  # each (B, K / 2, C, H, W)
    return first.amax(1), second.amax(1)


def split_columns(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split columns 1, 3, 5 ... from columns 2, 4, 6 ..., Eqs. (13) and (14).

    Args:
        features: lambda, shape (B, C, H, W), H and W even.

    Returns:
        Branches of the odd and of the even columns, each (B, 2 C, H / 2, W / 2), in which the odd
        and the even rows are concatenated as channels.
    """
    odd, even = features[..., 0::2], features[..., 1::2]  # each (B, C, H, W / 2)
    return _rows_to_channels(odd), _rows_to_channels(even)


def _rows_to_channels(columns: Tensor) -> Tensor:
    """Concatenate odd and even rows as channels: (B, C, H, W) to (B, 2 C, H / 2, W)."""
    return torch.cat([columns[..., 0::2, :], columns[..., 1::2, :]], 1)


def expand_columns(branch: Tensor) -> Tensor:
    """Undo :func:`split_columns` for one branch and repeat its columns, Eq. (16).

    Args:
        branch: Shape (B, 2 C, H / 2, W / 2).

    Returns:
        Shape (B, C, H, W).
    """
    odd, even = branch.chunk(2, dim=1)  # rows, each (B, C, H / 2, W / 2)
    rows = torch.stack([odd, even], dim=3).flatten(2, 3)  # (B, C, H, W / 2)
    return rows.repeat_interleave(2, dim=3)  # (B, C, H, W)


def attention_over_positions(mix: Tensor, temporal: Tensor) -> Tensor:
    """Average T over positions with the softmax of the mix as weights.

    Paper: the text below Eq. (17), section 3.3: "the attention score and temporal feature T are
    used as the input to perform the element-wise product".
    Reading: R20, softmax over positions, times T, summed over positions.

    Args:
        mix: Normalised W1 b1 + W2 b2, shape (B, C, H, W).
        temporal: T, shape (B, C, H, W).

    Returns:
        Shape (B, C).

    Raises:
        ValueError: If the shapes differ.
    """
    if mix.shape != temporal.shape:
        raise ValueError(f"mix {tuple(mix.shape)} and T {tuple(temporal.shape)} differ in shape")
    score = mix.flatten(2).softmax(-1)  # (B, C, H W)
    return (score * temporal.flatten(2)).sum(-1)  # (B, C)


class MeanOfMaps(nn.Module):
    """Average s1 and s2, in place of spatial attention."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return S, shape (B, C, H, W)."""
        return (first + second) / 2


class NoTemporalFeature(nn.Module):
    """Ignore the flow, in place of the temporal convolution."""

    def forward(self, flow: Tensor, size: torch.Size) -> None:
        """Return None."""


class GlobalAveragePool(nn.Module):
    """Average S over positions, in place of hybrid attention."""

    def forward(self, spatial: Tensor, temporal: None) -> Tensor:
        """Return a vector, shape (B, C)."""
        return spatial.mean((2, 3))


_READINGS = (
    Reading(
        "mean-over-time", 3,
        "Eq. (1): the mean over the frames instead of the maximum.",
        (Change(TemporalConvolution, "over_time", mean_over_time),),
    ),
    Reading(
        "plain-instance-norm", 8,
        "Eqs. (3)-(5): mean and variance of the merged windows instead of the paper's.",
        (Change(SpatialVisualWindows, "normalise", instance_norm),),
    ),
    Reading(
        "same-window-residual", 11,
        "Eq. (7): the residual of a window is the window itself; the prior is added to the first.",
        (Change(HResidualUnit, "predecessors", same_windows),),
    ),
    Reading(
        "interleaved-windows", 16,
        "Convergence: s1 is the mean of the odd windows, s2 of the even ones.",
        (Change(HierarchyResidualNetwork, "converge", converge_interleaved),),
    ),
    Reading(
        "maximum-over-windows", 16,
        "Convergence: s1 is the maximum over the first half of the windows, s2 over the second.",
        (Change(HierarchyResidualNetwork, "converge", converge_maximum),),
    ),
    Reading(
        "split-by-column", 18,
        "Eqs. (13)-(16): b1 takes the odd columns, b2 the even ones; expand repeats the columns.",
        (
            Change(HybridAttention, "split", split_columns),
            Change(HybridAttention, "expand", expand_columns),
        ),
    ),
    Reading(
        "text-of-equation-17", 20,
        "Eq. (17): softmax over positions, times T, as the text has it; T is outside the softmax.",
        (Change(HybridAttention, "combine", attention_over_positions),),
    ),
    Reading(
        "no-norm-after-phi", 6,
        "No batch norm between Phi and the windows.",
        (Change(SpatialVisualWindows, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-gamma", 17,
        "No batch norm on gamma, Eq. (10).",
        (Change(SpatialAttention, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-mix", 20,
        "No batch norm on the mix under the softmax of Eq. (17).",
        (Change(HybridAttention, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-t", 3,
        "No batch norm on T, Eq. (1).",
        (Change(TemporalConvolution, "norm", nn.Identity),),
    ),
    Reading(
        "trunk-alone", 17,
        "Without sections 3.2 and 3.3 and without flow: S, averaged, goes to the head.",
        (
            Change(HST, "spatial_attention", MeanOfMaps),
            Change(HST, "temporal", NoTemporalFeature),
            Change(HST, "hybrid_attention", GlobalAveragePool),
        ),
    ),
)  # fmt: skip

READINGS: dict[str, Reading] = {reading.name: reading for reading in _READINGS}


def apply_reading(model: HST, reading: str) -> None:
    """Change the reading of a built model, in place.

    Args:
        model: HST as built, with the paper's reading.
        reading: ``paper`` for no change, a key of :data:`READINGS`, or several joined by ``+``.

    Raises:
        ValueError: If a reading is unknown, or a previous one removed what it changes.
    """
    names = [] if reading == "paper" else reading.split("+")
    for name in names:
        if name not in READINGS:
            raise ValueError(f"reading {name!r} is unknown; use 'paper' or some of {[*READINGS]}")
    for name in names:
        for change in READINGS[name].changes:
            owners = [part for part in model.modules() if isinstance(part, change.owner)]
            if not owners:
                raise ValueError(
                    f"reading {reading!r}: {name!r} changes {change.owner.__name__}, "
                    "which a reading before it removed"
                )
            for owner in owners:
                new = change.replacement
                setattr(owner, change.step, new() if isinstance(new, type) else new)
