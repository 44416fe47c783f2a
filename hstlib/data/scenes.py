"""Still frames of the demo corpora's scenes."""

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120
NUM_SOURCE_FRAMES = 44


def draw_frames(
    scene: str, group_seed: tuple[int, ...], clip_seed: tuple[int, ...]
) -> list[np.ndarray]:
    """Draw the still frames of a scene.

    Args:
        scene: ``slide``, ``open``, ``spin``, or the lower-case name of an appearance class.
        group_seed: Seed of background and colours.
        clip_seed: Seed of place, size and speed.

    Returns:
        ``NUM_SOURCE_FRAMES`` RGB frames, uint8, shape (120, 160, 3).

    Raises:
        ValueError: If the scene is unknown.
    """
    motions = {"slide": _slide, "open": _open, "spin": _spin}
    if scene not in (known := [*motions, *SHAPES, *TEXTURES]):
        raise ValueError(f"scene {scene!r} is unknown; use one of {known}")
    background, colour, second_colour = _draw_look(np.random.default_rng(group_seed))
    scene_id = sum(map(ord, scene)) if scene in motions else 0
    rng = np.random.default_rng((*clip_seed, scene_id))
    paint = motions[scene](rng) if scene in motions else _drift(rng, scene)
    times = np.linspace(-0.5, 0.5, NUM_SOURCE_FRAMES)
    return [paint(background.copy(), t, colour, second_colour) for t in times]


def _draw_look(rng: np.random.Generator) -> tuple[np.ndarray, tuple, tuple]:
    """Draw the background of a group and choose two colours that stand out from it."""
    corners = rng.uniform(30, 120, (2, 2, 3)).astype(np.float32)
    gradient = cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    grain = rng.normal(0, 1, (HEIGHT, WIDTH, 1)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(1.5, 4.0))[..., None]
    background = gradient + 14 * grain / grain.std()
    hue = rng.uniform(0, 180)
    colours = np.array([[[hue, 130, 235], [(hue + 90) % 180, 160, 150]]], np.uint8)
    first, second = cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)[0].astype(int).tolist()
    return background.clip(0, 255).astype(np.uint8), tuple(first), tuple(second)


def _slide(rng: np.random.Generator):
    """Move a star across the picture."""
    y, radius = rng.uniform(0.3, 0.7) * HEIGHT, rng.uniform(0.16, 0.22) * HEIGHT
    x, travel = rng.uniform(0.42, 0.58) * WIDTH, rng.uniform(0.45, 0.65) * WIDTH
    angles = rng.uniform(0, 2 * np.pi) + np.arange(10) * np.pi / 5
    radii = radius * np.where(np.arange(10) % 2, 0.5, 1.0)

    def paint(frame, t, colour, second_colour):
        points = np.stack([x + t * travel + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
        return _polygon(frame, points, colour)

    return paint


def _open(rng: np.random.Generator):
    """Grow a ring."""
    x, y = rng.uniform(0.4, 0.6) * WIDTH, rng.uniform(0.4, 0.6) * HEIGHT
    middle, growth = rng.uniform(0.22, 0.26) * HEIGHT, rng.uniform(0.24, 0.34) * HEIGHT
    thickness = rng.uniform(0.06, 0.1) * HEIGHT

    def paint(frame, t, colour, second_colour):
        radius = middle + t * growth
        return _ring(frame, (x, y), radius, radius + thickness, colour)

    return paint


def _spin(rng: np.random.Generator):
    """Turn a bar with one broad end."""
    x, y = rng.uniform(0.4, 0.6) * WIDTH, rng.uniform(0.42, 0.58) * HEIGHT
    length, start = rng.uniform(0.32, 0.42) * HEIGHT, rng.uniform(0, 2 * np.pi)
    travel = rng.uniform(1.3, 2.0) * np.pi
    outline = np.array([[-0.2, -0.1], [1.0, -0.3], [1.0, 0.3], [-0.2, 0.1]]) * length

    def paint(frame, t, colour, second_colour):
        cos, sin = np.cos(start + t * travel), np.sin(start + t * travel)
        return _polygon(frame, outline @ [[cos, sin], [-sin, cos]] + [x, y], colour)

    return paint


def _drift(rng: np.random.Generator, look: str):
    """Move a shape or a textured patch slowly in any direction."""
    x, y = rng.uniform(0.42, 0.58) * WIDTH, rng.uniform(0.44, 0.56) * HEIGHT
    direction, travel = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.15) * HEIGHT
    radius = rng.uniform(0.24, 0.32) * HEIGHT
    half, period = rng.uniform(0.38, 0.46) * HEIGHT, rng.uniform(0.42, 0.52) * HEIGHT

    def paint(frame, t, colour, second_colour):
        centre = (x + t * travel * np.cos(direction), y + t * travel * np.sin(direction))
        if look in SHAPES:
            return _polygon(frame, SHAPES[look] * radius + centre, colour)
        return _texture(frame, look, centre, half, period, colour, second_colour)

    return paint


def _circle(count: int, turn: float = 0.0) -> np.ndarray:
    angles = turn + np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], 1)


_ARM = 0.36
SHAPES = {
    "disc": _circle(48),
    "square": 1.15 * _circle(4, np.pi / 4),
    "triangle": 1.25 * _circle(3, -np.pi / 2),
    "cross": 1.1
    * np.array(
        [[-_ARM, -1], [_ARM, -1], [_ARM, -_ARM], [1, -_ARM], [1, _ARM], [_ARM, _ARM],
         [_ARM, 1], [-_ARM, 1], [-_ARM, _ARM], [-1, _ARM], [-1, -_ARM], [-_ARM, -_ARM]]
    ),
}  # fmt: skip


def _polygon(frame: np.ndarray, points: np.ndarray, colour: tuple) -> np.ndarray:
    fixed = np.round(points * 16).astype(np.int32)
    return cv2.fillPoly(frame, [fixed], colour, lineType=cv2.LINE_AA, shift=4)


def _ring(frame: np.ndarray, centre: tuple, inner: float, outer: float, colour: tuple):
    middle, thickness = (inner + outer) / 2, max(1, round(outer - inner))
    fixed = tuple(round(v * 16) for v in centre)
    return cv2.circle(
        frame, fixed, round(middle * 16), colour, thickness, lineType=cv2.LINE_AA, shift=4
    )


TEXTURES = {
    "horizontalstripes": lambda dx, dy: np.sin(2 * np.pi * dy) + 0 * dx > 0,
    "verticalstripes": lambda dx, dy: np.sin(2 * np.pi * dx) + 0 * dy > 0,
    "checks": lambda dx, dy: np.sin(2 * np.pi * dx) * np.sin(2 * np.pi * dy) > 0,
    "rings": lambda dx, dy: np.sin(2 * np.pi * np.hypot(dx, dy)) > 0,
}


def _texture(
    frame: np.ndarray, look: str, centre: tuple, half: float, period: float, colour, second_colour
) -> np.ndarray:
    """Paint a square patch whose pattern moves with it."""
    xs = np.arange(WIDTH, dtype=np.float32)[None]
    ys = np.arange(HEIGHT, dtype=np.float32)[:, None]
    dx, dy = (xs - centre[0]) / period, (ys - centre[1]) / period
    pattern = TEXTURES[look](dx, dy)
    inside = (np.abs(xs - centre[0]) < half) & (np.abs(ys - centre[1]) < half)
    frame[inside & pattern] = colour
    frame[inside & ~pattern] = second_colour
    return frame
