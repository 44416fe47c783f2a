"""Drawn videos with known answers, laid out exactly like HMDB51 and UCF101.

Half of the classes of each corpus differ only in motion: a pair such as ``slide_left`` and
``slide_right`` is made of the very same still frames in opposite order. The other half differ
only in appearance: the same slow drift, another shape or texture. Every clip belongs to a group
(the film it was "cut from") that fixes background and colours, and no group is on both sides of
a split, as in the real data sets.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hstlib.files import complete, lock, remove, remove_leftovers
from hstlib.processes import process_pool

WIDTH, HEIGHT = 160, 120
NUM_SOURCE_FRAMES = 44
MARKER = "DEMO.json"

MOTION_PAIRS = {
    "demo-hmdb51": {"slide": ("slide_right", "slide_left"), "open": ("open", "close")},
    "demo-ucf101": {
        "spin": ("SpinClockwise", "SpinCounterclockwise"),
        "slide": ("SlideRight", "SlideLeft"),
    },
}
APPEARANCE = {
    "demo-hmdb51": ("disc", "square", "triangle", "cross"),
    "demo-ucf101": ("HorizontalStripes", "VerticalStripes", "Checks", "Rings"),
}


@dataclass(frozen=True)
class DemoClip:
    """One video to draw: where it goes, what it shows, and the seeds that fix it."""

    path: Path
    scene: str
    reverse: bool
    group_seed: tuple[int, ...]
    clip_seed: tuple[int, ...]
    fps: float


def class_kinds(dataset: str) -> dict[str, str]:
    """Return ``motion`` or ``appearance`` for each class of a demo corpus."""
    motion = {name: "motion" for pair in MOTION_PAIRS[dataset].values() for name in pair}
    return motion | {name: "appearance" for name in APPEARANCE[dataset]}


def reverse_classes(dataset: str) -> dict[str, str]:
    """Return, for each motion class, the class made of the same still frames in opposite order."""
    pairs = MOTION_PAIRS[dataset].values()
    return {a: b for a, b in pairs} | {b: a for a, b in pairs}


def make_demo(root: Path, dataset: str, seed: int = 0, workers: int | None = None) -> Path:
    """Draw a corpus, unless it lies there already; one drawn by other code or seed is replaced.

    Args:
        root: Folder of the corpus; gets the layout of the official archive and split lists.
        dataset: ``demo-hmdb51`` or ``demo-ucf101``.
        seed: Same seed, same files, byte for byte.
        workers: Processes that draw; none: one per core.

    Returns:
        ``root``.

    Raises:
        ValueError: If the name is unknown, or ``root`` holds something else than a drawn corpus.
    """
    if dataset not in MOTION_PAIRS:
        raise ValueError(f"demo corpus {dataset!r} is unknown; use one of {[*MOTION_PAIRS]}")
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    identity = {"dataset": dataset, "seed": seed, "code": code}
    if root.exists() and not (root / MARKER).is_file():
        raise ValueError(f"{root} exists and is not a drawn corpus; move it away")
    with lock(root):
        if _identity(root) == identity:
            return root
        remove_leftovers(root)
        with complete(root) as unfinished:
            plan = _plan_hmdb51 if dataset == "demo-hmdb51" else _plan_ucf101
            clips = plan(unfinished, seed)
            with process_pool(workers or os.cpu_count() or 1) as pool:
                list(pool.map(draw_clip, clips, chunksize=16))
            (unfinished / MARKER).write_text(json.dumps(identity))
            remove(root)
    return root


def _identity(root: Path) -> dict | None:
    """Return what the corpus in a folder was drawn from, or none if there is none."""
    marker = root / MARKER
    return json.loads(marker.read_text()) if marker.is_file() else None


def _scenes(dataset: str) -> list[tuple[str, str, bool]]:
    """List class name, scene to draw, and whether it plays backwards."""
    scenes = []
    for scene, (forwards, backwards) in MOTION_PAIRS[dataset].items():
        scenes += [(forwards, scene, False), (backwards, scene, True)]
    return scenes + [(name, name.lower(), False) for name in APPEARANCE[dataset]]


def _plan_hmdb51(root: Path, seed: int) -> list[DemoClip]:
    """HMDB51's layout: 70 train, 30 test and some unused clips of every class in each split."""
    films, clips_per_film, splits = 21, 5, 3
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    clips = []
    for class_name, scene, reverse in _scenes("demo-hmdb51"):
        folder = root / "hmdb51_org" / class_name
        folder.mkdir(parents=True)
        lines: list[list[str]] = [[] for _ in range(splits)]
        for film in range(films):
            for clip in range(clips_per_film):
                name = f"Film{film:02d}_{class_name}_f_nm_np1_fr_goo_{clip}.avi"
                seeds = (seed, 51, film), (seed, 51, film, clip)
                clips.append(DemoClip(folder / name, scene, reverse, *seeds, fps=30))
                for split in range(splits):
                    tag = _hmdb51_tag((film - 6 * split) % films)
                    lines[split].append(f"{name} {tag} \n")
        for split in range(splits):
            (lists / f"{class_name}_test_split{split + 1}.txt").write_text("".join(lines[split]))
    return clips


def _hmdb51_tag(position: int) -> int:
    """Return 2 (test) for 6 films, 1 (train) for 14, 0 (unused) for one."""
    return 2 if position < 6 else 1 if position < 20 else 0


def _plan_ucf101(root: Path, seed: int) -> list[DemoClip]:
    """UCF101's layout: groups of clips, 28 % of them test in each split.

    Twice UCF101's 25 groups: with fewer looks, textures do not generalise to unseen colours.
    """
    groups, clips_per_group, held_out = 50, 2, 14
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    scenes = sorted(_scenes("demo-ucf101"))
    index = "".join(f"{i} {name}\r\n" for i, (name, _, _) in enumerate(scenes, start=1))
    (lists / "classInd.txt").write_bytes(index.encode())
    clips = []
    train: list[list[str]] = [[], [], []]
    test: list[list[str]] = [[], [], []]
    for label, (class_name, scene, reverse) in enumerate(scenes, start=1):
        folder = root / "UCF-101" / class_name
        folder.mkdir(parents=True)
        for group in range(1, groups + 1):
            for clip in range(1, clips_per_group + 1):
                name = f"v_{class_name}_g{group:02d}_c{clip:02d}.avi"
                seeds = (seed, 101, group), (seed, 101, group, clip)
                clips.append(DemoClip(folder / name, scene, reverse, *seeds, fps=25))
                for split in range(3):
                    entry = f"{class_name}/{name}"
                    if held_out * split < group <= held_out * (split + 1):
                        test[split].append(f"{entry}\r\n")
                    else:
                        train[split].append(f"{entry} {label}\r\n")
    for split in range(3):
        for kind, lines in (("train", train), ("test", test)):
            (lists / f"{kind}list{split + 1:02d}.txt").write_bytes("".join(lines[split]).encode())
    return clips


def draw_clip(clip: DemoClip) -> None:
    """Draw one video and write it as an MPEG-4 AVI file."""
    frames = draw_frames(clip.scene, clip.group_seed, clip.clip_seed)
    if clip.reverse:
        frames = frames[::-1]
    codec = cv2.VideoWriter_fourcc(*"XVID")
    writer = cv2.VideoWriter(str(clip.path), cv2.CAP_FFMPEG, codec, clip.fps, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise OSError(f"{clip.path}: OpenCV cannot write an XVID AVI file here")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def draw_frames(
    scene: str, group_seed: tuple[int, ...], clip_seed: tuple[int, ...]
) -> list[np.ndarray]:
    """Draw the still frames of a scene.

    Args:
        scene: ``slide``, ``open``, ``spin``, or the lower-case name of an appearance class.
        group_seed: Fixes background and colours.
        clip_seed: Fixes place, size and speed.

    Returns:
        ``NUM_SOURCE_FRAMES`` RGB frames, uint8, shape (120, 160, 3).
    """
    background, colour, second = _group_look(np.random.default_rng(group_seed))
    scene_id = sum(map(ord, scene)) if scene in ("slide", "open", "spin") else 0
    rng = np.random.default_rng((*clip_seed, scene_id))
    times = np.linspace(-0.5, 0.5, NUM_SOURCE_FRAMES)
    if scene == "slide":
        paint = _slide(rng)
    elif scene == "open":
        paint = _open(rng)
    elif scene == "spin":
        paint = _spin(rng)
    else:
        paint = _drift(rng, scene)
    return [paint(background.copy(), t, colour, second) for t in times]


def _group_look(rng: np.random.Generator) -> tuple[np.ndarray, tuple, tuple]:
    """Draw the background of a film and choose two colours that stand out from it."""
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
    x, way = rng.uniform(0.42, 0.58) * WIDTH, rng.uniform(0.45, 0.65) * WIDTH
    turn = rng.uniform(0, 2 * np.pi)
    angles = turn + np.arange(10) * np.pi / 5
    radii = radius * np.where(np.arange(10) % 2, 0.5, 1.0)

    def paint(frame, t, colour, second):
        points = np.stack([x + t * way + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
        return _polygon(frame, points, colour)

    return paint


def _open(rng: np.random.Generator):
    """Grow a ring."""
    x, y = rng.uniform(0.4, 0.6) * WIDTH, rng.uniform(0.4, 0.6) * HEIGHT
    middle, growth = rng.uniform(0.22, 0.26) * HEIGHT, rng.uniform(0.24, 0.34) * HEIGHT
    thickness = rng.uniform(0.06, 0.1) * HEIGHT

    def paint(frame, t, colour, second):
        radius = middle + t * growth
        return _ring(frame, (x, y), radius, radius + thickness, colour)

    return paint


def _spin(rng: np.random.Generator):
    """Turn a bar with one broad end."""
    x, y = rng.uniform(0.4, 0.6) * WIDTH, rng.uniform(0.42, 0.58) * HEIGHT
    length, start = rng.uniform(0.32, 0.42) * HEIGHT, rng.uniform(0, 2 * np.pi)
    way = rng.uniform(1.3, 2.0) * np.pi
    outline = np.array([[-0.2, -0.1], [1.0, -0.3], [1.0, 0.3], [-0.2, 0.1]]) * length

    def paint(frame, t, colour, second):
        cos, sin = np.cos(start + t * way), np.sin(start + t * way)
        return _polygon(frame, outline @ [[cos, sin], [-sin, cos]] + [x, y], colour)

    return paint


def _drift(rng: np.random.Generator, look: str):
    """Move a shape or a textured patch slowly in any direction."""
    x, y = rng.uniform(0.42, 0.58) * WIDTH, rng.uniform(0.44, 0.56) * HEIGHT
    direction, way = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.15) * HEIGHT
    radius = rng.uniform(0.24, 0.32) * HEIGHT
    half, period = rng.uniform(0.38, 0.46) * HEIGHT, rng.uniform(0.42, 0.52) * HEIGHT

    def paint(frame, t, colour, second):
        centre = (x + t * way * np.cos(direction), y + t * way * np.sin(direction))
        if look in SHAPES:
            return _polygon(frame, SHAPES[look] * radius + centre, colour)
        return _texture(frame, look, centre, half, period, colour, second)

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
    frame: np.ndarray, look: str, centre: tuple, half: float, period: float, colour, second
) -> np.ndarray:
    """Paint a square patch whose pattern moves with it."""
    xs = np.arange(WIDTH, dtype=np.float32)[None]
    ys = np.arange(HEIGHT, dtype=np.float32)[:, None]
    dx, dy = (xs - centre[0]) / period, (ys - centre[1]) / period
    pattern = TEXTURES[look](dx, dy)
    inside = (np.abs(xs - centre[0]) < half) & (np.abs(ys - centre[1]) < half)
    frame[inside & pattern] = colour
    frame[inside & ~pattern] = second
    return frame
