"""HST written as the paper's equations read: the reference for tests and for the training step.

Clips and windows are (B, C, K, H, W) throughout, every spatial convolution is the paper's 1x3x3
``Conv3d``, and each term of an equation is on a line of its own. Parameters have the same names as
in :class:`hstlib.model.HST`; a weight of a spatial convolution has one axis more.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.model import HST
from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.ops import NOISE_SCALE
from hstlib.model.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
)


def unfold(convolution: nn.Conv2d) -> nn.Conv3d:
    """Return the 3-D convolution with kernel (1, k, k) that equals a 2-D one over all frames."""
    (k, _), (s, _), (p, _) = convolution.kernel_size, convolution.stride, convolution.padding
    unfolded = nn.Conv3d(
        convolution.in_channels, convolution.out_channels, (1, k, k), (1, s, s), (0, p, p),
        bias=convolution.bias is not None,
    ).to(convolution.weight)  # fmt: skip
    copy_weights(convolution, unfolded)
    return unfolded


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy weights and running statistics; shapes may differ by axes of size 1."""
    values, shapes = source.state_dict(), target.state_dict()
    assert values.keys() == shapes.keys()
    target.load_state_dict({name: values[name].view(shapes[name].shape) for name in shapes})


def unfold_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm3d:
    """Return the 3-D batch norm that equals a 2-D one over all frames."""
    unfolded = nn.BatchNorm3d(norm.num_features).to(norm.weight)
    copy_weights(norm, unfolded)
    return unfolded


class UnfoldedTemporal(nn.Module):
    """The temporal feature T, Eq. (1)."""

    def __init__(self, folded: TemporalConvolution):
        super().__init__()
        self.convolution = nn.Conv3d(2, folded.norm.num_features, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(folded.norm.num_features)
        self.to(folded.norm.weight)
        copy_weights(folded, self)

    def forward(self, flow: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute T (B, C, h, w) from flow (B, 2, T, H, W); size: height and width of T."""
        pooled = functional.adaptive_avg_pool3d(flow, (flow.shape[2], *size))
        features = functional.leaky_relu(self.norm(self.convolution(pooled)))
        return features.amax(2)


class UnfoldedWindows(nn.Module):
    """Merged and normalised windows, Eqs. (2)-(5)."""

    def __init__(self, folded: SpatialVisualWindows):
        super().__init__()
        self.omega, self.phi = unfold(folded.omega), unfold(folded.phi)
        self.norm = unfold_norm(folded.norm)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute windows (B, C, T / 2, H / 2, W / 2) from clips (B, 3, T, H, W)."""
        features = self.norm(self.phi(functional.leaky_relu(self.omega(clips))))
        first, second = features[:, :, 0::2], features[:, :, 1::2]
        mean = (first - second).abs().mean((2, 3, 4), keepdim=True)
        variance = ((features - mean) ** 2).mean((2, 3, 4), keepdim=True)
        if self.training:
            noise = NOISE_SCALE * torch.randn_like(variance).abs()
        else:
            noise = NOISE_SCALE * (2 / torch.pi) ** 0.5
        return (first + second - mean) / (variance + noise).sqrt()


class UnfoldedUnit(nn.Module):
    """One HResidual unit, Eqs. (7)-(9)."""

    def __init__(self, folded: HResidualUnit):
        super().__init__()
        self.halve = folded.halve
        for name in ("phi", "mask", "similarity", "weight"):
            setattr(self, name, unfold(getattr(folded, name)))
        self.norm = unfold_norm(folded.norm)
        self.project = nn.Identity()
        if isinstance(folded.project, nn.Sequential):
            convolution, norm = folded.project
            self.project = nn.Sequential(unfold(convolution), unfold_norm(norm))

    def forward(self, windows: Tensor, prior: Tensor | None = None) -> Tensor:
        """Compute windows (B, c', K, h, w); the prior of the first window is (B, c, H, W)."""
        first = windows[:, :, :1] if prior is None else prior.unsqueeze(2)
        residual = torch.cat([first, windows[:, :, :-1]], 2)
        features = self.norm(self.phi(windows))
        mask = self.mask(windows).sigmoid()
        delta = (1 - mask) * features + mask * (features * self.similarity(features))
        max_pooled = self.weight(features)
        activated = functional.leaky_relu(self.weight(delta))
        if self.halve:
            max_pooled = functional.max_pool3d(max_pooled, (1, 2, 2))
            activated = functional.avg_pool3d(activated, (1, 2, 2))
            residual = functional.avg_pool3d(residual, (1, 2, 2))
        else:
            max_pooled = functional.max_pool3d(max_pooled, (1, 3, 3), 1, (0, 1, 1))
        return functional.leaky_relu(max_pooled + activated + self.project(residual))


class UnfoldedHierarchy(nn.Module):
    """The prior of Eq. (6), the units, and the two halves of the windows."""

    def __init__(self, folded: HierarchyResidualNetwork):
        super().__init__()
        prior = folded.prior
        self.prior = nn.Conv2d(prior.in_channels, prior.out_channels, 3, padding=1).to(prior.weight)
        copy_weights(prior, self.prior)
        self.units = nn.ModuleList(UnfoldedUnit(unit) for unit in folded.units)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute s1 and s2, each (B, C, h, w), from windows (B, C0, K, H, W)."""
        prior = self.prior(windows.transpose(1, 2).flatten(1, 2))
        for unit in self.units:
            windows, prior = unit(windows, prior), None
        first, second = windows.chunk(2, dim=2)
        return first.mean(2), second.mean(2)


class UnfoldedSpatialAttention(nn.Module):
    """The spatial attention, Eqs. (10)-(12)."""

    def __init__(self, folded: SpatialAttention):
        super().__init__()
        channels = folded.norm.num_features
        self.norm = nn.BatchNorm2d(channels)
        self.feed_forward = nn.Conv2d(2 * channels, channels, 1)
        self.to(folded.norm.weight)
        copy_weights(folded, self)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute lambda (B, C, h, w) from s1 and s2."""
        fused = self.norm(functional.gelu(first) * functional.gelu(second))
        attention = fused.flatten(2).softmax(-1).view_as(fused) * fused[0, 0].numel()
        return self.feed_forward(torch.cat([attention * fused, fused], 1))


class UnfoldedHybridAttention(nn.Module):
    """The hybrid attention, Eqs. (13)-(17)."""

    def __init__(self, folded: HybridAttention):
        super().__init__()
        channels = folded.channels
        self.branches = nn.ModuleList(nn.Conv2d(2 * channels, 2 * channels, 1) for _ in range(2))
        self.weights = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)
        self.to(folded.norm.weight)
        copy_weights(folded, self)

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Compute the features (B, C) of the head from lambda and T, each (B, C, h, w)."""
        C, H, W = spatial.shape[1:]
        even = functional.pad(spatial, (0, W % 2, 0, H % 2), mode="replicate")
        mix = 0
        for i, half in enumerate(functional.pixel_unshuffle(even, 2).chunk(2, dim=1)):
            branch = self.branches[i](functional.max_pool2d(half, 3, 1, 1))
            expanded = functional.pixel_shuffle(branch, 2)
            mix = mix + self.weights[i](torch.cat([expanded, expanded], 1))
        mix = self.norm(mix[..., :H, :W] / C**0.5)
        return (mix * temporal).softmax(1).mean((2, 3)) * C


class UnfoldedHST(nn.Module):
    """The reference of a built HST, with the same weights and running statistics."""

    def __init__(self, model: HST):
        super().__init__()
        self.windows = UnfoldedWindows(model.windows)
        self.hierarchy = UnfoldedHierarchy(model.hierarchy)
        self.temporal = UnfoldedTemporal(model.temporal)
        self.spatial_attention = UnfoldedSpatialAttention(model.spatial_attention)
        self.hybrid_attention = UnfoldedHybridAttention(model.hybrid_attention)
        first, _, last = model.head
        self.head = nn.Sequential(
            nn.Linear(first.in_features, first.out_features),
            nn.LeakyReLU(),
            nn.Linear(last.in_features, last.out_features),
        ).to(first.weight)
        copy_weights(model.head, self.head)

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from clips (B, 3, 16, H, W) and flow (B, 2, 16, H, W)."""
        first, second = self.hierarchy(self.windows(clips))
        spatial = self.spatial_attention(first, second)
        temporal = self.temporal(flow, first.shape[-2:])
        return self.head(self.hybrid_attention(spatial, temporal))
