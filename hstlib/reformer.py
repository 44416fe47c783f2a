"""Section 3.1, the Hierarchy Residual Reformer: from frames and flow to S and T.

All spatial convolutions of the paper are 1x3x3 (PyTorch order), which act on every frame alone;
they run as 2-D convolutions over frames or windows folded into the batch. In memory the channels
come last, from the frames on: convolutions, norms and poolings are fastest so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hstlib import ops


class TemporalConvolution(nn.Module):
    """Turn optical flow into the temporal feature T.

    Paper: Eq. (1), section 3.1: "a 3D CNN layer with kernel size 1x1x3 ... along the temporal
    direction".
    Reading: the flow is averaged to the grid of S before the convolution, and the maximum over
    the frames is taken after it; batch norm before the activation is ours.

    Args:
        channels: C, channels of T.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv3d(2, channels, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, flow: Tensor, size: Sequence[int]) -> Tensor:
        """Compute T.

        Args:
            flow: Pixels per frame, shape (B, 2, T, H, W).
            size: Height and width of S.

        Returns:
            T, shape (B, C, *size).
        """
        frames = flow.transpose(1, 2).flatten(0, 1)  # (B T, 2, H, W)
        pooled = functional.adaptive_avg_pool2d(frames, tuple(size))
        pooled = pooled.unflatten(0, (flow.shape[0], -1)).transpose(1, 2)  # (B, 2, T, h, w)
        features = self.norm(self.convolution(pooled))
        return self.over_time(functional.leaky_relu(features))

    def over_time(self, features: Tensor) -> Tensor:
        """Bring the frames together: (B, C, T, h, w) to (B, C, h, w)."""
        return features.amax(2)


class SpatialVisualWindows(nn.Module):
    """Turn frames into normalised windows of two frames.

    Paper: section 3.1, Figure 2(b): channel shuffle, Omega, Phi, merge (2) and the spatial visual
    normalisation SVN (3)-(5).
    Reading: Omega is fully connected per position, since a dense one would need (C H W)^2
    weights; batch norm after Phi is ours.

    Args:
        channels: C, channels of the windows.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.omega = nn.Conv2d(3, 3, 1)
        self.phi = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the windows.

        Args:
            clips: RGB clips, shape (B, 3, T, H, W), T even.

        Returns:
            Windows s, shape (B, T / 2, C, H / 2, W / 2).
        """
        frames = clips.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W); channel shuffle: identity
        frames = frames.contiguous(memory_format=torch.channels_last)
        values = functional.leaky_relu(self.omega(frames))
        return self.normalise(self.norm(self.phi(values)).unflatten(0, (clips.shape[0], -1)))

    def normalise(self, features: Tensor) -> Tensor:
        """Merge and normalise: (B, T, C, h, w) to (B, T / 2, C, h, w), Eqs. (2)-(5)."""
        noise = ops.window_noise(features[:, :1, :, :1, :1], self.training)
        return ops.spatial_visual_norm(features, noise)


class HResidualUnit(nn.Module):
    """One unit of the hierarchy residual network.

    Paper: Eqs. (7)-(9), section 3.1, Figure 3.
    Reading: W is one 1x1 convolution shared by both terms of Eq. (8); phi is max-pooling, 2x2
    where the unit halves the size, else 3x3 with stride 1; the other terms are average-pooled
    with it; the activation follows the sum.

    Args:
        in_channels: c, channels of the input windows.
        out_channels: c', channels of the output windows.
        kernel_size: Height and width of Phi: 1 in the first unit of a stage (section 4), else 3.
        halve: Halve height and width.

    Attributes:
        recompute: Keep Phi's features only and work the terms of Eq. (8) out again in the backward
            pass: less than half the memory for more time.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.recompute = False
        self.phi = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.mask = nn.Conv2d(in_channels, 1, 3, padding=1)
        self.similarity = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.weight = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.project = nn.Identity()
        if in_channels != out_channels:
            self.project = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, windows: Tensor, prior: Tensor | None = None) -> Tensor:
        """Compute the next windows.

        Args:
            windows: Shape (B, K, c, H, W).
            prior: Predecessor of the first window, shape (B, c, H, W).

        Returns:
            Shape (B, K, c', H, W), or half the height and width.
        """
        B, K = windows.shape[:2]
        folded = windows.flatten(0, 1)  # (B K, c, H, W)
        features = self.norm(self.phi(folded))
        if self.recompute and torch.is_grad_enabled():
            terms = checkpoint(
                self.terms, features, folded, use_reentrant=False, preserve_rng_state=False
            )
        else:
            terms = self.terms(features, folded)
        if self.halve:  # the average of the predecessors is the predecessor of the averages
            windows = functional.avg_pool2d(folded, 2).unflatten(0, (B, K))
            prior = None if prior is None else functional.avg_pool2d(prior, 2)
        residual = self.project(self.predecessors(windows, prior).flatten(0, 1))
        return functional.leaky_relu(terms + residual, inplace=True).unflatten(0, (B, K))

    def terms(self, features: Tensor, windows: Tensor) -> Tensor:
        """Add the two terms of Eq. (8), pooled.

        Args:
            features: Phi(s), shape (B K, c', H, W).
            windows: s, shape (B K, c, H, W); gives the mask.

        Returns:
            Shape (B K, c', H, W), or half the height and width.
        """
        mask = self.mask(windows).sigmoid()
        delta = ops.masked_similarity(features, mask, self.similarity(features))
        likelihood = ops.max_pool(self.weight(features), self.halve)
        evidence = functional.leaky_relu(self.weight(delta), inplace=True)
        return likelihood + (functional.avg_pool2d(evidence, 2) if self.halve else evidence)

    def predecessors(self, windows: Tensor, prior: Tensor | None) -> Tensor:
        """Return what Eq. (7) adds to each window, of the windows' shape.

        A unit that halves calls it with windows and prior that are averaged already.
        """
        return ops.previous_windows(windows, prior)


class HierarchyResidualNetwork(nn.Module):
    """Stages of HResidual units, and the prior that the first unit starts from.

    Paper: section 3.1, Figure 2(c); Table 1 and Table 3 for the stages.
    Reading: Eq. (6)'s stack of all windows gives, by one 3x3 convolution, the initial prior p(w)
    of section 1. Each stage begins with a 1x1 unit and, from the second on, halves the size.

    Args:
        num_windows: K.
        channels: C0, channels of the windows.
        stages: Units and channels of each stage.
    """

    def __init__(self, num_windows: int, channels: int, stages: Sequence[tuple[int, int]]):
        super().__init__()
        self.prior = nn.Conv2d(num_windows * channels, channels, 3, padding=1)
        units, width = [], channels
        for stage, (repeats, out_channels) in enumerate(stages):
            for unit in range(repeats):
                first = unit == 0
                halve = first and stage > 0
                units.append(HResidualUnit(width, out_channels, 1 if first else 3, halve))
                width = out_channels
        self.units = nn.ModuleList(units)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the two spatial feature maps.

        Args:
            windows: Shape (B, K, C0, H, W).

        Returns:
            s1 and s2, each of shape (B, C, h, w), halved once for each stage after the first.
        """
        prior = self.prior(ops.concat_windows(windows))
        for unit in self.units:
            windows, prior = unit(windows, prior), None
        return self.converge(windows)

    def converge(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Bring (B, K, C, h, w) together into s1 and s2."""
        return ops.converge_windows(windows)
