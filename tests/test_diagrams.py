"""Diagrams: their boxes are the parts of the modules, and lines run around the boxes."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from hstlib.book.diagrams import block_diagram
from hstlib.book.inside import look_inside
from hstlib.book.model_map import STEPS, model_map, step_shapes
from hstlib.book.paper import EQUATIONS
from hstlib.book.routes import Line, crossings, place, route, rows_of
from hstlib.book.svg import Diagram, Node, Text, draw_blocks
from hstlib.model import HST, ops
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


def traced(part: str, **inputs: tuple[int, ...]) -> Diagram:
    module = HST(8, "demo").get_submodule(part)
    tensors = {name: torch.zeros(2, *shape) for name, shape in inputs.items()}
    return draw_blocks(part or "model", block_diagram(module, tensors))


def linked_map(**sizes) -> Diagram:
    return model_map(lambda n: f"#equation-{n}", lambda n: f"readings.html#reading-r{n}", **sizes)


MAPS = (48, 6, 6)
DIAGRAMS = {
    "map": linked_map,
    "model": lambda: traced("", clips=(3, 16, 48, 48), flow=(2, 16, 48, 48)),
    "windows": lambda: traced("windows", clips=(3, 16, 48, 48)),
    "unit": lambda: traced("hierarchy.units.2", windows=(8, 16, 24, 24)),
    "spatial": lambda: traced("spatial_attention", first=MAPS, second=MAPS),
    "hybrid": lambda: traced("hybrid_attention", spatial=MAPS, temporal=MAPS),
    "skips": lambda: Diagram("skips", "", {
        name: Node(((Text(name * 9),),), sources)
        for name, sources in {"a": (), "b": (), "c": ("a",), "d": ("a", "b", "c"),
                              "e": ("d", "a", "b"), "f": ("e", "c", "b", "a")}.items()
    }),
}  # fmt: skip


@pytest.fixture(scope="module", params=DIAGRAMS)
def diagram(request) -> Diagram:
    return DIAGRAMS[request.param]()


def test_lines_run_around_boxes_and_join_what_they_should(diagram):
    boxes, lines = diagram.boxes, diagram.lines
    assert crossings(boxes, lines) == []
    edges = {(source, name) for name, node in diagram.nodes.items() for source in node.sources}
    assert {(line.source, line.target) for line in lines} == edges
    for line in lines:
        source, target = boxes[line.source], boxes[line.target]
        (x0, y0), (x1, y1) = line.points[0], line.points[-1]
        assert source.x < x0 < source.x + source.width and y0 == source.y + source.height
        assert target.x < x1 < target.x + target.width and y1 == target.y
        for (a, b), (c, d) in zip(line.points, line.points[1:], strict=False):
            assert (a == c or b == d) and d >= b  # straight, and never upwards


def test_no_two_boxes_overlap_and_texts_fit(diagram):
    boxes = list(diagram.boxes.values())
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = one.x >= other.x + other.width or other.x >= one.x + one.width
            assert apart or one.y >= other.y + other.height or other.y >= one.y + one.height


def test_no_two_lines_lie_on_each_other(diagram):
    taken = {}
    for line in diagram.lines:
        for (a, b), (c, d) in zip(line.points, line.points[1:], strict=False):
            axis, level = ("x", a) if a == c else ("y", b)
            low, high = sorted((b, d) if a == c else (a, c))
            for other, start, end in taken.get((axis, level), []):
                assert other is line or end <= low or start >= high, (line, other)
            taken.setdefault((axis, level), []).append((line, low, high))


def test_no_line_of_the_map_crosses_another():
    segments = [
        (line, sorted(pair))
        for line in linked_map().lines
        for pair in zip(line.points, line.points[1:], strict=False)
    ]
    upright = [(line, x, y, end) for line, ((x, y), (to, end)) in segments if x == to]
    level = [(line, y, x, end) for line, ((x, y), (end, to)) in segments if y == to]
    for line, x, top, bottom in upright:
        for other, y, left, right in level:
            assert line is other or not (left < x < right and top < y < bottom), (line, other)


def test_a_line_through_a_box_is_found():
    rows = rows_of({"a": (), "b": ("a",), "c": ("b", "a")})
    boxes = place(rows, {name: (60.0, 30.0) for name in "abc"})
    lines = route(boxes, [("a", "b"), ("b", "c"), ("a", "c")])
    assert crossings(boxes, lines) == []
    straight = Line("a", "c", ((0.0, 30.0), (0.0, boxes["c"].y)))
    assert crossings(boxes, [straight]) == [(straight, "b")]
    sideways = replace(straight, points=((-90.0, boxes["b"].y + 9), (90.0, boxes["b"].y + 9)))
    assert crossings(boxes, [sideways]) == [(sideways, "b")]


def test_a_line_upwards_is_refused():
    boxes = place([["a"], ["b"]], {"a": (9.0, 9.0), "b": (9.0, 9.0)})
    with pytest.raises(ValueError, match="'b' to 'a' would not run downwards"):
        route(boxes, [("b", "a")])


def test_a_diagram_shows_every_box_once(unit_blocks):
    tree = ElementTree.fromstring(draw_blocks("unit", unit_blocks).svg())
    rectangles = [e for e in tree.iter() if e.tag.endswith("rect")]
    assert len(rectangles) == len(unit_blocks)


def test_the_map_links_every_equation_and_says_what_it_is():
    html = linked_map().svg()
    tree = ElementTree.fromstring(html)
    (svg,) = [e for e in tree if e.tag.endswith("svg")]
    names = svg.get("aria-labelledby").split()
    assert [e.get("id") for e in svg[:2]] == names and all(e.text for e in svg[:2])
    assert svg.get("role") == "group"  # an image would hide its links
    links = [e for e in svg.iter() if e.tag.endswith("}a")]
    assert all(e.get("href") and e.get("aria-label") for e in links)
    targets = {e.get("href") for e in links}
    assert {f"#equation-{equation.number}" for equation in EQUATIONS} <= targets
    readings = {r for equation in EQUATIONS for r in equation.readings}
    assert {f"readings.html#reading-r{r}" for r in readings} <= targets
    assert set(re.findall(r"<tspan>\((\d+)\)", html)) == {str(e.number) for e in EQUATIONS}


def test_the_map_shows_the_shapes_of_the_paper():
    shapes = step_shapes(51, "resnet21", 224)
    assert shapes["frames"] == (3, 16, 224, 224) and shapes["merge"] == (8, 64, 112, 112)
    assert shapes["stack"] == (8 * 64, 112, 112) and shapes["split"][1:] == (7, 7)
    assert shapes["temporal"] == shapes["mix"] == shapes["expand"]
    assert shapes["head"] == (51,) and set(shapes) == set(STEPS)


def test_what_is_seen_inside_is_what_the_model_computes():
    torch.manual_seed(0)
    model = HST(5, "demo").double().eval()
    clips = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    flow = torch.randn(2, 2, 16, 32, 32, dtype=torch.float64)
    seen = look_inside(model, clips, flow)
    assert torch.equal(seen["logits"], model(clips, flow))
    noise = ops.window_noise(seen["sigma"], training=False)
    assert torch.allclose(
        seen["s"], ops.normalise_windows(seen["xi"], seen["u"], seen["sigma"], noise)
    )
    unit = model.hierarchy.units[0]
    mask = torch.sigmoid(unit.mask(seen["s"].flatten(0, 1))).unflatten(0, (2, 8))
    assert torch.allclose(seen["mask 1"], mask)
    both = torch.cat([seen["beta"] * seen["gamma"], seen["gamma"]], 1)
    assert torch.allclose(model.spatial_attention.feed_forward(both), seen["lambda"])
    assert torch.allclose(seen["share"].mean((2, 3)), seen["vector"])
    assert torch.allclose(model.head(seen["vector"]), seen["logits"])
    assert not model.windows._forward_hooks
