import matplotlib.pyplot as plt
import pytest
import torch

from hstlib.book.diagrams import block_diagram
from hstlib.book.plots import show_blocks
from hstlib.model import HST
from hstlib.model.reformer import HResidualUnit


@pytest.fixture(scope="module")
def unit_blocks():
    unit = HResidualUnit(3, 5, kernel_size=1, halve=True)
    return block_diagram(unit, {"windows": torch.zeros(2, 4, 3, 6, 8)})


def test_every_child_of_a_unit_is_a_box_with_its_shape(unit_blocks):
    shapes = {block.label.split("\n")[0]: block.shape for block in unit_blocks}
    full, half = (5, 6, 8), (5, 3, 4)
    assert {name: shapes[name] for name in ("phi", "norm", "similarity", "weight")} == {
        "phi": full, "norm": full, "similarity": full, "weight": full
    }  # fmt: skip
    assert (shapes["mask"], shapes["project"]) == ((1, 6, 8), half)


def test_the_shared_weight_is_drawn_for_both_of_its_terms(unit_blocks):
    assert sum(block.label == "weight\nConv2d" for block in unit_blocks) == 2


def test_an_operator_in_place_is_named_as_any_other(unit_blocks):
    assert "leaky_relu" in {block.label for block in unit_blocks}


def test_boxes_are_fed_by_boxes_above_them(unit_blocks):
    seen = set()
    for block in unit_blocks:
        assert set(block.sources) <= seen
        seen.add(block.name)


def test_the_model_is_drawn_as_its_parts():
    inputs = {"clips": torch.zeros(2, 3, 16, 16, 16), "flow": torch.zeros(2, 2, 16, 16, 16)}
    blocks = block_diagram(HST(5, "demo"), inputs)
    kinds = [block.label.split("\n")[-1] for block in blocks]
    assert kinds == [
        "clips", "flow", "SpatialVisualWindows", "HierarchyResidualNetwork", "SpatialAttention",
        "TemporalConvolution", "HybridAttention", "Sequential",
    ]  # fmt: skip
    assert blocks[-1].shape == (5,)


def test_a_diagram_shows_every_box_once(unit_blocks):
    figure, ax = plt.subplots()
    show_blocks(ax, unit_blocks, "unit")
    assert len([text for text in ax.texts if text.get_text()]) == len(unit_blocks)
    plt.close(figure)
