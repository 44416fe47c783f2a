"""Section 3.1, the Hierarchy Residual Reformer: from frames and flow to S and T.

The paper's spatial convolutions are 1x3x3 (in PyTorch's order) and act on each frame or window
alone. They run as 2-D convolutions with the frames or windows folded into the batch, in the
channels-last memory format, which is faster.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hstlib.model import fused, ops


class TemporalConvolution(nn.Module):
    """Compute the temporal feature T from optical flow.

    Paper: Eq. (1), section 3.1: "a 3D CNN layer with kernel size 1x1x3 ... along the temporal
    direction".
    Reading: R3, the flow is average-pooled to the grid of S before the convolution, and the maximum
    over the frames is taken after it; the batch norm before the activation is ours.

    Args:
        channels: C, channels of T.

    Attributes:
        pool_flow: Resizes the flow before the convolution: (B, 2, T, H, W) to (B, 2, T, h, w).
        pool_features: Resizes the activated features: (B, C, T, h, w) to the same shape.
        over_time: Combines the frames: (B, C, T, h, w) to (B, C, h, w).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv3d(2, channels, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(channels)
        self.pool_flow: Callable[[Tensor, Sequence[int]], Tensor] = pool_frames
        self.pool_features: Callable[[Tensor, Sequence[int]], Tensor] = keep_size
        self.over_time: Callable[[Tensor], Tensor] = ops.maximum_over_time

    def forward(self, flow: Tensor, size: Sequence[int]) -> Tensor:
        """Compute T.

        Args:
            flow: Pixels per frame, shape (B, 2, T, H, W).
            size: Height and width of S.

        Returns:
            T, shape (B, C, *size).
        """
        pooled = self.pool_flow(flow, size)  # (B, 2, T, h, w)
        features = functional.leaky_relu(self.norm(self.convolution(pooled)))  # (B, C, T, h, w)
        return self.over_time(self.pool_features(features, size))


def pool_frames(features: Tensor, size: Sequence[int]) -> Tensor:
    """Average-pool every frame to a grid: (B, C, T, H, W) to (B, C, T, *size)."""
    frames = features.transpose(1, 2).flatten(0, 1)  # (B T, C, H, W)
    pooled = functional.adaptive_avg_pool2d(frames, tuple(size))  # (B T, C, h, w)
    return pooled.unflatten(0, (features.shape[0], -1)).transpose(1, 2)  # (B, C, T, h, w)


def keep_size(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return the features unchanged, in place of :func:`pool_frames`."""
    return features


class SpatialVisualWindows(nn.Module):
    """Compute normalised windows of two frames.

    Paper: section 3.1, Figure 2(b): channel shuffle, Omega, Phi, merge (2) and the spatial visual
    normalisation SVN (3)-(5).
    Reading: R4, the channel shuffle leaves RGB unchanged and is left out; R5, Omega is fully
    connected per position, since a dense one would need (C H W)^2 weights; R6, the batch norm after
    Phi is ours.

    Args:
        channels: C, channels of the windows.

    Attributes:
        normalise: Eqs. (2)-(5): features (B, T, C, h, w) and noise (B, 1, C, 1, 1) to windows
            (B, T / 2, C, h, w).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.omega = nn.Conv2d(3, 3, 1)
        self.phi = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.normalise: Callable[[Tensor, Tensor], Tensor] = fused.spatial_visual_norm

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the windows.

        Args:
            clips: RGB clips, shape (B, 3, T, H, W), T even.

        Returns:
            Windows s, shape (B, T / 2, C, H / 2, W / 2).
        """
        B = clips.shape[0]
        frames = clips.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        frames = frames.contiguous(memory_format=torch.channels_last)
        features = self.phi(functional.leaky_relu(self.omega(frames)))  # (B T, C, H / 2, W / 2)
        features = self.norm(features).unflatten(0, (B, -1))  # (B, T, C, H / 2, W / 2)
        noise = ops.window_noise(features[:, :1, :, :1, :1], self.training)
        return self.normalise(features, noise)


class HResidualUnit(nn.Module):
    """One unit of the hierarchy residual network.

    Paper: Eqs. (7)-(9), section 3.1, Figure 3.
    Reading: R12, W is one 1x1 convolution shared by both terms of Eq. (8); R13, phi is max-pooling,
    2x2 where the unit halves the size, else 3x3 with stride 1, and the other terms are
    average-pooled with it; R11, the activation follows the sum.

    Activations are in place. A full backward hook belongs on the unit: on its ``weight`` torch
    raises a RuntimeError, because its output is changed.

    Args:
        in_channels: c, channels of the input windows.
        out_channels: c', channels of the output windows.
        kernel_size: Height and width of Phi: 1 in the first unit of a stage (section 4), else 3.
        halve: Halve height and width.

    Attributes:
        activation_checkpointing: Store only Phi's features for the backward pass and recompute the
            terms of Eq. (8): less than half the memory, slower.
        predecessors: Residual of Eq. (7): windows (B, K, c, h, w) and prior (B, c, h, w) or None to
            (B, K, c, h, w). A unit that halves calls it with pooled windows and prior.
        prior_matrix: Factor of Eq. (8)'s W that depends on the projected residual
            (B K, c', h, w): a matrix (B K, c', c'), or None for a W that is a parameter only.
        gate: Output of the mask's convolution (B K, 1, H, W) to the mask of Eq. (9).
        delta: Eq. (9): Phi(s) (B K, c', H, W), mask and W Phi(s) to delta (B K, c', H, W).
        add: Sum and activation of Eq. (7): Eq. (8)'s terms and the projected residual, both
            (B, K, c', h, w), to the next windows.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.activation_checkpointing = False
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
        self.predecessors: Callable[[Tensor, Tensor | None], Tensor] = ops.previous_windows
        self.prior_matrix: Callable[[Tensor], Tensor | None] = no_matrix
        self.gate: Callable[[Tensor], Tensor] = torch.sigmoid
        self.delta: Callable[[Tensor, Tensor, Tensor], Tensor] = fused.masked_similarity
        self.add: Callable[[Tensor, Tensor], Tensor] = add_residuals

    def forward(self, windows: Tensor, prior: Tensor | None = None) -> Tensor:
        """Compute the next windows.

        Args:
            windows: Shape (B, K, c, H, W).
            prior: Predecessor of the first window, shape (B, c, H, W), or None.

        Returns:
            Shape (B, K, c', H, W), or half the height and width.
        """
        B, K = windows.shape[:2]
        folded = windows.flatten(0, 1)  # (B K, c, H, W)
        features = self.norm(self.phi(folded))  # (B K, c', H, W)
        if self.halve:
            # Pooling and taking predecessors commute; pooling first saves memory.
            windows = functional.avg_pool2d(folded, 2).unflatten(0, (B, K))  # (B, K, c, h, w)
            prior = None if prior is None else functional.avg_pool2d(prior, 2)
        residual = self.project(self.predecessors(windows, prior).flatten(0, 1))  # (B K, c', h, w)
        inputs = features, folded, self.prior_matrix(residual)
        if self.activation_checkpointing and torch.is_grad_enabled():
            terms = checkpoint(self.terms, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            terms = self.terms(*inputs)
        return self.add(terms.unflatten(0, (B, K)), residual.unflatten(0, (B, K)))

    def terms(self, features: Tensor, windows: Tensor, matrix: Tensor | None) -> Tensor:
        """Add the two terms of Eq. (8), each pooled.

        Args:
            features: Phi(s), shape (B K, c', H, W).
            windows: s, from which the mask is computed, shape (B K, c, H, W).
            matrix: Result of ``prior_matrix``, shape (B K, c', c') or None.

        Returns:
            Shape (B K, c', H, W), or half the height and width.
        """
        mask = self.gate(self.mask(windows))  # (B K, 1, H, W)
        delta = self.delta(features, mask, self.similarity(features))
        max_pooled = fused.max_pool(self.weigh(features, matrix), self.halve)
        activated = functional.leaky_relu(self.weigh(delta, matrix), inplace=True)
        return max_pooled + (functional.avg_pool2d(activated, 2) if self.halve else activated)

    def weigh(self, features: Tensor, matrix: Tensor | None) -> Tensor:
        """Multiply features (B K, c', H, W) by W of Eq. (8), or by W times the matrix."""
        if matrix is not None:
            columns = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B K, H W, c')
            columns = columns @ matrix.mT  # each position's channels, times the matrix
            features = columns.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)
        return self.weight(features)


def no_matrix(residual: Tensor) -> None:
    """Return None: W of Eq. (8) does not depend on the residual (R12)."""


def add_residuals(terms: Tensor, residuals: Tensor) -> Tensor:
    """Add terms and residuals of Eq. (7), both (B, K, C, H, W), and activate the sum (R11)."""
    return functional.leaky_relu(terms + residuals, inplace=True)


class HierarchyResidualNetwork(nn.Module):
    """Stages of HResidual units, and the prior that the first unit starts from.

    Paper: section 3.1, Figure 2(c); Tables 1 and 3 for the stages.
    Reading: R10, one 3x3 convolution of Eq. (6)'s stack of all windows gives the initial prior p(w)
    of section 1. R15, each stage begins with a 1x1 unit and, from the second on, halves the size.

    Args:
        num_windows: K.
        channels: C0, channels of the windows.
        stages: Units and channels of each stage.

    Attributes:
        converge: Combines the last windows (B, K, C, h, w) into s1 and s2, each (B, C, h, w).
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
        self.converge: Callable[[Tensor], tuple[Tensor, Tensor]] = ops.converge_windows

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the two spatial feature maps.

        Args:
            windows: Shape (B, K, C0, H, W).

        Returns:
            s1 and s2, each of shape (B, C, h, w), halved once for each stage after the first.
        """
        prior = self.prior(ops.concat_windows(windows))  # (B, C0, H, W)
        for unit in self.units:
            windows, prior = unit(windows, prior), None  # only the first unit has a prior
        return self.converge(windows)
