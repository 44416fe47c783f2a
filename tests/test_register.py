"""A twin of HST written from the register alone gives the library's logits."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from hstlib.model import HST
from hstlib.model.hst import BACKBONES

State = dict[str, Tensor]


def convolve(state: State, name: str, x: Tensor, **settings: object) -> Tensor:
    weight = state[f"{name}.weight"]
    function = functional.conv3d if weight.ndim == 5 else functional.conv2d
    return function(x, weight, state.get(f"{name}.bias"), **settings)


def normalise(state: State, name: str, x: Tensor) -> Tensor:
    """Batch norm in evaluation."""
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].view(1, -1, *[1] * (x.ndim - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def activate(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)  # R23


def windows_of(state: State, clip: Tensor) -> list[Tensor]:
    """R5 to R9: frames (T, 3, H, W) to 8 windows (C, H / 2, W / 2)."""
    omega = activate(convolve(state, "windows.omega", clip))
    v = normalise(state, "windows.norm", convolve(state, "windows.phi", omega, stride=2, padding=1))
    pairs = list(zip(v[0::2], v[1::2], strict=True))
    positions = (1, 2)
    u = torch.stack([(a - b).abs().mean(positions) for a, b in pairs]).mean(0)[:, None, None]
    sigma = ((v - u) ** 2).mean((0, 2, 3))[:, None, None]
    noise = 1e-3 * (2 / torch.pi) ** 0.5  # mean of |n|
    return [(a + b - u) / (sigma + noise).sqrt() for a, b in pairs]


def unit(state: State, name: str, s: list[Tensor], prior: Tensor, halve: bool) -> list[Tensor]:
    """R11 to R15: one HResidual unit."""
    kernel = state[f"{name}.phi.weight"].shape[-1]
    following = []
    for current, previous in zip(s, [prior, *s[:-1]], strict=True):
        phi = convolve(state, f"{name}.phi", current[None], padding=kernel // 2)
        phi = normalise(state, f"{name}.norm", phi)
        mask = convolve(state, f"{name}.mask", current[None], padding=1).sigmoid()
        delta = (1 - mask) * phi + mask * (phi * convolve(state, f"{name}.similarity", phi))
        first, second = (convolve(state, f"{name}.weight", x) for x in (phi, delta))
        second, residual = activate(second), previous[None]
        if halve:
            first = functional.max_pool2d(first, 2)
            second, residual = (functional.avg_pool2d(x, 2) for x in (second, residual))
        else:
            first = functional.max_pool2d(first, 3, stride=1, padding=1)
        if f"{name}.project.0.weight" in state:
            residual = convolve(state, f"{name}.project.0", residual)
            residual = normalise(state, f"{name}.project.1", residual)
        following.append(activate(first + second + residual)[0])
    return following


def temporal_feature(state: State, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """R3: flow (2, T, H, W) to T (C, h, w)."""
    pooled = functional.adaptive_avg_pool2d(flow, size)[None]
    feature = convolve(state, "temporal.convolution", pooled, padding=(1, 0, 0))
    return activate(normalise(state, "temporal.norm", feature)).amax(2)[0]


def classified_vector(state: State, s1: Tensor, s2: Tensor, temporal: Tensor) -> Tensor:
    """R17 to R20: the two maps and T, each (C, H, W), to a vector (C)."""
    channels, height, width = s1.shape
    gamma = functional.gelu(s1) * functional.gelu(s2)
    gamma = normalise(state, "spatial_attention.norm", gamma[None])
    beta = gamma.flatten(2).softmax(2).view_as(gamma) * height * width
    both = torch.cat([beta * gamma, gamma], 1)
    lambda_ = convolve(state, "spatial_attention.feed_forward", both)
    repeated = functional.pad(lambda_, (0, width % 2, 0, height % 2), mode="replicate")
    quarters = functional.pixel_unshuffle(repeated, 2)
    mix = torch.zeros(())
    for number, b in enumerate((quarters[:, : 2 * channels], quarters[:, 2 * channels :])):
        b = functional.max_pool2d(b, 3, stride=1, padding=1)
        b = functional.pixel_shuffle(convolve(state, f"hybrid_attention.branches.{number}", b), 2)
        b = torch.cat([b, b], 1)
        mix = mix + convolve(state, f"hybrid_attention.weights.{number}", b)
    mix = mix[..., :height, :width] / channels**0.5
    mix = normalise(state, "hybrid_attention.norm", mix)[0]
    return channels * (mix * temporal).softmax(0).mean((1, 2))


def logits(state: State, backbone: str, clip: Tensor, flow: Tensor) -> Tensor:
    """Logits of one clip (3, T, H, W) with its flow (2, T, H, W)."""
    s = windows_of(state, clip.transpose(0, 1))
    prior = convolve(state, "hierarchy.prior", torch.cat(s)[None], padding=1)[0]  # R10
    number = 0
    for stage, (repeats, _) in enumerate(BACKBONES[backbone].stages):
        for repeat in range(repeats):
            s = unit(state, f"hierarchy.units.{number}", s, prior, stage > 0 and repeat == 0)
            prior, number = s[0], number + 1
    s1, s2 = torch.stack(s[:4]).mean(0), torch.stack(s[4:]).mean(0)  # R16
    temporal = temporal_feature(state, flow, tuple(s1.shape[1:]))
    hidden = state["head.0.weight"] @ classified_vector(state, s1, s2, temporal)
    return state["head.2.weight"] @ activate(hidden + state["head.0.bias"]) + state["head.2.bias"]


@pytest.mark.parametrize("size", [32, 40])
def test_the_twin_has_the_logits_of_the_library(size):
    torch.manual_seed(0)
    model = HST(5, "demo").double()
    clips = torch.randn(2, 3, 16, size, size).double()
    flow = torch.randn(2, 2, 16, size, size).double()
    for _ in range(3):
        model.train()(clips, flow)  # other running statistics than those of a new model
    state = model.eval().state_dict()
    twins = torch.stack([logits(state, "demo", *one) for one in zip(clips, flow, strict=True)])
    assert_close(twins, model(clips, flow))
