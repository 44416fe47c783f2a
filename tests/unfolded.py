"""HST written as its equations read: the twin that the library's HST is held against.

Clips and windows are (B, C, K, H, W) all the way, every spatial convolution of the frames is the
paper's 1x3x3 ``Conv3d``, and each term of an equation is a line of its own. The names of its
parameters are those of the library's model; a weight of a folded convolution has one axis more.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.attention import HybridAttention, SpatialAttention
from hstlib.hst import HST
from hstlib.ops import NOISE_SCALE
from hstlib.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
)


def unfold(convolution: nn.Conv2d) -> nn.Conv3d:
    """Give the 3-D convolution of kernel (1, k, k) that a folded 2-D one stands for."""
    (k, _), (s, _), (p, _) = convolution.kernel_size, convolution.stride, convolution.padding
    twin = nn.Conv3d(
        convolution.in_channels, convolution.out_channels, (1, k, k), (1, s, s), (0, p, p),
        bias=convolution.bias is not None,
    ).to(convolution.weight)  # fmt: skip
    load(twin, convolution)
    return twin


def load(twin: nn.Module, model: nn.Module) -> None:
    """Give the twin the model's weights and running statistics."""
    own, other = twin.state_dict(), model.state_dict()
    assert own.keys() == other.keys()
    twin.load_state_dict({name: other[name].view(own[name].shape) for name in own})


def norm_in_space(norm: nn.BatchNorm2d) -> nn.BatchNorm3d:
    twin = nn.BatchNorm3d(norm.num_features).to(norm.weight)
    load(twin, norm)
    return twin


class UnfoldedTemporal(nn.Module):
    def __init__(self, folded: TemporalConvolution):
        super().__init__()
        self.convolution = nn.Conv3d(2, folded.norm.num_features, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(folded.norm.num_features)
        self.to(folded.norm.weight)
        load(self, folded)

    def forward(self, flow: Tensor, size: tuple[int, int]) -> Tensor:
        pooled = functional.adaptive_avg_pool3d(flow, (flow.shape[2], *size))
        features = functional.leaky_relu(self.norm(self.convolution(pooled)))
        return features.amax(2)


class UnfoldedWindows(nn.Module):
    def __init__(self, folded: SpatialVisualWindows):
        super().__init__()
        self.omega, self.phi = unfold(folded.omega), unfold(folded.phi)
        self.norm = norm_in_space(folded.norm)

    def forward(self, clips: Tensor) -> Tensor:
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
    def __init__(self, folded: HResidualUnit):
        super().__init__()
        self.halve = folded.halve
        for name in ("phi", "mask", "similarity", "weight"):
            setattr(self, name, unfold(getattr(folded, name)))
        self.norm = norm_in_space(folded.norm)
        self.project = nn.Identity()
        if isinstance(folded.project, nn.Sequential):
            convolution, norm = folded.project
            self.project = nn.Sequential(unfold(convolution), norm_in_space(norm))

    def forward(self, windows: Tensor, prior: Tensor | None = None) -> Tensor:
        first = windows[:, :, :1] if prior is None else prior.unsqueeze(2)
        residual = torch.cat([first, windows[:, :, :-1]], 2)
        features = self.norm(self.phi(windows))
        mask = self.mask(windows).sigmoid()
        delta = (1 - mask) * features + mask * (features * self.similarity(features))
        likelihood = self.weight(features)
        evidence = functional.leaky_relu(self.weight(delta))
        if self.halve:
            likelihood = functional.max_pool3d(likelihood, (1, 2, 2))
            evidence = functional.avg_pool3d(evidence, (1, 2, 2))
            residual = functional.avg_pool3d(residual, (1, 2, 2))
        else:
            likelihood = functional.max_pool3d(likelihood, (1, 3, 3), 1, (0, 1, 1))
        return functional.leaky_relu(likelihood + evidence + self.project(residual))


class UnfoldedHierarchy(nn.Module):
    def __init__(self, folded: HierarchyResidualNetwork):
        super().__init__()
        prior = folded.prior
        self.prior = nn.Conv2d(prior.in_channels, prior.out_channels, 3, padding=1).to(prior.weight)
        load(self.prior, prior)
        self.units = nn.ModuleList(UnfoldedUnit(unit) for unit in folded.units)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        prior = self.prior(windows.transpose(1, 2).flatten(1, 2))
        for unit in self.units:
            windows, prior = unit(windows, prior), None
        first, second = windows.chunk(2, dim=2)
        return first.mean(2), second.mean(2)


class UnfoldedSpatialAttention(nn.Module):
    def __init__(self, folded: SpatialAttention):
        super().__init__()
        channels = folded.norm.num_features
        self.norm = nn.BatchNorm2d(channels)
        self.feed_forward = nn.Conv2d(2 * channels, channels, 1)
        self.to(folded.norm.weight)
        load(self, folded)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        fused = self.norm(functional.gelu(first) * functional.gelu(second))
        attention = fused.flatten(2).softmax(-1).view_as(fused) * fused[0, 0].numel()
        return self.feed_forward(torch.cat([attention * fused, fused], 1))


class UnfoldedHybridAttention(nn.Module):
    def __init__(self, folded: HybridAttention):
        super().__init__()
        channels = folded.channels
        self.branches = nn.ModuleList(nn.Conv2d(2 * channels, 2 * channels, 1) for _ in range(2))
        self.weights = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)
        self.to(folded.norm.weight)
        load(self, folded)

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
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
    """The twin of a built HST, of the same weights and running statistics."""

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
        load(self.head, model.head)

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        first, second = self.hierarchy(self.windows(clips))
        spatial = self.spatial_attention(first, second)
        temporal = self.temporal(flow, first.shape[-2:])
        return self.head(self.hybrid_attention(spatial, temporal))
