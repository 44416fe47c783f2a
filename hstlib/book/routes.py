"""Layout of diagrams: boxes in rows, and lines that run around boxes, never through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP, SPACE = 34.0, 28.0
"""Pixels between rows, where lines run sideways, and between the boxes of a row."""
KINK = 24.0
"""A step sideways that is shorter than this is avoided where the source's only line makes it."""
STEP = 9.0
"""Least distance between two ports."""
LANE = 9.0
"""Least distance of a vertical line from a box that it passes, and from another line."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Place of a box.

    Attributes:
        row: Number of its row, from 0.
        x: Left side, in pixels.
        y: Top, in pixels.
        width: Pixels.
        height: Pixels.
    """

    row: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A line from the bottom of a box to the top of a box further down.

    Attributes:
        source: Name of the box where it starts.
        target: Name of the box where it ends.
        points: Corners, from start to end; every segment is horizontal or vertical.
    """

    source: str
    target: str
    points: tuple[Point, ...]


def rows_of(sources: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Put every box one row below its lowest source, boxes of a row in the order of their sources.

    Args:
        sources: Names of the boxes that feed each box; a box comes after its sources.
    """
    rows: list[list[str]] = []
    depths: dict[str, int] = {}
    for name, feeding in sources.items():
        depths[name] = 1 + max((depths[source] for source in feeding), default=-1)
        rows += [[] for _ in range(depths[name] + 1 - len(rows))]
        rows[depths[name]].append(name)
    column: dict[str, float] = {}
    for row in rows:
        row.sort(key=lambda name: _mean([column[source] for source in sources[name]]))
        column |= {name: i - (len(row) - 1) / 2 for i, name in enumerate(row)}
    return rows


def place(
    rows: Sequence[Sequence[str]], sizes: Mapping[str, tuple[float, float]]
) -> dict[str, Box]:
    """Place boxes in rows that are centred above each other.

    Args:
        rows: Names of the boxes, row by row, from left to right.
        sizes: Width and height of each box in pixels.
    """
    boxes: dict[str, Box] = {}
    top = 0.0
    for number, row in enumerate(rows):
        x = -(sum(sizes[name][0] for name in row) + SPACE * (len(row) - 1)) / 2
        for name in row:
            boxes[name] = Box(number, x, top, *sizes[name])
            x += sizes[name][0] + SPACE
        top += max(sizes[name][1] for name in row) + GAP
    return boxes


def route(boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]]) -> list[Line]:
    """Draw a line for each edge.

    A line leaves at the bottom, runs sideways between rows only, and passes other rows in a lane
    beside their boxes. Its port at a box, its lane and its level between two rows are its own.

    Args:
        boxes: Boxes from :func:`place`.
        edges: Names of source and target, which is in a lower row.

    Raises:
        ValueError: If a target is not below its source.
    """
    for source, target in edges:
        if boxes[target].row <= boxes[source].row:
            raise ValueError(f"a line from {source!r} to {target!r} would not run downwards")
    ends = _ports(boxes, edges, end=1)
    starts = _straightened(boxes, _ports(boxes, edges, end=0), ends)
    starts = _moved_apart(boxes, starts, ends)
    lanes = _lanes(boxes, edges, starts, ends)
    levels = _levels(boxes, edges, starts, ends, lanes)
    lines = []
    for edge in edges:
        source, target = (boxes[name] for name in edge)
        lane, (first, last) = lanes[edge], levels[edge]
        corners = [
            (starts[edge], source.y + source.height), (starts[edge], first), (lane, first),
            (lane, last), (ends[edge], last), (ends[edge], target.y),
        ]  # fmt: skip
        lines.append(Line(*edge, tuple(_without_repetition(corners))))
    return lines


def crossings(boxes: Mapping[str, Box], lines: Sequence[Line]) -> list[tuple[Line, str]]:
    """List the lines that touch a box at which they neither start nor end, with that box."""
    return [
        (line, name)
        for line in lines
        for name, box in boxes.items()
        if name not in (line.source, line.target)
        and any(_touches(box, a, b) for a, b in zip(line.points, line.points[1:], strict=False))
    ]


def _touches(box: Box, start: Point, end: Point) -> bool:
    (left, right), (top, bottom) = (sorted(ends) for ends in zip(start, end, strict=True))
    beside = right < box.x or left > box.x + box.width
    return not (beside or bottom < box.y or top > box.y + box.height)


def _ports(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], end: int
) -> dict[tuple[str, str], float]:
    """Return the x of each edge at its source (end 0) or target (1), spread over the box."""
    ports = {}
    for name, box in boxes.items():
        mine = [edge for edge in edges if edge[end] == name]
        mine.sort(key=lambda edge: (_centre(boxes[edge[1 - end]]), _rows_down(boxes, edge)))
        for i, edge in enumerate(mine, start=1):
            ports[edge] = box.x + box.width * i / (len(mine) + 1)
    return ports


def _straightened(
    boxes: Mapping[str, Box],
    starts: Mapping[tuple[str, str], float],
    ends: Mapping[tuple[str, str], float],
) -> dict[tuple[str, str], float]:
    """Move the start of a box's only line above its end where that is near and below the box."""
    sources = [edge[0] for edge in starts]
    moved = dict(starts)
    for edge, x in ends.items():
        box = boxes[edge[0]]
        below = box.x + LANE < x < box.x + box.width - LANE
        if sources.count(edge[0]) == 1 and below and abs(x - starts[edge]) < KINK:
            moved[edge] = x
    return moved


def _moved_apart(
    boxes: Mapping[str, Box],
    starts: Mapping[tuple[str, str], float],
    ends: Mapping[tuple[str, str], float],
) -> dict[tuple[str, str], float]:
    """Move a start that is above the end of another line, so that they do not coincide."""
    moved = dict(starts)
    for edge in starts:
        row = boxes[edge[0]].row
        near = [x for other, x in ends.items() if other != edge and boxes[other[1]].row == row + 1]
        near += [x for other, x in moved.items() if other != edge and other[0] == edge[0]]
        steps = (moved[edge] + sign * STEP * i for i in range(20) for sign in (1, -1))
        moved[edge] = next(x for x in steps if all(abs(x - other) >= STEP for other in near))
    return moved


def _lanes(
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    starts: Mapping[tuple[str, str], float],
    ends: Mapping[tuple[str, str], float],
) -> dict[tuple[str, str], float]:
    """Return the x at which each edge passes the rows between its ends."""
    lanes: dict[tuple[str, str], float] = {}
    for edge in edges:
        between = range(boxes[edge[0]].row + 1, boxes[edge[1]].row)
        if not between:
            lanes[edge] = ends[edge]
            continue
        blocked = [
            (box.x - LANE, box.x + box.width + LANE) for box in boxes.values() if box.row in between
        ]
        taken = [
            lane
            for other, lane in lanes.items()
            if boxes[other[0]].row < between.stop + 1 and boxes[other[1]].row > between.start - 1
        ]
        for other in edges:
            if other != edge:
                taken += [starts[other]] * (boxes[other[0]].row == between.start - 1)
                taken += [ends[other]] * (boxes[other[1]].row == between.stop)
        blocked += [(x - LANE, x + LANE) for x in taken]
        free = [starts[edge], ends[edge], *(x for interval in blocked for x in interval)]
        free = [x for x in free if not any(low < x < high for low, high in blocked)]
        lanes[edge] = min(free, key=lambda x: abs(x - starts[edge]) + abs(x - ends[edge]))
    return lanes


def _levels(
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    starts: Mapping[tuple[str, str], float],
    ends: Mapping[tuple[str, str], float],
    lanes: Mapping[tuple[str, str], float],
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the y at which each edge runs sideways below its source and above its target."""
    places = (starts, lanes), (lanes, ends)
    sideways: dict[int, list[tuple[tuple[str, str], int]]] = {}
    for edge in edges:
        upper, lower = boxes[edge[0]].row, boxes[edge[1]].row - 1
        if starts[edge] != lanes[edge]:
            sideways.setdefault(upper, []).append((edge, 0))
        if lower > upper and lanes[edge] != ends[edge]:
            sideways.setdefault(lower, []).append((edge, 1))
    levels = {edge: [boxes[edge[0]].y + boxes[edge[0]].height, boxes[edge[1]].y] for edge in edges}
    for row, runs in sideways.items():
        # What leaves a row is above what enters the next; a line further behind is lower.
        runs.sort(key=lambda run: (run[1], _behind(*(x[run[0]] for x in places[run[1]]))))
        bottom = max(box.y + box.height for box in boxes.values() if box.row == row)
        for i, (edge, end) in enumerate(runs, start=1):
            levels[edge][end] = bottom + GAP * i / (len(runs) + 2)
    return {edge: (first, last) for edge, (first, last) in levels.items()}


def _behind(x: float, to: float) -> float:
    """Return how far behind a sideways line begins, seen in its direction."""
    return -x if to > x else x


def _without_repetition(points: Sequence[Point]) -> list[Point]:
    return [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]


def _rows_down(boxes: Mapping[str, Box], edge: tuple[str, str]) -> int:
    return boxes[edge[1]].row - boxes[edge[0]].row


def _centre(box: Box) -> float:
    return box.x + box.width / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
