"""Sections 3.2 and 3.3: spatial attention and hybrid spatial-temporal attention."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.model import ops


class SpatialAttention(nn.Module):
    """Fuse the two spatial feature maps and attend to positions.

    Paper: Eqs. (10)-(12), section 3.2, Figure 4.
    Reading: R17, f is one position-wise layer on the concatenation of beta gamma and gamma; the
    batch norm on gamma is ours.

    Args:
        channels: C.

    Attributes:
        fuse: Eq. (10): s1 and s2 to gamma, all of shape (B, C, H, W).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.feed_forward = nn.Conv2d(2 * channels, channels, 1)
        self.fuse: Callable[[Tensor, Tensor], Tensor] = ops.gelu_product

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute lambda.

        Args:
            first: s1, shape (B, C, H, W).
            second: s2, shape (B, C, H, W).

        Returns:
            lambda, shape (B, C, H, W).
        """
        fused = self.norm(self.fuse(first, second))  # gamma, Eq. (10)
        attention = ops.spatial_softmax(fused)  # beta, Eq. (11)
        both = torch.cat([attention * fused, fused], 1)  # (B, 2 C, H, W)
        return self.feed_forward(both)  # Eq. (12)


class HybridAttention(nn.Module):
    """Combine the spatial feature lambda with the temporal feature T.

    Paper: Eqs. (13)-(17), section 3.3, Figures 5-7.
    Reading: R19, fc is position-wise; R20, b under the root of Eq. (17) is the number of channels,
    and the batch norm on the mix is ours.

    Args:
        channels: C, even.

    Attributes:
        split: Eqs. (13) and (14): lambda (B, C, H, W) to two branches (B, 2 C, H / 2, W / 2).
        expand: Eq. (16): a branch (B, 2 C, H / 2, W / 2) to (B, C, H, W).
        fuse: mat of Eq. (17): W1 b1 and W2 b2, both (B, C, 2 h, 2 w), to one map of that shape.
        combine: Eq. (17): mix and T, both (B, C, H, W), to one vector (B, C).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.branches = nn.ModuleList(nn.Conv2d(2 * channels, 2 * channels, 1) for _ in range(2))
        self.weights = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)
        self.split: Callable[[Tensor], tuple[Tensor, Tensor]] = ops.split_channels
        self.expand: Callable[[Tensor], Tensor] = ops.expand_channels
        self.fuse: Callable[[Tensor, Tensor], Tensor] = torch.add
        self.combine: Callable[[Tensor, Tensor], Tensor] = ops.block_in_attention

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Compute the vector that is classified.

        Args:
            spatial: lambda, shape (B, C, H, W). For an odd H or W (7 for frames of 112 pixels; the
                paper's 224 give 14) the last row or column is repeated before the split.
            temporal: T, shape (B, C, H, W).

        Returns:
            Shape (B, C).
        """
        H, W = spatial.shape[-2:]
        halves = self.split(_pad_to_even(spatial))  # each (B, 2 C, h, w), h = ceil(H / 2)
        mixed = []
        for half, branch, weight in zip(halves, self.branches, self.weights, strict=True):
            pooled = functional.max_pool2d(half, 3, stride=1, padding=1)
            expanded = self.expand(branch(pooled))  # (B, C, 2 h, 2 w); Eqs. (15) and (16)
            mixed.append(weight(expanded))
        mix = self.fuse(*mixed)[..., :H, :W] / self.channels**0.5  # (B, C, H, W)
        return self.combine(self.norm(mix), temporal)


def _pad_to_even(features: Tensor) -> Tensor:
    """Repeat the last row of an odd height and the last column of an odd width."""
    # not functional.pad: torch.compile cannot compile its backward pass
    if features.shape[2] % 2:
        features = torch.cat([features, features[..., -1:, :]], dim=2)  # (B, C, H + 1, W)
    if features.shape[3] % 2:
        features = torch.cat([features, features[..., -1:]], dim=3)  # (B, C, H, W + 1)
    return features
