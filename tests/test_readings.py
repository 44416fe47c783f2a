"""Every reading changes what it says it changes, and nothing else."""

import copy
import pickle
import re
from itertools import combinations, product
from pathlib import Path

import numpy
import pytest
import torch
from loops import assert_same, build, random
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from hstlib.book.paper import PAPER_ROWS
from hstlib.model import HST, ops
from hstlib.model.alternatives import (
    attention_over_positions,
    channel_correlation,
    hard_mask,
    product_of_maps,
    recur_over_outputs,
    split_columns,
)
from hstlib.model.attention import HybridAttention
from hstlib.model.hst import BACKBONES
from hstlib.model.readings import READINGS, apply_reading, combinable
from hstlib.model.registry import build_model
from hstlib.training.metrics import count_parameters

ROOT = Path(__file__).resolve().parents[1]
REGISTER = (ROOT / "book/readings.md").read_text()
UNIT_PARTS = r"hierarchy\.units\.\d+\."
REMOVED = {
    "no-norm-after-phi": r"windows\.norm\.",
    "no-norm-on-gamma": r"spatial_attention\.norm\.",
    "no-norm-on-mix": r"hybrid_attention\.norm\.",
    "no-norm-on-t": r"temporal\.norm\.",
    "without-flow": r"temporal\.",
    "without-mask": UNIT_PARTS + r"(mask|similarity)\.",
    "without-prior": r"hierarchy\.prior\.",
    "trunk-alone": r"(temporal|spatial_attention|hybrid_attention)\.",
    "trunk-and-spatial-attention": r"(temporal|hybrid_attention)\.",
    "trunk-and-hybrid-attention": r"spatial_attention\.",
    "trunk-and-flow": r"(spatial_attention|hybrid_attention)\.",
}
"""Parameters that a reading removes; all other readings keep all of them."""
ADDED = {
    "modules-in-each-unit": r"hierarchy\.attention\.\d\.",
    "convolution-over-time": r"windows\.over_time\.",
}
UNFAITHFUL = {reading.name for reading in READINGS.values() if reading.factor is None}
TRUNKS = {name for name in READINGS if name.startswith("trunk")}
FACTORS = combinable()


def pair(reading: str) -> tuple[HST, HST]:
    """HST as the paper and the changed HST, with the same weights."""
    models = []
    for name in ("paper", reading):
        torch.manual_seed(0)
        models.append(build_model("hst", 5, "demo", name).eval())
    return tuple(models)


def batch(size: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    clips, flow = torch.randn(2, 3, 16, size, size), torch.randn(2, 2, 16, size, size)
    return clips.to(dtype), flow.to(dtype)


def train_step(model: HST, inputs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Logits and gradients of one step in training."""
    torch.manual_seed(2)  # same noise
    model.zero_grad()
    logits = model.train()(*inputs)
    logits.float().square().sum().backward()
    return {"logits": logits} | {name: p.grad for name, p in model.named_parameters()}


def register_entry(number: int) -> str:
    """Return the text of one entry of the readings register."""
    _, _, text = REGISTER.partition(f"(reading-r{number})=\n")
    return text.partition("\n(reading-r")[0]


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_changes_the_logits_and_every_parameter_gets_a_gradient(reading):
    paper, changed = (train_step(model, batch(48)) for model in pair(reading))
    assert not torch.allclose(paper["logits"], changed["logits"], rtol=1e-3, atol=1e-3)
    for name, gradient in changed.items():
        assert gradient is not None and gradient.isfinite().all(), name
        assert gradient.abs().max() > 0 or name.endswith("bias"), name


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_keeps_all_weights_but_those_it_names(reading):
    paper, changed = (dict(model.named_parameters()) for model in pair(reading))
    removed = re.compile(REMOVED.get(reading, "$"))
    expected = {name: weight for name, weight in paper.items() if not removed.match(name)}
    added = {name for name in changed if re.match(ADDED.get(reading, "$"), name)}
    assert bool(added) == (reading in ADDED) and not added & paper.keys()
    changed = {name: weight for name, weight in changed.items() if name not in added}
    assert (len(expected) < len(paper)) == (reading in REMOVED)
    if reading == "trunk-and-flow":  # the first layer of the head reads T, too
        wide, narrow = changed.pop("head.0.weight"), expected.pop("head.0.weight")
        assert torch.equal(wide[:, : narrow.shape[1]], narrow)
        added = wide[:, narrow.shape[1] :]
        assert added.shape == narrow.shape and not torch.equal(added, narrow)
        assert_close(added.std(), narrow.std(), rtol=0.05, atol=0)
    assert_close(changed, expected, rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_leaves_the_random_numbers_alone(reading):
    draws = []
    for name in ("paper", reading):
        torch.manual_seed(0)
        build_model("hst", 5, "demo", name)
        draws.append(torch.rand(4))
    assert torch.equal(*draws)


def test_added_weights_depend_on_the_seed():
    added = {}
    for reading, seed in product(("trunk-and-flow", "modules-in-each-unit"), (0, 0, 1)):
        torch.manual_seed(seed)
        model = build_model("hst", 5, "demo", reading)
        if reading == "trunk-and-flow":
            weight = model.head[0].weight[:, 48:]
        else:
            weight = model.hierarchy.attention[0].spatial_attention.feed_forward.weight
        if (reading, seed) in added:
            assert torch.equal(weight, added[reading, seed])
        added[reading, seed] = weight
    assert not torch.equal(added["trunk-and-flow", 0], added["trunk-and-flow", 1])
    assert not torch.equal(added["modules-in-each-unit", 0], added["modules-in-each-unit", 1])


@pytest.mark.parametrize("reading", sorted(READINGS.keys() - UNFAITHFUL - ADDED.keys()))
@pytest.mark.parametrize(
    ("row", "classes"), [(PAPER_ROWS[3], 51), (PAPER_ROWS[7], 101)], ids=["table 2", "table 4"]
)
def test_a_reading_prints_the_papers_parameters(reading, row, classes):
    with torch.device("meta"):
        model = build_model("hst", classes, row.backbone, reading)
    digits = len(row.parameters.partition(".")[2])
    assert f"{count_parameters(model) / 1e6:.{digits}f}" == row.parameters


@pytest.mark.parametrize("backbone", ["resnet21", "vgg13"])
@pytest.mark.parametrize("reading", READINGS)
@torch.no_grad()
def test_a_reading_has_the_right_shapes_at_the_papers_backbones(reading, backbone):
    with torch.device("meta"):
        model = build_model("hst", 51, backbone, reading)
        clips, flow = torch.empty(2, 3, 16, 112, 112), torch.empty(2, 2, 16, 112, 112)
        assert model(clips, flow).shape == (2, 51)


@pytest.mark.parametrize("reading", READINGS)
def test_activation_checkpointing_changes_nothing_in_a_reading(reading):
    _, model = pair(reading)
    twin = copy.deepcopy(model)
    twin.enable_activation_checkpointing()
    inputs = batch()
    assert_close(train_step(twin, inputs), train_step(model, inputs), rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_trains_under_bfloat16_autocast(reading):
    _, model = pair(reading)
    exact = train_step(copy.deepcopy(model), batch(64))["logits"]
    with torch.autocast("cpu", torch.bfloat16):
        half = train_step(model, batch(64))
    assert all(gradient.isfinite().all() for gradient in half.values())
    assert (half["logits"].float() - exact).norm() < 0.15 * exact.norm()


@pytest.mark.parametrize("reading", READINGS)
def test_a_changed_model_can_be_pickled_and_copied(reading):
    _, model = pair(reading)
    with torch.no_grad():
        logits = model(*batch())
        for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(twin(*batch()), logits)


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_the_register_names_every_reading_in_its_entry(reading):
    assert f"`{reading.name}`" in register_entry(reading.entry)


def test_the_register_has_all_entries_and_names_no_unknown_reading():
    numbers = [int(number) for number in re.findall(r"\(reading-r(\d+)\)=", REGISTER)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 20
    entries = [register_entry(number) for number in numbers]
    assert all(entry.startswith(f"## R{i}: ") for i, entry in enumerate(entries, 1))
    names = set(re.findall(r"(?<!})`([a-z]+(?:-[a-z0-9]+)+)`", "".join(entries)))
    assert names - {"dis-ultrafast", "dis-medium"} == {*READINGS}  # two presets of optical flow


def test_the_register_says_of_each_reading_what_came_out_in_its_own_entry():
    listed = {
        name: number
        for number in range(1, REGISTER.count("(reading-r") + 1)
        for block in re.findall(r"```{outcome}\n(.+?)```", register_entry(number), re.DOTALL)
        for name in block.split()
        if "=" not in name  # a setting of the clips
    }
    assert listed == {name: reading.entry for name, reading in READINGS.items()}
    assert "not trained" not in re.sub(r"\"not\strained\"", "", REGISTER)


def test_mean_over_time():
    _, model = pair("mean-over-time")
    features = torch.randn(2, 3, 16, 5, 7)
    assert_close(model.temporal.over_time(features), features.sum(2) / 16)


def test_same_window_residual():
    _, model = pair("same-window-residual")
    windows, prior = torch.randn(2, 8, 3, 5, 7), torch.randn(2, 3, 5, 7)
    for unit in model.hierarchy.units:
        assert unit.predecessors(windows, None) is windows
        with_prior = unit.predecessors(windows, prior)
        assert_close(with_prior[:, 0], windows[:, 0] + prior)
        assert_close(with_prior[:, 1:], windows[:, 1:])


def test_interleaved_windows():
    _, model = pair("interleaved-windows")
    windows = torch.randn(2, 8, 3, 5, 7)
    first, second = model.hierarchy.converge(windows)
    assert_close(first, sum(windows[:, i] for i in (0, 2, 4, 6)) / 4)
    assert_close(second, sum(windows[:, i] for i in (1, 3, 5, 7)) / 4)


def test_maximum_over_windows():
    _, model = pair("maximum-over-windows")
    windows = torch.randn(2, 8, 3, 5, 7)
    first, second = model.hierarchy.converge(windows)
    assert_close(first, windows[:, :4].max(1).values)
    assert_close(second, windows[:, 4:].max(1).values)


def test_plain_instance_norm_has_mean_0_and_variance_1():
    _, model = pair("plain-instance-norm")
    features = 3 * torch.randn(2, 16, 4, 16, 16) + 2
    noise = ops.window_noise(torch.zeros(2, 1, 4, 1, 1), training=False)
    windows = model.windows.normalise(features, noise)
    assert_close(windows.mean((1, 3, 4)), torch.zeros(2, 4), rtol=0, atol=1e-5)
    assert_close(windows.var((1, 3, 4)), torch.ones(2, 4), rtol=0, atol=2e-3)


def test_split_by_column_loses_nothing_and_expand_puts_it_back():
    _, model = pair("split-by-column")
    grid = torch.arange(4.0 * 6).view(1, 1, 4, 6).repeat(1, 2, 1, 1)
    first, second = model.hybrid_attention.split(grid)
    assert first.shape == second.shape == (1, 4, 2, 3)
    assert {*first.flatten().tolist(), *second.flatten().tolist()} == {*map(float, range(24))}
    expanded = model.hybrid_attention.expand(first)
    assert_close(expanded[..., 0::2], grid[..., 0::2])
    assert_close(expanded[..., 1::2], grid[..., 0::2])


def test_text_of_equation_17_is_the_function():
    mix, temporal = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    functions = ops.block_in_attention, attention_over_positions
    for model, function in zip(pair("text-of-equation-17"), functions, strict=True):
        vector = model.hybrid_attention.combine(mix, temporal)
        assert_close(vector, function(mix, temporal), rtol=0, atol=0)


def test_attention_over_positions_is_its_loop():
    def twin(mix, temporal):
        B, C, H, W = mix.shape

        def value(b, c):
            places = list(product(range(H), range(W)))
            exponents = [mix[b, c, h, w].exp() for h, w in places]
            terms = [e * temporal[b, c, h, w] for e, (h, w) in zip(exponents, places, strict=True)]
            return sum(terms) / sum(exponents)

        return build((B, C), value)

    assert_same(attention_over_positions, twin, random(31, 2, 5, 3, 2), random(32, 2, 5, 3, 2))


def test_attention_over_positions_averages_the_temporal_feature():
    temporal = random(35, 2, 5, 3, 7)
    vector = attention_over_positions(torch.zeros_like(temporal), temporal)
    assert_close(vector, temporal.mean((2, 3)))


def test_attention_over_positions_shows_shapes_that_differ():
    with pytest.raises(ValueError, match=r"mix \(1, 2, 3, 3\) and T \(1, 2, 3, 4\)"):
        attention_over_positions(random(36, 1, 2, 3, 3), random(37, 1, 2, 3, 4))


def test_two_readings_can_be_changed_at_once():
    _, both = pair("text-of-equation-17+mean-over-time")
    _, one_by_one = pair("text-of-equation-17")
    apply_reading(one_by_one, "mean-over-time")
    assert_close(both(*batch()), one_by_one(*batch()), rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS)
def test_which_readings_see_the_flow(reading):
    _, model = pair(reading)
    clips, flow = batch()
    blind = {"trunk-alone", "trunk-and-spatial-attention", "without-flow"}
    assert torch.equal(model(clips, flow), model(clips, -flow)) == (reading in blind)
    width = BACKBONES["demo"].stages[-1][1]
    assert model.head[0].in_features == width * (2 if reading == "trunk-and-flow" else 1)


def test_flow_convolved_first():
    paper, changed = pair("flow-convolved-first")
    flow = torch.randn(2, 2, 16, 24, 24)
    layers = changed.temporal
    full = functional.leaky_relu(layers.norm(layers.convolution(flow)))  # (2, C, 16, 24, 24)
    pooled = full.unflatten(3, (6, 4)).unflatten(5, (6, 4)).mean((4, 6))  # (2, C, 16, 6, 6)
    assert_close(layers(flow, (6, 6)), pooled.max(2).values)
    assert not torch.allclose(layers(flow, (6, 6)), paper.temporal(flow, (6, 6)), atol=1e-3)
    flat = flow[..., :1, :1].expand_as(flow)  # pooling does nothing
    assert_close(layers(flat, (6, 6)), paper.temporal(flat, (6, 6)))


def test_channel_correlation_is_numpys():
    prior = random(41, 3, 5, 4, 6)
    matrices = channel_correlation(prior)
    for matrix, channels in zip(matrices, prior, strict=True):
        expected = numpy.corrcoef(channels.flatten(1).numpy())
        assert_close(matrix, torch.from_numpy(expected), rtol=0, atol=2e-5)  # 1e-5 in the variance
    constant = channel_correlation(torch.ones(1, 4, 1, 1))
    assert_close(constant, torch.zeros(1, 4, 4))


@pytest.mark.parametrize("unit", [0, 2, 3])  # the first, one that halves, one that keeps its size
def test_weights_from_prior(unit):
    _, model = pair("weights-from-prior")
    unit = model.hierarchy.units[unit].double()
    windows = random(42, 1, 8, unit.phi.in_channels, 6, 4)
    features = unit.norm(unit.phi(windows[0]))
    pool = functional.avg_pool2d if unit.halve else lambda x, _: x
    previous = torch.cat([windows[0, :1], windows[0, :-1]])
    residual = unit.project(pool(previous, 2))
    outputs = []
    for phi, s, prior in zip(features, windows[0], residual, strict=True):
        weight = unit.weight.weight[:, :, 0, 0] @ channel_correlation(prior[None])[0]  # W, (c', c')
        mask = unit.mask(s[None])[0].sigmoid()
        delta = (1 - mask) * phi + mask * phi * unit.similarity(phi[None])[0]
        first, second = (torch.einsum("ij,jhw->ihw", weight, x) for x in (phi, delta))
        first = functional.max_pool2d(first, *((2,) if unit.halve else (3, 1, 1)))
        second = pool(functional.leaky_relu(second)[None], 2)[0]
        outputs.append(functional.leaky_relu(first + second + prior))
    assert_close(unit(windows)[0], torch.stack(outputs))


def test_recursion_over_outputs_is_its_loop():
    def twin(terms, residuals):
        outputs = []
        for k in range(terms.shape[1]):
            residual = outputs[-1] if outputs else residuals[:, 0]
            total = terms[:, k] + residual
            outputs.append(torch.where(total > 0, total, 0.01 * total))
        return torch.stack(outputs, 1)

    terms, residuals = random(43, 2, 4, 3, 2, 2), random(44, 2, 4, 3, 2, 2)
    residuals = residuals * torch.tensor([1, 0, 0, 0]).view(1, 4, 1, 1, 1)
    for inputs in ((terms, residuals), (-terms, residuals)):
        assert_close(recur_over_outputs(*inputs), twin(*inputs))
    leaf = terms.clone().requires_grad_()
    gradient = torch.autograd.grad(recur_over_outputs(leaf, residuals).sum(), leaf)
    assert_close(gradient, torch.autograd.grad(twin(leaf, residuals).sum(), leaf))


def test_recursion_carries_the_first_window_to_the_last():
    paper, changed = pair("recursion-over-outputs")
    windows = torch.randn(1, 8, 16, 8, 8)
    other = torch.cat([windows[:, :1] + 1, windows[:, 1:]], 1)
    changes = []
    for model in (paper, changed):
        unit = model.hierarchy.units[0]
        changes.append((unit(other) - unit(windows)).abs().amax((0, 2, 3, 4)) > 0)
    assert changes[0].tolist() == 2 * [True] + 6 * [False]
    assert changes[1].tolist() == 8 * [True]


def test_hard_mask_is_binary_with_the_gradient_of_the_soft_mask():
    logits = (3 * random(45, 2, 1, 5, 5)).requires_grad_()
    mask = hard_mask(logits)
    assert torch.equal(mask, (logits.sigmoid() > 0.5).double())
    gradients = [torch.autograd.grad(x.sum(), logits)[0] for x in (mask, logits.sigmoid())]
    assert_close(*gradients, rtol=0, atol=0)
    half = hard_mask(torch.linspace(-9, 9, 64, dtype=torch.bfloat16))
    assert {*half.tolist()} == {0.0, 1.0}


def test_product_of_maps_is_its_loop():
    def twin(first, second):
        B, C, H, _ = first.shape

        def value(b, c, i, j):
            return sum(first[b, c, i, k] * second[b, c, k, j] for k in range(H))

        return build((B, C, H, H), value)

    assert_same(product_of_maps, twin, random(46, 2, 2, 3, 3), random(47, 2, 2, 3, 3))


def test_matrix_product_needs_square_maps():
    _, model = pair("matrix-product")
    with pytest.raises(ValueError, match="'matrix-product' multiplies square maps, got 2 x 4; use"):
        model(torch.randn(1, 3, 16, 16, 32), torch.randn(1, 2, 16, 16, 32))


def test_without_svn_the_windows_are_sums():
    _, model = pair("without-svn")
    features = torch.randn(2, 16, 4, 5, 5)
    windows = model.windows.normalise(features, torch.zeros(2, 1, 4, 1, 1))
    assert_close(windows, features[:, 0::2] + features[:, 1::2])


def test_without_shift_no_window_reads_another():
    _, model = pair("without-shift")
    windows, prior = torch.randn(2, 8, 16, 8, 8), torch.randn(2, 16, 8, 8)
    unit = model.hierarchy.units[0]
    assert torch.equal(unit.predecessors(windows, prior)[:, 0], prior)
    assert torch.equal(unit.predecessors(windows, prior)[:, 1:], windows[:, 1:])
    order = torch.randperm(8)
    assert_close(unit(windows[:, order]), unit(windows)[:, order])


def test_without_prior_the_first_window_is_its_own_predecessor():
    paper, model = pair("without-prior")
    windows = torch.randn(2, 8, 16, 8, 8)
    expected = windows
    for unit in paper.hierarchy.units:
        expected = unit(expected)
    assert_close(model.hierarchy(windows), ops.converge_windows(expected))


def test_without_mask_the_unit_is_a_convolution():
    paper, model = pair("without-mask")
    for unit in paper.hierarchy.units:
        nn.init.constant_(unit.mask.bias, -1e4)  # the mask is 0: convolution everywhere
    assert_close(model(*batch()), paper(*batch()))


def test_without_flow_t_is_one():
    paper, model = pair("without-flow")
    paper.temporal.over_time = lambda features: torch.ones_like(features[:, :, 0])
    assert_close(model(*batch()), paper(*batch()))


def test_the_trunks_keep_what_their_names_say():
    paper, _ = pair("paper")
    clips, flow = batch()
    first, second = paper.hierarchy(paper.windows(clips))
    mean = (first + second) / 2
    temporal = paper.temporal(flow, mean.shape[-2:])
    spatial = paper.spatial_attention(first, second)
    vectors = {
        "trunk-alone": mean.mean((2, 3)),
        "trunk-and-spatial-attention": spatial.mean((2, 3)),
        "trunk-and-hybrid-attention": paper.hybrid_attention(mean, temporal),
        "trunk-and-flow": torch.cat([mean.mean((2, 3)), temporal.mean((2, 3))], 1),
    }
    assert vectors.keys() == TRUNKS
    for reading, vector in vectors.items():
        _, model = pair(reading)
        assert_close(model(clips, flow), model.head(vector))


def test_convolution_over_time():
    paper, model = pair("convolution-over-time")
    clips, _ = batch()
    with torch.no_grad():
        weight = model.windows.over_time.weight.zero_()
        weight[:, :, 0, 0, 0].fill_diagonal_(1)  # reads the window before
        windows, changed = paper.windows(clips), model.windows(clips)
    assert_close(changed[:, 0], windows[:, 0])
    assert_close(changed[:, 1:], windows[:, 1:] + windows[:, :-1])


def test_bounded_similarity():
    _, model = pair("bounded-similarity")
    unit = model.hierarchy.units[0]
    features, weighted = torch.randn(2, 3, 16, 5, 7)
    nothing, everything = torch.zeros(3, 1, 5, 7), torch.ones(3, 1, 5, 7)
    assert torch.equal(unit.delta(features, nothing, weighted), features)
    assert_close(unit.delta(features, everything, weighted), features * weighted.sigmoid())
    assert (unit.delta(features, everything, 1e6 * weighted).abs() <= features.abs()).all()


def test_sum_of_gelus():
    paper, model = pair("sum-of-gelus")
    first, second = torch.randn(2, 2, 48, 6, 6)
    gamma = model.spatial_attention.fuse(first, second)
    zeros = torch.zeros_like(first)
    assert_close(gamma, functional.gelu(first) + functional.gelu(second))
    assert torch.equal(model.spatial_attention.fuse(first, zeros), functional.gelu(first))
    assert not paper.spatial_attention.fuse(first, zeros).any()  # a product forgets s1 here


def test_residual_connections():
    paper, model = pair("residual-connections")
    clips, flow = batch()
    first, second = paper.hierarchy(paper.windows(clips))
    temporal = paper.temporal(flow, first.shape[-2:])
    spatial = paper.spatial_attention(first, second) + (first + second) / 2
    vector = paper.hybrid_attention(spatial, temporal)
    vector = vector + spatial.mean((2, 3)) + temporal.mean((2, 3))
    assert_close(model(clips, flow), model.head(vector))


def test_modules_in_each_unit():
    paper, model = pair("modules-in-each-unit+maximum-over-windows")
    clips, flow = batch()
    stack = paper.windows(clips)
    windows, prior = stack, paper.hierarchy.prior(ops.concat_windows(stack))
    for index, unit in enumerate(paper.hierarchy.units):
        windows, prior = unit(windows, prior), None
        maps = windows[:, :4].amax(1), windows[:, 4:].amax(1)
        last = index == len(paper.hierarchy.units) - 1
        modules = paper if last else model.hierarchy.attention[index]
        temporal = modules.temporal(flow, windows.shape[-2:])
        vector = modules.hybrid_attention(modules.spatial_attention(*maps), temporal)
        assert_close(vector.mean(1), torch.ones(2))
        windows = windows * vector.view(2, 1, -1, 1, 1)
    assert len(model.hierarchy.attention) == index
    assert_close(model(clips, flow), model.head(vector))


def test_a_step_is_replaced_in_the_modules_of_each_unit():
    _, model = pair("split-by-column+modules-in-each-unit")
    splits = {part.split for part in model.modules() if isinstance(part, HybridAttention)}
    assert splits == {split_columns}


def test_readings_of_one_factor_exclude_each_other():
    assert len(FACTORS) >= 6
    assert {name for names in FACTORS.values() for name in names} == READINGS.keys() - UNFAITHFUL
    for names in FACTORS.values():
        for two in combinations(names, 2):
            with pytest.raises(ValueError, match=f"'{two[0]}' and '{two[1]}' change the same step"):
                build_model("hst", 5, "demo", "+".join(two))


@torch.no_grad()
def test_readings_of_different_factors_combine():
    inputs = batch(16)
    pairs = [names for two in combinations(FACTORS.values(), 2) for names in product(*two)]
    assert len(pairs) > 100
    paper = build_model("hst", 5, "demo").eval()
    for two in pairs:
        with torch.device("meta"):
            build_model("hst", 5, "demo", "+".join(two))
        model = copy.deepcopy(paper)
        apply_reading(model, "+".join(two))
        for change in (change for name in two for change in READINGS[name].changes):
            owners = [part for part in model.modules() if isinstance(part, change.owner)]
            for step in (getattr(owner, change.step) for owner in owners):
                assert step is change.replacement or type(step) is change.replacement
        logits = model(*inputs)
        assert logits.isfinite().all() and logits.shape == (2, 5)


def test_the_order_of_readings_does_not_matter():
    names = [names[0] for names in FACTORS.values()]
    one, other = (pair("+".join(order))[1] for order in (names, reversed(names)))
    assert torch.equal(one(*batch()), other(*batch()))


def test_all_factors_at_once_train():
    names = [names[-1] for names in FACTORS.values()]
    gradients = train_step(pair("+".join(names))[1], batch())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="reading 'literal' is unknown; use 'paper' or some of"):
        build_model("hst", 5, "demo", "trunk-alone+literal")
    with pytest.raises(ValueError, match="reading 'mean-over-time' is for hst only; r3d needs"):
        build_model("r3d", 5, "demo", "mean-over-time")


def test_a_reading_of_a_part_that_another_removed_is_refused():
    for reading in ("trunk-alone+mean-over-time", "mean-over-time+trunk-alone"):
        with pytest.raises(ValueError, match="'mean-over-time' changes TemporalConvolution, which"):
            build_model("hst", 5, "demo", reading)
    with pytest.raises(ValueError, match="'trunk-and-flow' and 'trunk-and-flow' change the same"):
        build_model("hst", 5, "demo", "trunk-and-flow+trunk-and-flow")
