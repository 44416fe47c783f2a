"""Sections 3.2 and 3.3: spatial attention and hybrid spatial-temporal attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib import ops


class SpatialAttention(nn.Module):
    """Fuse the two spatial feature maps and attend to positions.

    Paper: Eqs. (10)-(12), section 3.2, Figure 4.
    Reading: f is one position-wise layer on the concatenation of beta gamma and gamma; batch norm
    on gamma is ours.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.feed_forward = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute lambda.

        Args:
            first: s1, shape (B, C, H, W).
            second: s2, shape (B, C, H, W).

        Returns:
            lambda, shape (B, C, H, W).
        """
        fused = self.norm(ops.gelu_product(first, second))  # Eq. (10)
        attention = ops.spatial_softmax(fused)  # Eq. (11)
        return self.feed_forward(torch.cat([attention * fused, fused], 1))  # Eq. (12)


class HybridAttention(nn.Module):
    """Combine the spatial feature lambda with the temporal feature T.

    Paper: Eqs. (13)-(17), section 3.3, Figures 5-7.
    Reading: fc is position-wise; b under the root of Eq. (17) is the number of channels; batch
    norm on the mix is ours.

    Args:
        channels: C, even.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.branches = nn.ModuleList(nn.Conv2d(2 * channels, 2 * channels, 1) for _ in range(2))
        self.weights = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Compute the representation that is classified.

        Args:
            spatial: lambda, shape (B, C, H, W). An odd H or W (7 at 112 pixels; the paper's 224
                give 14) repeats its last row or column for the split.
            temporal: T, shape (B, C, H, W).

        Returns:
            Shape (B, C).
        """
        height, width = spatial.shape[-2:]
        even = spatial  # no padding by torch's, whose backward pass cannot be compiled
        if height % 2:
            even = torch.cat([even, even[..., -1:, :]], dim=2)
        if width % 2:
            even = torch.cat([even, even[..., -1:]], dim=3)
        mixed = []
        halves = self.split(even)
        for half, branch, weight in zip(halves, self.branches, self.weights, strict=True):
            pooled = functional.max_pool2d(half, 3, stride=1, padding=1)
            mixed.append(weight(self.expand(branch(pooled))))  # Eq. (15)
        mix = (mixed[0] + mixed[1])[..., :height, :width] / self.channels**0.5
        mix = self.norm(mix)
        return self.combine(mix, temporal)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Make the two branches, Eqs. (13) and (14)."""
        return ops.split_channels(features)

    def expand(self, branch: Tensor) -> Tensor:
        """Undo the split of one branch, Eq. (16)."""
        return ops.expand_channels(branch)

    def combine(self, mix: Tensor, temporal: Tensor) -> Tensor:
        """Bring mix and T, both (B, C, H, W), to one vector (B, C), Eq. (17)."""
        return ops.block_in_attention(mix, temporal)
