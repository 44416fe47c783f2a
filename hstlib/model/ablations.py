"""HST without one of its parts: changes that the paper's words do not allow.

They measure what each of the paper's contributions adds; the paper itself has no such comparison.
:mod:`hstlib.model.readings` names them.
"""

import torch
from torch import Tensor, nn

from hstlib.model import ops
from hstlib.model.hst import HST


def merge_only(features: Tensor, noise: Tensor) -> Tensor:
    """Merge the two frames of each window, Eq. (2), without SVN, Eqs. (3)-(5).

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.
        noise: Ignored.

    Returns:
        Windows, shape (B, T / 2, C, H, W).
    """
    return ops.merge_windows(features)


def unshifted_windows(windows: Tensor, prior: Tensor | None) -> Tensor:
    """Return each window as its own predecessor, Eq. (7); the prior stays that of the first.

    Args:
        windows: Shape (B, K, C, H, W).
        prior: Predecessor of the first window, shape (B, C, H, W), or None.

    Returns:
        Shape (B, K, C, H, W).
    """
    if prior is None:
        return windows
    return torch.cat([prior.unsqueeze(1), windows[:, 1:]], dim=1)  # (B, K, C, H, W)


def no_mask(windows: Tensor) -> None:
    """Return None, in place of the mask of Eq. (9)."""


def convolution_only(features: Tensor, mask: None, weighted: Tensor) -> Tensor:
    """Return Phi(s), shape (N, C, H, W): Eq. (9) without mask and similarity."""
    return features


class NoPrior(nn.Module):
    """Ignore the stack of Eq. (6), so that the first window is its own predecessor."""

    def forward(self, stack: Tensor) -> None:
        """Return None."""


class NoTemporalFeature(nn.Module):
    """Ignore the flow, in place of the temporal convolution."""

    def forward(self, flow: Tensor, size: torch.Size) -> None:
        """Return None."""


class ConstantTemporalFeature(nn.Module):
    """Ignore the flow; T is 1 everywhere, so Eq. (17) reads the mix alone.

    Args:
        channels: C, channels of T.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, flow: Tensor, size: torch.Size) -> Tensor:
        """Return ones, shape (B, C, *size)."""
        return flow.new_ones(flow.shape[0], self.channels, *size)


class MeanOfMaps(nn.Module):
    """Average s1 and s2, in place of spatial attention."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return S, shape (B, C, H, W)."""
        return (first + second) / 2


class GlobalAveragePool(nn.Module):
    """Average the spatial feature over positions, in place of hybrid attention."""

    def forward(self, spatial: Tensor, temporal: None) -> Tensor:
        """Return a vector, shape (B, C)."""
        return spatial.mean((2, 3))


class Concatenation(nn.Module):
    """Average both features over positions and concatenate them, in place of hybrid attention."""

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Return a vector, shape (B, 2 C)."""
        return torch.cat([spatial.mean((2, 3)), temporal.mean((2, 3))], dim=1)


def remove_flow(model: HST) -> None:
    """Replace the temporal convolution of a model by the constant 1, in place."""
    model.temporal = ConstantTemporalFeature(model.hybrid_attention.channels)


def widen_head(model: HST) -> None:
    """Let the head read the channels of T after those of S, in place.

    The weights for S stay equal. Those for T are drawn as the global generator would draw next; its
    state is restored, so whatever is random later stays equal, too.
    """
    layer = model.head[0]
    with torch.random.fork_rng(devices=[]):
        added = nn.Linear(layer.in_features, layer.out_features, bias=False)
    layer.weight = nn.Parameter(torch.cat([layer.weight.data, added.weight.data], dim=1))
    layer.in_features *= 2
