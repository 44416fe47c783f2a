"""Diagrams as inline SVG, whose boxes can be links; colours follow the page, light or dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hstlib.book.diagrams import Block
from hstlib.book.routes import Box, Line, place, route, rows_of

CHARACTER, LINE_HEIGHT, PADDING = 7.3, 16.0, 8.0
"""Pixels: width of a character at the font size of the boxes, height of a line, inner margin."""
MARGIN = 6.0
ARROW = 5.0
STYLE = (
    ".hst-diagram{overflow-x:auto;max-width:100%}"
    ".hst-diagram svg{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
    "color:var(--pst-color-text-base,var(--jp-content-font-color1,#222));display:block;margin:auto}"
    ".hst-diagram text{fill:currentColor;text-anchor:middle}"
    ".hst-diagram rect{stroke:currentColor;fill:#2f81f7;fill-opacity:.13}"
    ".hst-diagram .input rect{fill:#8b949e;fill-opacity:.25}"
    ".hst-diagram .plain rect{fill:none}"
    ".hst-diagram polyline{fill:none;stroke:currentColor;stroke-opacity:.75}"
    ".hst-diagram polygon{fill:currentColor}"
    ".hst-diagram a text,.hst-diagram a tspan"
    "{fill:var(--pst-color-link,var(--jp-content-link-color,#0550ae));text-decoration:underline}"
    ".hst-diagram a:focus-visible{outline:2px solid currentColor;outline-offset:2px}"
)


@dataclass(frozen=True)
class Text:
    """A piece of text in a box.

    Attributes:
        text: Words.
        link: Address to which it leads; empty for none.
        label: Name of the link for screen readers, where the words alone are too short.
    """

    text: str
    link: str = ""
    label: str = ""


@dataclass(frozen=True)
class Node:
    """A box and its content.

    Attributes:
        lines: Lines of text; each is a sequence of pieces, shown with spaces between them.
        sources: Names of the boxes that feed it.
        kind: ``input``, ``module`` or ``plain``, which differ in colour.
    """

    lines: tuple[tuple[Text, ...], ...]
    sources: tuple[str, ...] = ()
    kind: str = "module"


@dataclass(frozen=True)
class Diagram:
    """A diagram with its geometry; a notebook shows it as SVG.

    Attributes:
        title: Name of the diagram.
        description: What it shows, for screen readers.
        nodes: Boxes by name, each after its sources.
    """

    title: str
    description: str
    nodes: Mapping[str, Node]

    @property
    def boxes(self) -> dict[str, Box]:
        """Places of the boxes."""
        sources = {name: node.sources for name, node in self.nodes.items()}
        return place(rows_of(sources), {name: _size(node) for name, node in self.nodes.items()})

    @property
    def lines(self) -> list[Line]:
        """Lines between the boxes."""
        edges = [(source, name) for name, node in self.nodes.items() for source in node.sources]
        return route(self.boxes, edges)

    def svg(self) -> str:
        """Return the diagram as HTML that scrolls sideways where the screen is narrow."""
        boxes, lines = self.boxes, self.lines
        points = [point for line in lines for point in line.points]
        left = min([box.x for box in boxes.values()] + [x for x, _ in points]) - MARGIN
        right = max([box.x + box.width for box in boxes.values()] + [x for x, _ in points]) + MARGIN
        height = max(box.y + box.height for box in boxes.values()) + 2 * MARGIN
        name = "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())
        linked = any(text.link for node in self.nodes.values() for ln in node.lines for text in ln)
        role = "group" if linked else "img"  # an image hides its links from a screen reader
        return "".join([
            '<div class="hst-diagram" tabindex="0" role="region" '
            f'aria-label="{escape(self.title)}"><style>{STYLE}</style>',
            f'<svg xmlns="http://www.w3.org/2000/svg" role="{role}" '
            f'aria-labelledby="{name}-title {name}-desc" width="{right - left:g}" '
            f'height="{height:g}" viewBox="{left:g} {-MARGIN:g} {right - left:g} {height:g}">',
            f'<title id="{name}-title">{escape(self.title)}</title>',
            f'<desc id="{name}-desc">{escape(self.description)}</desc>',
            *map(_draw_line, lines),
            *(_draw_box(boxes[name], node) for name, node in self.nodes.items()),
            "</svg></div>",
        ])  # fmt: skip

    def _repr_html_(self) -> str:
        return self.svg()

    def __repr__(self) -> str:
        return f"Diagram({self.title!r}, {len(self.nodes)} boxes)"


def draw_blocks(title: str, blocks: Sequence[Block]) -> Diagram:
    """Draw a traced module: inputs grey, sub-modules blue, operators white.

    Args:
        title: Name of the diagram.
        blocks: Boxes from :func:`hstlib.book.diagrams.block_diagram`.
    """
    nodes = {}
    for block in blocks:
        words = [*block.label.split("\n"), " × ".join(map(str, block.shape))]
        kind = "module" if "\n" in block.label else "plain" if block.sources else "input"
        nodes[block.name] = Node(tuple((Text(w),) for w in words), block.sources, kind)
    order = ", ".join(block.label.replace("\n", " ") for block in blocks)
    return Diagram(title, f"Boxes from top to bottom: {order}.", nodes)


def _size(node: Node) -> tuple[float, float]:
    longest = max(len(" ".join(text.text for text in line)) for line in node.lines)
    return longest * CHARACTER + 2 * PADDING, len(node.lines) * LINE_HEIGHT + 2 * PADDING


def _draw_line(line: Line) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
    x, y = line.points[-1]
    head = f"{x:.1f},{y:.1f} {x - ARROW:.1f},{y - ARROW:.1f} {x + ARROW:.1f},{y - ARROW:.1f}"
    return f'<polyline points="{points}"/><polygon points="{head}"/>'


def _draw_box(box: Box, node: Node) -> str:
    shape = (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="6"/>'
    )
    x, texts = box.x + box.width / 2, []
    for i, line in enumerate(node.lines, start=1):
        y = box.y + PADDING + i * LINE_HEIGHT - 4
        pieces = " ".join(map(_draw_text, line))
        texts.append(f'<text x="{x:.1f}" y="{y:.1f}">{pieces}</text>')
    return f'<g class="{node.kind}">{shape}{"".join(texts)}</g>'


def _draw_text(text: Text) -> str:
    words = f"<tspan>{escape(text.text)}</tspan>"
    if not text.link:
        return words
    label = f' aria-label="{escape(text.label)}"' if text.label else ""
    return f'<a href="{escape(text.link)}"{label}>{words}</a>'
