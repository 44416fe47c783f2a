import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close
from unfolded import (
    UnfoldedHierarchy,
    UnfoldedHST,
    UnfoldedHybridAttention,
    UnfoldedSpatialAttention,
    UnfoldedTemporal,
    UnfoldedUnit,
    UnfoldedWindows,
    unfold,
)

from hstlib.model import HST, ops
from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
)
from hstlib.model.registry import MODELS, build_model

UNITS = [
    (in_channels, out_channels, kernel_size, halve)
    for in_channels, out_channels in ((5, 5), (5, 7))
    for kernel_size in (1, 3)
    for halve in (False, True)
]

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


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
    sum((y * random(50 + i, *y.shape).to(y)).sum() for i, y in enumerate(outputs)).backward()


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
    for mine, twins in zip(
        outputs_of(module.eval(), inputs), outputs_of(twin.eval(), inputs), strict=True
    ):
        assert torch.equal(mine, twins)


TWINS = {
    TemporalConvolution: UnfoldedTemporal,
    SpatialVisualWindows: UnfoldedWindows,
    HResidualUnit: UnfoldedUnit,
    HierarchyResidualNetwork: UnfoldedHierarchy,
    SpatialAttention: UnfoldedSpatialAttention,
    HybridAttention: UnfoldedHybridAttention,
    HST: UnfoldedHST,
}


def step(call: nn.Module, gradients_of: nn.Module, inputs) -> dict[str, Tensor]:
    """Call forward and backward; return outputs, gradients and running statistics by name."""
    torch.manual_seed(0)  # same noise
    leaves = [x.clone().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
    outputs = outputs_of(call, leaves)
    backward(tuple(y / y[0].numel() for y in outputs))
    values = {f"output {i}": y for i, y in enumerate(outputs)}
    values |= {f"input {i}": x.grad for i, x in enumerate(leaves) if isinstance(x, Tensor)}
    return values | {
        name: value.grad if isinstance(value, nn.Parameter) else value
        for name, value in gradients_of.state_dict(keep_vars=True).items()
    }


def assert_same_step(module: nn.Module, twin: nn.Module, inputs, call, **tolerance) -> None:
    """Compare the steps of a module and its twin; weights may differ by axes of length 1.

    ``call`` calls the twin with the module's inputs.
    """
    values, twins = step(module, module, inputs), step(call, twin, inputs)
    assert values.keys() == twins.keys()
    for name, value in values.items():
        assert_close(
            twins[name].view(value.shape), value, **tolerance, msg=lambda text, n=name: n + text
        )


def call_unfolded(twin: nn.Module):
    """Convert windows to the twin's (B, C, K, H, W), and its windows back to (B, K, C, H, W)."""

    def call(*inputs):
        if isinstance(twin, UnfoldedUnit | UnfoldedHierarchy):
            inputs = (inputs[0].transpose(1, 2), *inputs[1:])
        outputs = twin(*inputs)
        if isinstance(twin, UnfoldedUnit | UnfoldedWindows):
            return outputs.transpose(1, 2)
        return outputs

    return call


def model_case():
    inputs = random(12, 2, 3, 16, 24, 40), random(13, 2, 2, 16, 24, 40)
    return HST(5, "demo"), inputs, [(2, 5)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("make", [*CASES.values(), model_case], ids=[*CASES, "model"])
def test_modules_are_their_unfolded_twins_forward_and_backward(make, training):
    module, inputs, _ = make()
    outputs_of(module, inputs)  # sets the running statistics
    module.double().train(training)
    inputs = [x.double() if isinstance(x, Tensor) else x for x in inputs]
    twin = TWINS[type(module)](module).train(training)
    assert_same_step(module, twin, inputs, call_unfolded(twin))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_second_derivatives_are_the_unfolded_twins(checkpointing):
    module, inputs, _ = model_case()
    module.double()
    twin = UnfoldedHST(module)
    if checkpointing:
        module.enable_activation_checkpointing()
    inputs = [x.double() for x in inputs]

    def penalty_gradients(model: nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(0)  # same noise
        leaves = [x.clone().requires_grad_() for x in inputs]
        gradients = torch.autograd.grad(model(*leaves).square().sum(), leaves, create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    gradients, twins = penalty_gradients(module), penalty_gradients(twin)
    assert gradients.keys() == twins.keys()
    assert relative_error([*gradients.values()], [twins[name] for name in gradients]) < 1e-9


@pytest.mark.parametrize("sizes", UNITS, ids=str)
def test_activation_checkpointing_changes_nothing(sizes):
    unit, inputs, _ = unit_case(*sizes)
    twin = copy.deepcopy(unit)
    twin.activation_checkpointing = True
    assert_same_step(unit, twin, inputs, twin, rtol=0, atol=0)


def saved_bytes(checkpointing: bool) -> int:
    """Count the bytes that a network saves for its backward pass."""
    network, inputs, _ = network_case()
    saved = {}

    def save(x: Tensor) -> Tensor:
        return saved.setdefault(x.data_ptr(), x)

    for unit in network.units:
        unit.activation_checkpointing = checkpointing
        unit.norm.register_forward_hook(lambda module, _, output: save(output))
    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        network(*inputs)
    own = {parameter.data_ptr() for parameter in network.parameters()}
    return sum(x.nbytes for pointer, x in saved.items() if pointer not in own)


def test_activation_checkpointing_saves_about_half_of_the_memory():
    assert saved_bytes(True) < 0.55 * saved_bytes(False)


def test_channels_come_last_in_memory_from_the_frames_to_the_last_unit_and_back():
    model, inputs, _ = model_case()
    are_channels_last = []

    def check(x: Tensor) -> None:
        are_channels_last.append(x[:1].is_contiguous(memory_format=torch.channels_last))

    def hook(module, arguments, output):
        check(arguments[0])
        output.register_hook(check)

    parts = [*model.windows.modules(), *model.hierarchy.modules()]
    layers = [part for part in parts if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    for layer in layers:
        layer.register_forward_hook(hook)
    backward((model(*inputs),))
    calls = len(layers) + len(model.hierarchy.units)  # both terms of Eq. (8) call W
    assert are_channels_last == 2 * calls * [True]


def test_a_step_never_reads_a_value():
    with torch.device("meta"):  # has no values; on a GPU reading one would synchronise
        model = HST(5, "demo")
        clips, flow = torch.empty(2, 3, 16, 24, 40), torch.empty(2, 2, 16, 24, 40)
        model(clips, flow).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def relative_error(values: list[Tensor], exact: list[Tensor]) -> float:
    values, exact = (torch.cat([x.cpu().double().flatten() for x in xs]) for xs in (values, exact))
    return float((values - exact).norm() / exact.norm())


def constant_noise(variance: Tensor, training: bool) -> Tensor:
    return torch.full_like(variance, 1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_close_to_float64_on_the_cpu(name, device, monkeypatch):
    monkeypatch.setattr(ops, "window_noise", constant_noise)
    model = build_model(name, 5, "demo")
    for dropout in (part for part in model.modules() if isinstance(part, nn.Dropout)):
        dropout.p = 0.0
    inputs = random(12, 2, 3, 16, 16, 16), random(13, 2, 2, 16, 16, 16)

    def step(dtype: torch.dtype, device: str, low: bool) -> tuple[list[Tensor], list[Tensor]]:
        twin = copy.deepcopy(model).to(device, dtype)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            with torch.autocast(device, torch.bfloat16, enabled=low):
                logits = twin(*(x.to(device, dtype) for x in inputs))
            (logits * random(14, *logits.shape).to(logits)).sum().backward()
        return [logits.detach()], [parameter.grad for parameter in twin.parameters()]

    exact = step(torch.float64, "cpu", False)
    for values, expected in zip(step(torch.float32, device, False), exact, strict=True):
        assert relative_error(values, expected) < 1e-3
    logits, gradients = step(torch.float32, device, True)
    assert relative_error(logits, exact[0]) < 5e-2
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler itself
@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_step_is_the_step(device, monkeypatch):
    monkeypatch.setattr(ops, "window_noise", constant_noise)
    model, inputs, _ = model_case()
    model = model.to(device, torch.float64)
    twin = copy.deepcopy(model)
    inputs = [x.to(device, torch.float64) for x in inputs]
    compiled = torch.compile(twin, fullgraph=True, dynamic=False)
    assert_same_step(model, twin, inputs, compiled, rtol=1e-6, atol=1e-6)
    torch.compiler.reset()  # otherwise torch compiles the next size for all sizes, and fails


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_an_export_for_all_sizes_holds_at_another_size():
    model = build_model("hst", 5, "demo").eval()
    clips, flow = random(15, 2, 3, 16, 32, 32), random(16, 2, 2, 16, 32, 32)
    size = 16 * torch.export.Dim("size", min=1, max=16)
    dynamic = {3: size, 4: size}
    exported = torch.export.export(
        model, (clips, flow), dynamic_shapes={"clips": dynamic, "flow": dynamic}
    ).module()
    for size in (32, 80):
        inputs = random(17, 2, 3, 16, size, size), random(18, 2, 2, 16, size, size)
        assert_close(exported(*inputs), model(*inputs))


def test_functional_gradients_of_the_whole_model_are_those_of_autograd():
    model = build_model("hst", 5, "demo").eval()
    inputs = random(19, 2, 3, 16, 32, 32), random(20, 2, 2, 16, 32, 32)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, inputs).square().sum()

    gradients = torch.func.grad(loss)({n: p.detach() for n, p in parameters.items()})
    loss(parameters).backward()
    for name, parameter in parameters.items():
        assert_close(gradients[name], parameter.grad)


def test_a_full_backward_hook_goes_on_a_unit_not_on_its_weight():
    model = build_model("hst", 5, "demo")
    inputs = random(21, 2, 3, 16, 32, 32), random(22, 2, 2, 16, 32, 32)
    unit = next(part for part in model.modules() if isinstance(part, HResidualUnit))
    seen = []
    unit.register_full_backward_hook(lambda module, into, out: seen.append(out[0].shape))
    model(*inputs).sum().backward()
    assert len(seen) == 1 and seen[0][0] == 2
    unit.weight.register_full_backward_hook(lambda module, into, out: None)
    with pytest.raises(RuntimeError, match="modified inplace"):
        model(*inputs)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_folded_2d_convolution_is_a_3d_convolution(kernel_size):
    flat = nn.Conv2d(3, 7, kernel_size, stride=2, padding=kernel_size // 2)
    deep = unfold(flat)
    clips = random(9, 2, 3, 5, 13, 11)
    folded = flat(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 5)).transpose(1, 2)
    assert_close(folded, deep(clips), rtol=1e-5, atol=1e-5)
    backward((folded / folded[0].numel(),))
    backward((deep(clips) / folded[0].numel(),))
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
    units = [(unit.phi.kernel_size[0], unit.halve) for unit in network.units]
    assert units == [(1, False), (3, False), (1, True), (3, False), (3, False), (1, True)]


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
    mixes = []
    module.norm.register_forward_hook(lambda m, inputs, output: mixes.append(output))
    module(spatial, temporal)
    even = spatial[:, :, rows][..., columns]
    module(even, torch.zeros_like(even))
    assert_close(mixes[0], mixes[1][..., :height, :width])
