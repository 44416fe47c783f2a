"""The convolutional baselines: structure, initial weights, and what else is compared with HST."""

from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hstlib.book.architecture import multiply_adds, parameter_sum, trace
from hstlib.config import PAPER_LEARNING_RATE, ModelName
from hstlib.model.fusion import R3DFlow
from hstlib.model.registry import MODELS, build_model
from hstlib.model.residual import TemporalConv3d, convolution
from hstlib.model.standard import StandardR2Plus1D, StandardR3D
from hstlib.training.metrics import count_parameters

BASELINES = [name for name in MODELS if name != "hst"]
OURS = ["r3d-standard", "r2plus1d-standard", "r3d-flow"]
CLASSES = 5


def on_meta(name: str, backbone: str, classes: int = 51) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, classes, backbone)


def inputs(count: int, size: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(size)
    clips = torch.randn(count, 3, 16, size, size, generator=rng)
    return clips, torch.randn(count, 2, 16, size, size, generator=rng)


def test_settings_know_every_model_and_its_rate():
    assert set(ModelName.__args__) == set(MODELS) == set(PAPER_LEARNING_RATE)
    assert {PAPER_LEARNING_RATE[name] for name in OURS} == {PAPER_LEARNING_RATE["r3d"]}


@pytest.mark.parametrize(
    ("name", "backbone", "size"),
    [*((name, "demo", 48) for name in BASELINES), ("c3d", "vgg13", 32), ("r3d", "vgg13", 32)],
)
def test_logits_of_two_clips_differ_before_training(name, backbone, size):
    torch.manual_seed(0)
    model = build_model(name, CLASSES, backbone).eval()
    with torch.inference_mode():
        first, second = model(*inputs(2, size))
    assert (first - second).norm() > 1e-3 * first.norm()


@pytest.mark.parametrize("name", BASELINES)
def test_initial_weights_are_kaimings(name):
    for layer in build_model(name, CLASSES, "demo").modules():
        if isinstance(layer, nn.Conv3d) and layer.weight.numel() > 1000:
            weights = layer.weight.detach()
            fan_out = weights[:, 0].numel()
            assert float(weights.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
            assert abs(weights.mean()) < 0.1 * weights.std()
        if isinstance(layer, nn.Conv3d | nn.Linear) and layer.bias is not None:
            assert not layer.bias.any()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("time", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_a_temporal_convolution_is_its_plain_twin_up_to_second_order(time, stride, channels_last):
    torch.manual_seed(0)
    layer = convolution(3, 4, (time, 1, 1), (stride, 1, 1)).double()
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
    clips = torch.randn(2, 3, 8, 5, 6, dtype=torch.float64).contiguous(memory_format=memory_format)
    clips.requires_grad_()
    assert isinstance(layer, TemporalConv3d)
    derivatives = []
    for forward in (layer.forward, partial(nn.Conv3d.forward, layer)):
        features = forward(clips)
        leaves = clips, layer.weight
        first = torch.autograd.grad(features.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        derivatives.append((features, *first, *second))
    assert derivatives[0][0].is_contiguous(memory_format=memory_format)
    for ours, plain in zip(*derivatives, strict=True):
        assert_close(ours, plain)


@pytest.mark.parametrize("name", ["r2plus1d", "r2plus1d-standard"])
def test_convolutions_along_time_are_fast_on_a_cpu(name):
    layers = [m for m in build_model(name, CLASSES, "demo").modules() if isinstance(m, nn.Conv3d)]
    along_time = [m for m in layers if m.kernel_size[0] > 1 and m.kernel_size[1:] == (1, 1)]
    assert along_time and all(isinstance(m, TemporalConv3d) for m in along_time)


@pytest.mark.parametrize(
    ("backbone", "size", "classic"),
    [
        ("resnet21", 80, False),
        ("resnet21", 96, True),
        ("resnet21", 112, True),
        ("resnet21", 128, False),
        ("resnet21", 224, False),
        ("vgg13", 112, True),
        ("demo", 16, False),
        ("demo", 32, True),
        ("demo", 48, True),
        ("demo", 64, False),
    ],
)
def test_c3d_is_the_classic_network_where_the_last_pooling_gives_its_grid(backbone, size, classic):
    model = on_meta("c3d", backbone)
    features = model.features(torch.empty(1, 3, 16, size, size, device="meta"))
    assert features.shape[2] == 1
    assert (features.shape[3:] == (model.grid, model.grid)) == classic
    assert model(torch.empty(1, 3, 16, size, size, device="meta")).shape == (1, 51)


@pytest.mark.parametrize("size", [16, 48, 80])
def test_c3d_averages_only_what_the_last_pooling_leaves(size):
    model = build_model("c3d", CLASSES, "demo").eval()
    clips, _ = inputs(2, size)
    pooled = model.features(clips)
    if size == 48:  # 2x2, the grid of the fully connected layers
        assert_close(model(clips), model.head(pooled), rtol=0, atol=0)
    averaged = nn.AdaptiveAvgPool3d((1, 2, 2))(pooled)
    assert_close(model(clips), model.head(averaged), rtol=1e-5, atol=1e-6)


def test_several_networks_have_the_count_of_r2plus1d_but_one_that_the_paper_names():
    model, units = on_meta("r2plus1d", "resnet21"), (4, 6, 6, 3)
    ends = [sum(units[: stage + 1]) - 1 for stage in range(4)]
    per_unit = [count_parameters(model.blocks[end]) for end in ends]
    ours = count_parameters(model)

    def printed(other: tuple[int, ...]) -> str:
        extra = sum((a - b) * size for a, b, size in zip(other, units, per_unit, strict=True))
        return f"{(ours + extra) / 1e6:.2f}"

    same = [other for other in product(range(1, 13), repeat=4) if printed(other) == "65.53"]
    assert len(same) == 8 and units in same
    assert printed((4, 7, 7, 3)) == "69.96"


def test_r2plus1d_of_table_4_has_full_3d_convolutions():
    full = {
        backbone: {layer.kernel for layer in trace(partial(build_model, "r2plus1d", 5, backbone))}
        for backbone in ("resnet21", "vgg13")
    }
    assert (3, 3, 3) in full["vgg13"] and (3, 3, 3) not in full["resnet21"]


@pytest.mark.parametrize("backbone", ["resnet21", "vgg13"])
def test_r3d_starts_with_a_flat_convolution_to_64_channels_and_max_pooling(backbone):
    convolution, _, pool = on_meta("r3d", backbone).stem
    assert (convolution.in_channels, convolution.out_channels) == (3, 64)
    assert (convolution.kernel_size, convolution.stride) == ((1, 7, 7), (1, 2, 2))
    assert isinstance(pool, nn.MaxPool3d) and pool.kernel_size == (1, 3, 3)


def test_matched_depth_is_neither_matched_parameters_nor_multiply_adds():
    names = ("r2plus1d", "r3d")
    parameters = [count_parameters(on_meta(name, "resnet21")) for name in names]
    costs = [multiply_adds(partial(build_model, name, 51, "resnet21"), 112) for name in names]
    assert len({len(on_meta(name, "resnet21").blocks) for name in names}) == 1
    assert parameters[0] / parameters[1] > 1.1 and costs[0] / costs[1] > 5


@pytest.mark.parametrize("name", ["r3d-standard", "r2plus1d-standard"])
def test_standard_networks_have_18_layers_for_both_of_the_papers_backbones(name):
    built = [on_meta(name, backbone, 51) for backbone in ("resnet21", "vgg13")]
    shapes = [[tensor.shape for tensor in model.state_dict().values()] for model in built]
    assert shapes[0] == shapes[1]
    kernels = [layer.kernel for layer in trace(partial(build_model, name, 51, "resnet21"))]
    in_time = [kernel for kernel in kernels if kernel[:1] == (3,)]
    assert len(in_time) == 17  # and a fully connected layer


@pytest.mark.parametrize("name", ["r3d-standard", "r2plus1d-standard"])
def test_standard_networks_are_as_wide_and_deep_as_the_papers_at_demo_size(name):
    ours, paper = on_meta(name, "demo"), on_meta(name.removesuffix("-standard"), "demo")
    widths = [[block.second[-1].num_features for block in model.blocks] for model in (ours, paper)]
    assert widths[0] == widths[1] == [16, 32, 48]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(StandardR3D, "r3d_18"), (StandardR2Plus1D, "r2plus1d_18")]
)
def test_standard_networks_are_torchvisions(ours, theirs):
    video = pytest.importorskip("torchvision.models.video", reason="torchvision is optional")
    reference, model = getattr(video, theirs)(num_classes=CLASSES).eval(), ours(CLASSES).eval()
    weights = reference.state_dict().values()
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    clips, _ = inputs(1, 32)
    with torch.inference_mode():
        assert_close(model(clips), reference(clips))


def test_late_fusion_averages_the_logits_of_its_streams():
    model = R3DFlow(CLASSES, "demo").eval()
    clips, flow = inputs(2, 32)
    with torch.inference_mode():
        both = model.appearance(clips) + model.motion.classify(flow)
        assert_close(model(clips, flow), both / 2)


def test_late_fusion_does_not_depend_on_the_unit_of_the_flow():
    model = R3DFlow(CLASSES, "demo").train()
    clips, flow = inputs(4, 32)
    with torch.no_grad():
        assert_close(model(clips, flow), model(clips, 10 * flow), atol=1e-4, rtol=1e-2)


def test_the_flow_network_is_the_same_small_one_for_every_backbone():
    shapes = [
        [tensor.shape for tensor in on_meta("r3d-flow", backbone).motion.parameters()]
        for backbone in ("resnet21", "vgg13", "demo")
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    small = [on_meta("r3d-flow", "demo").motion, on_meta("r3d", "demo")]
    flow, rgb = map(count_parameters, small)
    assert flow == pytest.approx(rgb, rel=0.1)


@pytest.mark.parametrize("backbone", ["resnet21", "demo"])
@pytest.mark.parametrize("name", OURS)
def test_counts_of_the_models_that_are_not_the_papers(name, backbone):
    build = partial(build_model, name, 5, backbone)
    assert eval(parameter_sum(on_meta(name, backbone))) == count_parameters(on_meta(name, backbone))
    assert multiply_adds(build, 48) == sum(layer.multiply_adds for layer in trace(build, 48))
