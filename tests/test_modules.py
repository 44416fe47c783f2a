import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from hstlib import ops
from hstlib.attention import HybridAttention, SpatialAttention
from hstlib.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
)

UNITS = [
    (in_channels, out_channels, kernel_size, halve)
    for in_channels, out_channels in ((5, 5), (5, 7))
    for kernel_size in (1, 3)
    for halve in (False, True)
]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit_case(in_channels, out_channels, kernel_size, halve):
    size = (13, 11)
    expected = (2, 3, out_channels, *((6, 5) if halve else size))
    unit = HResidualUnit(in_channels, out_channels, kernel_size, halve)
    inputs = random(0, 2, 3, in_channels, *size), random(1, 2, in_channels, *size)
    return unit, inputs, [expected]


def temporal_case():
    return TemporalConvolution(7), (random(2, 3, 2, 16, 13, 11), (3, 5)), [(3, 7, 3, 5)]


def windows_case():
    return SpatialVisualWindows(5), (random(3, 2, 3, 14, 26, 22),), [(2, 7, 5, 13, 11)]


def network_case():
    network = HierarchyResidualNetwork(6, 5, ((2, 7), (3, 11), (1, 11)))
    return network, (random(4, 2, 6, 5, 13, 19),), [(2, 11, 3, 4)] * 2


def spatial_case(height, width):
    inputs = [random(seed, 2, 7, height, width) for seed in (5, 6)]
    return SpatialAttention(7), inputs, [(2, 7, height, width)]


def hybrid_case(height, width):
    inputs = [random(seed, 3, 10, height, width) for seed in (7, 8)]
    return HybridAttention(10), inputs, [(3, 10)]


CASES = {
    "temporal": temporal_case,
    "windows": windows_case,
    **{
        f"unit {a}-{b} kernel {k}{' halved' * h}": lambda sizes=(a, b, k, h): unit_case(*sizes)
        for a, b, k, h in UNITS
    },
    "network": network_case,
    "spatial even": lambda: spatial_case(4, 6),
    "spatial odd": lambda: spatial_case(5, 7),
    "hybrid even": lambda: hybrid_case(4, 6),
    "hybrid odd height": lambda: hybrid_case(5, 6),
    "hybrid odd width": lambda: hybrid_case(4, 7),
    "hybrid odd": lambda: hybrid_case(5, 7),
}


def outputs_of(module: nn.Module, inputs) -> tuple[Tensor, ...]:
    outputs = module(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def backward(outputs: tuple[Tensor, ...]) -> None:
    sum((y * random(50 + i, *y.shape)).sum() for i, y in enumerate(outputs)).backward()


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param()


def test_output_shapes(case):
    module, inputs, shapes = case
    assert [tuple(y.shape) for y in outputs_of(module, inputs)] == shapes


def test_every_parameter_gets_a_finite_gradient(case):
    module, inputs, _ = case
    backward(outputs_of(module, inputs))
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_every_parameter_changes_the_output(case):
    module, inputs, _ = case
    outputs_of(module, inputs)  # sets the running statistics
    module.eval()  # a batch norm in training hides the bias before it
    backward(outputs_of(module, inputs))
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_evaluation_is_deterministic(case):
    module, inputs, _ = case
    module.eval()
    for first, second in zip(outputs_of(module, inputs), outputs_of(module, inputs), strict=True):
        assert torch.equal(first, second)


def test_evaluation_does_not_depend_on_the_rest_of_the_batch(case):
    module, inputs, _ = case
    outputs_of(module, inputs)
    module.eval()
    alone = [x[:1] if isinstance(x, Tensor) else x for x in inputs]
    for whole, part in zip(outputs_of(module, inputs), outputs_of(module, alone), strict=True):
        assert_close(whole[:1], part, rtol=1e-5, atol=1e-5)


def test_state_dict_round_trip(case):
    module, inputs, _ = case
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(module.state_dict())
    for mine, other in zip(
        outputs_of(module.eval(), inputs), outputs_of(twin.eval(), inputs), strict=True
    ):
        assert torch.equal(mine, other)


def in_space(convolution: nn.Conv2d) -> nn.Conv3d:
    """Give the 3-D convolution of kernel (1, k, k) that a folded 2-D one stands for."""
    (k, _), (s, _), (p, _) = convolution.kernel_size, convolution.stride, convolution.padding
    twin = nn.Conv3d(
        convolution.in_channels, convolution.out_channels, (1, k, k), (1, s, s), (0, p, p),
        bias=convolution.bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        twin.weight.copy_(convolution.weight.unsqueeze(2))
        if convolution.bias is not None:
            twin.bias.copy_(convolution.bias)
    return twin


def normed(features: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return functional.batch_norm(
        features, norm.running_mean, norm.running_var, norm.weight, norm.bias
    )


def unfolded_windows(module: SpatialVisualWindows, deep: dict, clips: Tensor) -> Tensor:
    features = deep["phi"](functional.leaky_relu(deep["omega"](clips)))
    features = normed(features, module.norm).transpose(1, 2)
    mean, variance = ops.window_statistics(features)
    noise = ops.window_noise(variance, training=False)
    return ops.normalise_windows(ops.merge_windows(features), mean, variance, noise)


def unfolded_unit(unit: HResidualUnit, deep: dict, windows: Tensor, prior: Tensor) -> Tensor:
    residual = ops.previous_windows(windows, prior).transpose(1, 2)  # (B, c, K, H, W)
    windows = windows.transpose(1, 2)
    features = normed(deep["phi"](windows), unit.norm)
    mask = deep["mask"](windows).sigmoid()
    delta = (1 - mask) * features + mask * features * deep["similarity"](features)
    likelihood = deep["weight"](features)
    evidence = functional.leaky_relu(deep["weight"](delta))
    if unit.halve:
        likelihood = functional.max_pool3d(likelihood, (1, 2, 2))
        evidence = functional.avg_pool3d(evidence, (1, 2, 2))
        residual = functional.avg_pool3d(residual, (1, 2, 2))
    else:
        likelihood = functional.max_pool3d(likelihood, (1, 3, 3), 1, (0, 1, 1))
    if "project.0" in deep:
        residual = normed(deep["project.0"](residual), unit.project[1])
    return functional.leaky_relu(likelihood + evidence + residual).transpose(1, 2)


def assert_same_as_unfolded(module, unfolded, inputs):
    outputs_of(module, inputs)  # sets the running statistics
    module.eval()
    flat = {name: m for name, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    deep = {name: in_space(convolution) for name, convolution in flat.items()}
    mine, other = module(*inputs), unfolded(module, deep, *inputs)
    assert_close(mine, other, rtol=1e-5, atol=1e-5)
    backward((mine / mine[0, 0].numel(),))
    backward((other / mine[0, 0].numel(),))
    for name, convolution in flat.items():
        for kind, parameter in convolution.named_parameters():
            twin = getattr(deep[name], kind).grad.view_as(parameter)
            assert_close(twin, parameter.grad, rtol=1e-5, atol=1e-5)


def test_windows_folded_into_the_batch_are_3d_convolutions():
    module, inputs, _ = windows_case()
    assert_same_as_unfolded(module, unfolded_windows, inputs)


@pytest.mark.parametrize("sizes", UNITS, ids=str)
def test_units_folded_into_the_batch_are_3d_convolutions(sizes):
    unit, inputs, _ = unit_case(*sizes)
    assert_same_as_unfolded(unit, unfolded_unit, inputs)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_folded_2d_convolution_is_a_3d_convolution(kernel_size):
    flat = nn.Conv2d(3, 7, kernel_size, stride=2, padding=kernel_size // 2)
    deep = in_space(flat)
    clips = random(9, 2, 3, 5, 13, 11)
    mine = flat(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 5)).transpose(1, 2)
    assert_close(mine, deep(clips), rtol=1e-5, atol=1e-5)
    backward((mine / mine[0].numel(),))
    backward((deep(clips) / mine[0].numel(),))
    assert_close(flat.weight.grad, deep.weight.grad.squeeze(2), rtol=1e-5, atol=1e-5)
    assert_close(flat.bias.grad, deep.bias.grad, rtol=1e-5, atol=1e-5)


def test_pooling_flow_before_the_temporal_convolution_equals_pooling_after_it():
    convolution = TemporalConvolution(7).convolution.double()
    flow = random(10, 2, 2, 16, 12, 20).double()

    def pool(x):
        return functional.adaptive_avg_pool3d(x, (16, 3, 5))

    assert_close(convolution(pool(flow)), pool(convolution(flow)))


def test_temporal_feature_is_the_largest_over_the_frames():
    module, (flow, size), _ = temporal_case()
    pooled = functional.adaptive_avg_pool3d(flow, (16, *size))
    features = functional.leaky_relu(module.eval().norm(module.convolution(pooled)))
    assert_close(module(flow, size), features.max(2).values)


def test_a_window_sees_its_two_frames_and_the_statistics_only():
    module = SpatialVisualWindows(5).eval()
    clips = random(11, 1, 3, 6, 14, 10)
    swapped = clips[:, :, [0, 1, 4, 5, 2, 3]]
    assert_close(module(swapped), module(clips)[:, [0, 2, 1]], rtol=1e-5, atol=1e-5)


def test_a_unit_without_prior_gives_the_first_window_its_own_residual():
    unit, (windows, _), _ = unit_case(5, 5, 3, False)
    unit.eval()
    assert torch.equal(unit(windows), unit(windows, windows[:, 0]))


def test_the_prior_reaches_the_first_window_only():
    unit, (windows, prior), _ = unit_case(5, 7, 3, True)
    unit.eval()
    changed = (unit(windows, prior) - unit(windows, prior + 1)).abs().amax((0, 2, 3, 4))
    assert (changed > 0).tolist() == [True, False, False]


def test_the_prior_of_the_network_mixes_all_windows():
    network, (windows,), _ = network_case()
    leaf = windows.requires_grad_()
    network.prior(ops.concat_windows(leaf)).square().sum().backward()
    assert (leaf.grad.abs().amax((0, 2, 3, 4)) > 0).all()


def test_stages_begin_with_a_1x1_unit_and_halve_from_the_second_on():
    network, _, _ = network_case()
    shown = [(unit.phi.kernel_size[0], unit.halve) for unit in network.units]
    assert shown == [(1, False), (3, False), (1, True), (3, False), (3, False), (1, True)]


def test_spatial_attention_is_its_equations():
    module, (first, second), _ = spatial_case(5, 7)
    module.eval()
    fused = module.norm(functional.gelu(first) * functional.gelu(second))
    attention = 35 * fused.flatten(2).softmax(2).view_as(fused)
    weight = module.feed_forward.weight.flatten(1)
    expected = torch.einsum("dc,bchw->bdhw", weight[:, :7], attention * fused)
    expected = expected + torch.einsum("dc,bchw->bdhw", weight[:, 7:], fused)
    expected = expected + module.feed_forward.bias.view(7, 1, 1)
    assert_close(module(first, second), expected, rtol=1e-5, atol=1e-5)


def test_hybrid_attention_is_its_equations():
    module, (spatial, temporal), _ = hybrid_case(4, 6)
    module.eval()
    mix = 0
    for i, half in enumerate(functional.pixel_unshuffle(spatial, 2).split(20, dim=1)):
        branch = module.branches[i](functional.max_pool2d(half, 3, 1, 1))
        expanded = functional.pixel_shuffle(branch, 2)
        mix = mix + module.weights[i](torch.cat([expanded, expanded], 1))
    mix = module.norm(mix / 10**0.5)
    expected = ops.block_in_attention(mix, temporal)
    assert_close(module(spatial, temporal), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(5, 6), (4, 7), (5, 7)])
def test_hybrid_attention_pads_an_odd_size_by_its_last_row_or_column(height, width):
    module, (spatial, temporal), _ = hybrid_case(height, width)
    module.eval()
    rows = [*range(height), *[height - 1] * (height % 2)]
    columns = [*range(width), *[width - 1] * (width % 2)]
    seen = []
    module.norm.register_forward_hook(lambda m, inputs, output: seen.append(output))
    module(spatial, temporal)
    even = spatial[:, :, rows][..., columns]
    module(even, torch.zeros_like(even))
    assert_close(seen[0], seen[1][..., :height, :width])
