"""The model as one diagram: each box has its shape and leads to its equations and readings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hstlib.book.inside import look_inside
from hstlib.book.paper import EQUATIONS
from hstlib.book.svg import Diagram, Node, Text
from hstlib.model import HST
from hstlib.model.inputs import NUM_FRAMES


@dataclass(frozen=True)
class Step:
    """One box of the map.

    Attributes:
        title: What it computes.
        sources: Boxes that feed it.
        tensor: Name in :func:`hstlib.book.inside.look_inside` of the tensor whose shape it shows,
            or ``clips`` or ``flow``.
        equations: Numbers of its equations.
        readings: Numbers of register entries that no equation has.
    """

    title: str
    sources: tuple[str, ...]
    tensor: str
    equations: tuple[int, ...] = ()
    readings: tuple[int, ...] = ()


STEPS = {
    "frames": Step("16 frames", (), "clips", readings=(1,)),
    "flow": Step("optical flow f", (), "flow", readings=(2,)),
    "features": Step("Ω, then Φ", ("frames",), "features", readings=(4, 5, 6)),
    "temporal": Step("temporal feature T", ("flow",), "T", (1,)),
    "merge": Step("windows ξ", ("features",), "xi", (2,)),
    "statistics": Step("u and σ", ("features",), "u", (3, 4)),
    "normalise": Step("normalised windows s", ("merge", "statistics"), "s", (5,)),
    "stack": Step("stack of all windows", ("normalise",), "s_spa", (6,)),
    "prior": Step("initial prior", ("stack",), "prior", readings=(10,)),
    "units": Step("HResidual units", ("normalise", "prior"), "last windows", (7, 8, 9)),
    "converge": Step("two maps s¹ and s²", ("units",), "s1", readings=(16,)),
    "fuse": Step("fusion γ", ("converge",), "gamma", (10,)),
    "softmax": Step("attention β", ("fuse",), "beta", (11,)),
    "mix": Step("attention feature λ", ("softmax", "fuse"), "lambda", (12,)),
    "split": Step("branches b₁ and b₂", ("mix",), "branch 1", (13, 14)),
    "dense": Step("max-pooling, fc", ("split",), "branch 1", (15,)),
    "expand": Step("b₁ and b₂ expanded", ("dense",), "b1 final", (16,)),
    "attend": Step("block-in attention", ("expand", "temporal"), "vector", (17,)),
    "head": Step("scores of the classes", ("attend",), "logits", readings=(25,)),
}  # fmt: skip
"""Boxes from the frames to the classes, each after its sources."""


def model_map(
    equation_link: Callable[[int], str],
    reading_link: Callable[[int], str],
    num_classes: int = 51,
    backbone: str = "resnet21",
    size: int = 224,
) -> Diagram:
    """Draw the model with links.

    Args:
        equation_link: Address of an equation by its number.
        reading_link: Address of an entry of the readings register by its number.
        num_classes: Number of classes.
        backbone: Widths of the model whose shapes are shown.
        size: Height and width of the frames in pixels.
    """
    shapes = step_shapes(num_classes, backbone, size)
    readings = {equation.number: equation.readings for equation in EQUATIONS}
    nodes = {}
    for name, step in STEPS.items():
        numbers = [*step.readings, *(r for e in step.equations for r in readings[e])]
        links = [Text(f"({e})", equation_link(e), f"Equation {e}") for e in step.equations]
        links += [Text(f"R{r}", reading_link(r), f"Reading {r}") for r in dict.fromkeys(numbers)]
        lines = ((Text(step.title),), (Text(" × ".join(map(str, shapes[name]))),), tuple(links))
        nodes[name] = Node(lines, step.sources, "module" if step.sources else "input")
    order = ", ".join(step.title for step in STEPS.values())
    return Diagram(
        f"HST from frames to classes, {size} pixels",
        f"Boxes from top to bottom, each with the shape of its output for one clip: {order}.",
        nodes,
    )


def step_shapes(num_classes: int, backbone: str, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each step's output for one clip, without the batch."""
    with torch.device("meta"):
        model = HST(num_classes, backbone).eval()
        clips = torch.empty(1, 3, NUM_FRAMES, size, size)
        flow = torch.empty(1, 2, NUM_FRAMES, size, size)
        tensors = look_inside(model, clips, flow)
    first = tensors["s1"]
    windows = (1, NUM_FRAMES // 2, *first.shape[1:])
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shapes |= {"clips": tuple(clips.shape), "flow": tuple(flow.shape), "last windows": windows}
    return {name: shapes[step.tensor][1:] for name, step in STEPS.items()}
