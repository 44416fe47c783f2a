"""Ceilings of leaked splits, and parameter counts of whole families of networks."""

import importlib
import json
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hstlib.book import audit, families
from hstlib.book.audit import (
    ceiling,
    dial_findings,
    expected_leak,
    protocol_table,
    required_recall,
)
from hstlib.book.families import family_counts, prints
from hstlib.book.paper import PAPER_ROWS
from hstlib.config import project_path
from hstlib.data import demo, dial
from hstlib.model import C3D, HST, R3D, R2Plus1D, hst
from hstlib.model import standard as standard_networks
from hstlib.model.residual import (
    FLAT,
    FULL,
    POINT,
    VideoResNet,
    convolution,
    norm_and_relu,
    plain_block,
)
from hstlib.model.standard import StandardR2Plus1D
from hstlib.training.metrics import count_parameters

LEAKAGE = project_path("benchmarks/results/leakage.json")
KERNELS = {27: FULL, 9: FLAT, 1: POINT}
NETWORKS = {"c3d": C3D, "r2plus1d": R2Plus1D, "r3d": R3D, "hst": HST}
CLASSES = {"hmdb51": 51, "ucf101": 101}


def count(build) -> int:
    with torch.device("meta"):
        return count_parameters(build())


def test_a_ceiling_is_the_leak_plus_the_honest_share_of_the_rest():
    assert ceiling(0.787, 0.25) == pytest.approx(0.84025)
    assert ceiling(0, 0.25) == 0.25 and ceiling(1, 0.25) == 1


def test_the_required_recall_reaches_the_printed_accuracy():
    recall = required_recall(0.8553, 0.8309, 0.251)
    assert recall * 0.8309 + (1 - 0.8309) * 0.251 == pytest.approx(0.8553)
    assert required_recall(ceiling(0.4, 0.2), 0.4, 0.2) == pytest.approx(1)
    assert np.isnan(required_recall(0.8, 0, 0.2))


def test_the_expected_leak_of_a_pair_is_the_training_share():
    assert expected_leak({"2": 7}, 0.64) == pytest.approx(0.64)
    assert expected_leak({"1": 5}, 0.8) == 0
    # 3 clips alone, and 6 in groups of three, of which each has two relatives
    assert expected_leak({"1": 3, "3": 2}, 0.5) == pytest.approx(6 / 9 * 0.75)


def test_protocols_of_hmdb51_are_ordered_by_their_leak():
    table = protocol_table(json.loads(LEAKAGE.read_text()), "hmdb51")
    leaked = table["leaked"]
    assert leaked.tolist() == sorted(leaked)
    assert leaked.round(3).tolist() == [0, 0.787, 0.831, 0.999]
    assert table["ceiling, highest"].round(3).tolist() == [0.251, 0.841, 0.873, 0.999]
    assert table["ceiling, lowest"].iloc[0] == 0.171
    recall = table["leaked clips that must be right"]
    assert np.isnan(recall.iloc[0]) and recall.iloc[1] > 1 > recall.iloc[2] > recall.iloc[3]


def test_ucf101_leaks_nearly_everywhere():
    table = protocol_table(json.loads(LEAKAGE.read_text()), "ucf101")
    assert (table["leaked"].iloc[1:] > 0.98).all()
    assert (table["leaked clips that must be right"].iloc[1:].between(0.86, 0.87)).all()


def test_printed_accuracies_are_those_of_the_paper():
    assert audit.printed_accuracy("HST", "hmdb51") == pytest.approx(0.8553)
    assert audit.printed_accuracy("C3D", "ucf101") == pytest.approx(0.7789)


def test_a_count_prints_a_figure_if_it_rounds_to_its_digits():
    counts = [78_194_999, 78_195_000, 78_204_999, 78_205_000]
    assert prints(counts, "78.20").tolist() == [False, True, True, False]
    assert prints([42_449_999, 42_450_000, 42_549_999, 42_550_000], "42.5").tolist() == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def counts():
    return {row: family_counts(row) for row in PAPER_ROWS}


def test_families_contain_the_networks_of_the_library(counts):
    for row in PAPER_ROWS:
        network = NETWORKS[row.model]
        assert count(lambda n=network, r=row: n(CLASSES[r.dataset], r.backbone)) in counts[row], row


def test_family_sizes_are_the_products_of_their_choices(counts):
    sizes = [len(counts[row]) for row in PAPER_ROWS]
    c3d = (4**4 + 4**5) * 2 * 3 * (1 + 3 + 6)
    factored = 3 * 3 * 8**4 * 2
    plain = 5 * 2**4 * 3**4 * 2
    widths = comb(45 + 3, 4)
    assert sizes == [c3d, factored, 2 * plain, widths, c3d, factored, plain, widths]


def test_a_sample_of_plain_networks_is_built():
    rng = np.random.default_rng(0)
    for _ in range(8):
        stem = families.STEMS[rng.integers(5)]
        units = rng.integers(1, 4, 4).tolist()
        kernels = rng.choice([27, 9], 4).tolist()
        firsts = rng.choice([27, 9, 1], 4).tolist()
        hidden = families.HIDDEN[rng.integers(2)]
        formula = families.plain_parameters(stem, units, kernels, firsts, hidden, 51)
        assert formula == count(lambda s=(stem, units, kernels, firsts, hidden): plain(*s))


def plain(stem, units, kernels, firsts, hidden) -> VideoResNet:
    """Build a member of R3D's family."""
    area, width = stem
    kernel = {49: (1, 7, 7), 147: (3, 7, 7), 9: FLAT, 27: FULL}[area]
    layers = nn.Sequential(convolution(3, width, kernel, (1, 2, 2)), norm_and_relu(width))
    blocks = []
    for stage, number in enumerate(units):
        out = families.WIDTHS[stage]
        for unit in range(number):
            first = firsts[stage] if unit == 0 else kernels[stage]
            halve = stage > 0 and unit == 0
            shapes = KERNELS[kernels[stage]], KERNELS[first]
            blocks.append(plain_block(width, out, halve, *shapes))
            width = out
    sizes = (width, hidden, 51) if hidden else (width, 51)
    head = nn.Sequential(*(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)))
    return VideoResNet(layers, blocks, head)


@pytest.mark.parametrize("units", [(1, 2, 1, 3), (4, 7, 7, 3)])
def test_a_sample_of_factored_networks_is_built(units, monkeypatch):
    public = type("Member", (R2Plus1D,), {"UNITS": {"resnet21": units, "vgg13": units}})
    parameters = families.factored_parameters
    assert parameters("public", "factored 7x7", units, None, 51) == count(lambda: public(51))
    assert parameters("printed", "1x3x3", units, 1024, 51) == count(lambda: public(51, "vgg13"))
    stages = tuple(zip(units, families.WIDTHS, strict=True))
    monkeypatch.setattr(standard_networks, "STAGES", {"resnet21": stages})
    built = count(lambda: StandardR2Plus1D(51))
    assert parameters("standard", "factored 7x7", units, None, 51) == built


@pytest.mark.parametrize(
    ("convolutions", "hidden"), [((1, 2, 3, 4), ()), ((2, 1, 1, 3, 2), (2048, 1024))]
)
def test_a_sample_of_chains_is_built(convolutions, hidden):
    for norm, positions in product((False, True), (1, 16)):
        formula = families.c3d_parameters(convolutions, norm, positions, hidden, 101)
        member = (convolutions, norm, positions, hidden)
        assert formula == count(lambda m=member: chain(*m))


def chain(convolutions, norm, positions, hidden) -> nn.Sequential:
    """Build a member of C3D's family, without activations and pooling."""
    layers, width = [], 3
    for number, out in zip(convolutions, (64, 128, 256, 512, 512), strict=False):
        for _ in range(number):
            layers.append(nn.Conv3d(width, out, 3, bias=not norm))
            layers += [nn.BatchNorm3d(out)] * norm
            width = out
    sizes = (positions * width, *hidden, 101)
    layers += [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*layers)


def test_a_sample_of_hst_is_built(monkeypatch):
    widths = np.random.default_rng(0).choice(families.hst_widths(), 3)
    counts = families.hst_parameters(widths, (4, 3, 3, 3), 101)
    for sizes, formula in zip(widths.tolist(), counts, strict=True):
        backbone = hst.Backbone(64, tuple(zip((4, 3, 3, 3), sizes, strict=True)), 1024)
        monkeypatch.setattr(hst, "BACKBONES", {"vgg13": backbone})
        assert formula == count(lambda: HST(101, "vgg13"))


def test_identifiability_counts_the_matches_of_every_row():
    table = families.identifiability()
    assert table["matches"].tolist() == [7, 7, 7, 44, 112, 57, 2, 658]
    assert (table["share"] == table["matches"] / table["members"]).all()
    assert (table["smallest (M)"] < table["printed (M)"].astype(float)).all()


def test_the_benchmark_has_a_row_per_protocol(tmp_path, monkeypatch, inline_pool):
    leak_dial = importlib.import_module("leak_dial")
    for module in ("dial", "shortcuts"):
        monkeypatch.setattr(f"hstlib.data.{module}.map_in_processes", demo.map_in_processes)
    monkeypatch.setattr(dial, "CLIPS_PER_FILM", 2)
    official, random = leak_dial.measure(1, tied=True, epochs=1, results=tmp_path / "results")
    assert (official["leaked"], official["steps"]) == (0, 2) and random["leaked"] > 0.5
    assert official["test_videos"] == 3 * official["network_test_videos"] == 24
    assert random["histogram"] > official["histogram"]
    assert 0 <= random["network"] <= 1


@pytest.fixture
def dial_rows():
    """Rows in which the random split adds up to 60 points to both classifiers."""
    rows = []
    for shared, tied in importlib.import_module("leak_dial").DIAL:
        for protocol in ("official", "random-by-video"):
            leaked = shared if protocol == "random-by-video" else 0
            row = {"shared": shared, "tied": tied, "protocol": protocol, "leaked": leaked}
            row |= {"histogram": 0.3 + 0.6 * leaked * tied, "network": 0.4 + 0.6 * leaked * tied}
            rows.append(row | {"network_training": 0.96})
    return pd.DataFrame(rows)


def test_findings_of_the_dial_follow_from_its_rows(dial_rows):
    official, histogram, network, untied, fit = dial_findings(dial_rows)
    assert official.startswith("Official splits leak 0 %; there the colour histogram reaches 30 to")
    assert "adds 0 points where 0 % leak, and 60 where 100 % leak: inflation" in histogram
    assert network.startswith("R3D: the random split adds 0") and ": inflation" in network
    assert "100 % leak, and the leak does not help the histogram: 0 points" in untied
    assert fit.startswith("Every R3D has fitted") and "96%" in fit


def test_other_rows_of_the_dial_make_other_sentences(dial_rows):
    swapped = dial_rows.replace({"protocol": {"official": "x", "random-by-video": "official"}})
    swapped = swapped.replace({"protocol": {"x": "random-by-video"}})
    official, histogram, *_ = dial_findings(swapped)
    assert "leak 100 %" in official and histogram.endswith("no inflation.")
    control = (dial_rows["shared"] == 1) & ~dial_rows["tied"]
    helped = dial_rows.assign(
        histogram=dial_rows["histogram"].where(~control, 0.3 + 0.5 * dial_rows["leaked"]),
        network_training=0.9,
    )
    *_, untied, fit = dial_findings(helped)
    assert "still helps the histogram: 50 points" in untied and "has not fitted" in fit
