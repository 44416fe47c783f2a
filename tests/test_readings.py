"""Every reading changes what it says it changes, and nothing else."""

import copy
import pickle
import re
from itertools import product
from pathlib import Path

import pytest
import torch
from loops import assert_same, build, random
from torch import Tensor
from torch.testing import assert_close

from hstlib.book.paper import PAPER_ROWS
from hstlib.model import HST, ops
from hstlib.model.hst import BACKBONES
from hstlib.model.readings import READINGS, apply_reading, attention_over_positions
from hstlib.model.registry import build_model
from hstlib.training.metrics import count_parameters

REGISTER = (Path(__file__).resolve().parents[1] / "book/readings.md").read_text()
WITHOUT_NORM = {name for name in READINGS if name.startswith("no-norm")}


def pair(reading: str) -> tuple[HST, HST]:
    """HST as the paper and the changed HST, with the same weights."""
    models = []
    for name in ("paper", reading):
        torch.manual_seed(0)
        models.append(build_model("hst", 5, "demo", name).eval())
    return tuple(models)


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 3, 16, 24, 40), torch.randn(2, 2, 16, 24, 40)


def register_entry(number: int) -> str:
    """Return the text of one entry of the readings register."""
    _, _, text = REGISTER.partition(f"(reading-r{number})=\n")
    return text.partition("\n(reading-r")[0]


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_changes_the_logits_and_every_parameter_gets_a_gradient(reading):
    logits = []
    for model in pair(reading):
        torch.manual_seed(2)  # same noise
        logits.append(model.train()(*batch()))
    assert not torch.allclose(*logits, rtol=1e-3, atol=1e-3)
    logits[1].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("reading", sorted(READINGS.keys() - WITHOUT_NORM - {"trunk-alone"}))
def test_a_reading_keeps_weights_and_parameters(reading):
    paper, changed = pair(reading)
    assert_close(dict(changed.named_parameters()), dict(paper.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS.keys() - {"trunk-alone"})
@pytest.mark.parametrize(
    ("row", "classes"), [(PAPER_ROWS[3], 51), (PAPER_ROWS[7], 101)], ids=["table 2", "table 4"]
)
def test_a_reading_prints_the_papers_parameters(reading, row, classes):
    with torch.device("meta"):
        model = build_model("hst", classes, row.backbone, reading)
    digits = len(row.parameters.partition(".")[2])
    assert f"{count_parameters(model) / 1e6:.{digits}f}" == row.parameters


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


def test_the_register_has_twenty_entries_and_names_no_unknown_reading():
    entries = [register_entry(number) for number in range(1, 21)]
    assert all(entry.startswith(f"## R{i}: ") for i, entry in enumerate(entries, 1))
    names = set(re.findall(r"(?<!})`([a-z]+(?:-[a-z0-9]+)+)`", "".join(entries)))
    assert names - {"dis-ultrafast", "dis-medium"} == {*READINGS}  # two presets of optical flow


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


def test_the_trunk_alone_does_not_see_flow():
    _, trunk = pair("trunk-alone")
    clips, flow = batch()
    assert_close(trunk(clips, flow), trunk(clips, -flow), rtol=0, atol=0)
    assert trunk.head[0].in_features == BACKBONES["demo"].stages[-1][1]


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="reading 'literal' is unknown; use 'paper' or some of"):
        build_model("hst", 5, "demo", "trunk-alone+literal")
    with pytest.raises(ValueError, match="reading 'mean-over-time' is for hst only; r3d needs"):
        build_model("r3d", 5, "demo", "mean-over-time")


def test_a_reading_of_a_part_that_another_removed_is_refused():
    with pytest.raises(ValueError, match="'mean-over-time' changes TemporalConvolution, which a"):
        build_model("hst", 5, "demo", "trunk-alone+mean-over-time")
