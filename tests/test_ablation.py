"""Every other reading changes what it says it changes, and nothing else."""

import pytest
import torch
from torch.testing import assert_close

from hstlib import ops
from hstlib.ablation import READINGS, mean_over_time
from hstlib.hst import BACKBONES, HST
from hstlib.metrics import count_parameters
from hstlib.models import build_model
from hstlib.paper import PAPER_ROWS

WITHOUT_NORM = {name for name in READINGS if name.startswith("no-norm")}


def pair(reading: str) -> tuple[HST, HST]:
    """HST and the reading of it, of the same weights."""
    models = []
    for name in ("paper", reading):
        torch.manual_seed(0)
        models.append(build_model("hst", 5, "demo", name).eval())
    return tuple(models)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 3, 16, 24, 40), torch.randn(2, 2, 16, 24, 40)


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_changes_the_logits_and_every_parameter_gets_a_gradient(reading):
    logits = []
    for model in pair(reading):
        torch.manual_seed(2)  # of the noise
        logits.append(model.train()(*batch()))
    assert not torch.allclose(*logits, rtol=1e-3, atol=1e-3)
    logits[1].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("reading", sorted(READINGS.keys() - WITHOUT_NORM - {"trunk-alone"}))
def test_a_reading_keeps_weights_and_parameters(reading):
    paper, other = pair(reading)
    assert_close(dict(other.named_parameters()), dict(paper.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS.keys() - {"trunk-alone"})
@pytest.mark.parametrize(
    ("row", "classes"), [(PAPER_ROWS[3], 51), (PAPER_ROWS[7], 101)], ids=["table 2", "table 4"]
)
def test_a_reading_prints_the_papers_parameters(reading, row, classes):
    with torch.device("meta"):
        model = build_model("hst", classes, row.backbone, reading)
    digits = len(row.parameters.partition(".")[2])
    assert f"{count_parameters(model) / 1e6:.{digits}f}" == row.parameters


def test_readings_of_the_steps_are_what_they_say():
    _, mean = pair("mean-over-time")
    features = torch.randn(2, 3, 16, 5, 7)
    assert_close(mean.temporal.over_time(features), features.sum(2) / 16)

    _, same = pair("same-window-residual")
    windows, prior = torch.randn(2, 8, 3, 5, 7), torch.randn(2, 3, 5, 7)
    unit = same.hierarchy.units[1]
    assert unit.predecessors(windows, None) is windows
    with_prior = unit.predecessors(windows, prior)
    assert_close(with_prior[:, 0], windows[:, 0] + prior)
    assert_close(with_prior[:, 1:], windows[:, 1:])

    _, interleaved = pair("interleaved-windows")
    first, second = interleaved.hierarchy.converge(windows)
    assert_close(first, sum(windows[:, i] for i in (0, 2, 4, 6)) / 4)
    assert_close(second, sum(windows[:, i] for i in (1, 3, 5, 7)) / 4)

    _, largest = pair("maximum-over-windows")
    first, second = largest.hierarchy.converge(windows)
    assert_close(first, windows[:, :4].max(1).values)
    assert_close(second, windows[:, 4:].max(1).values)


def test_plain_instance_norm_has_mean_0_and_variance_1():
    _, plain = pair("plain-instance-norm")
    features = 3 * torch.randn(2, 16, 4, 16, 16) + 2
    windows = plain.windows.normalise(features)
    assert_close(windows.mean((1, 3, 4)), torch.zeros(2, 4), rtol=0, atol=1e-5)
    assert_close(windows.var((1, 3, 4)), torch.ones(2, 4), rtol=0, atol=2e-3)


def test_split_by_column_loses_nothing_and_expand_puts_it_back():
    _, by_column = pair("split-by-column")
    grid = torch.arange(4.0 * 6).view(1, 1, 4, 6).repeat(1, 2, 1, 1)
    first, second = by_column.hybrid_attention.split(grid)
    assert first.shape == second.shape == (1, 4, 2, 3)
    assert {*first.flatten().tolist(), *second.flatten().tolist()} == {*map(float, range(24))}
    back = by_column.hybrid_attention.expand(first)
    assert_close(back[..., 0::2], grid[..., 0::2])
    assert_close(back[..., 1::2], grid[..., 0::2])


def test_text_of_equation_17_is_the_function():
    printed, text = pair("text-of-equation-17")
    mix, temporal = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    for model, reading in ((text, "text"), (printed, "equation")):
        expected = ops.block_in_attention(mix, temporal, reading)
        assert_close(model.hybrid_attention.combine(mix, temporal), expected)


def test_two_readings_can_be_changed_at_once():
    _, both = pair("text-of-equation-17+mean-over-time")
    _, text = pair("text-of-equation-17")
    mean_over_time(text)
    assert_close(both(*batch()), text(*batch()), rtol=0, atol=0)


def test_the_trunk_alone_does_not_see_flow():
    _, trunk = pair("trunk-alone")
    clips, flow = batch()
    assert_close(trunk(clips, flow), trunk(clips, -flow), rtol=0, atol=0)
    assert trunk.head[0].in_features == BACKBONES["demo"].stages[-1][1]


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="reading 'literal' is unknown; use 'paper' or some of"):
        build_model("hst", 5, "demo", "trunk-alone+literal")
    with pytest.raises(ValueError, match="reading 'mean-over-time' is one of HST; r3d has"):
        build_model("r3d", 5, "demo", "mean-over-time")
