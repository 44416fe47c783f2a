"""Demo corpora: drawn videos with known answers, in the layouts of HMDB51 and UCF101.

Half of the classes of a corpus differ only in motion: a pair such as ``slide_left`` and
``slide_right`` has the same still frames in opposite order. The other half differ only in
appearance: the same slow drift of another shape or texture. Every clip belongs to a group (the film
it was "cut from") that fixes background and colours, and no group is on both sides of a split, as
in the real data sets.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2

from hstlib.config import data_root, project_path
from hstlib.data import scenes
from hstlib.data.scenes import HEIGHT, WIDTH, draw_frames
from hstlib.files import complete, lock, remove, remove_leftovers
from hstlib.processes import WorkerError, map_in_processes

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
    """One video to draw.

    Attributes:
        path: File to write.
        scene: Scene, as in :func:`draw_frames`.
        reverse: Whether the frames are in reverse order.
        group_seed: Seed of background and colours.
        clip_seed: Seed of place, size and speed.
        fps: Frame rate of the file, in Hz.
    """

    path: Path
    scene: str
    reverse: bool
    group_seed: tuple[int, ...]
    clip_seed: tuple[int, ...]
    fps: float


def class_kinds(dataset: str) -> dict[str, str]:
    """Return ``motion`` or ``appearance`` for each class of a demo corpus."""
    _check_name(dataset)
    motion = {name: "motion" for pair in MOTION_PAIRS[dataset].values() for name in pair}
    return motion | {name: "appearance" for name in APPEARANCE[dataset]}


def reverse_classes(dataset: str) -> dict[str, str]:
    """Return, for each motion class, the class with the same still frames in opposite order."""
    _check_name(dataset)
    pairs = MOTION_PAIRS[dataset].values()
    return {a: b for a, b in pairs} | {b: a for a, b in pairs}


def _check_name(dataset: str) -> None:
    if dataset not in MOTION_PAIRS:
        raise ValueError(f"demo corpus {dataset!r} is unknown; use one of {[*MOTION_PAIRS]}")


def make_demo(
    dataset: str, root: str | Path | None = None, seed: int = 0, workers: int | None = None
) -> Path:
    """Draw a demo corpus; a finished one with the same seed is kept, any other is replaced.

    Args:
        dataset: ``demo-hmdb51`` or ``demo-ucf101``.
        root: Folder of the corpus, absolute or relative to the project. None: ``demo/hmdb51`` or
            ``demo/ucf101`` under the data root.
        seed: Seed of the corpus; the same seed gives the same files, byte for byte.
        workers: Number of processes; None: one per core.

    Returns:
        Folder of the corpus, with the layout of the official archive and split lists.

    Raises:
        ValueError: If the name is unknown, or ``root`` holds anything but a demo corpus.
        OSError: If a video cannot be written.
        RuntimeError: If worker processes cannot start, or one of them crashes.
    """
    _check_name(dataset)
    if seed < 0:
        raise ValueError(f"seed is {seed}; use 0 or more")
    root = data_root() / dataset.replace("-", "/") if root is None else project_path(root)
    if root.exists() and not (root / MARKER).is_file():
        raise ValueError(f"{root} exists and is not a demo corpus; move it away")
    code = b"".join(Path(module).read_bytes() for module in (__file__, scenes.__file__))
    identity = {"dataset": dataset, "seed": seed, "code": hashlib.sha256(code).hexdigest()[:12]}
    with lock(root):
        if _read_identity(root) != identity:
            _draw_corpus(root, identity, workers)
    return root


def _read_identity(root: Path) -> dict | None:
    """Return the name, seed and code of the corpus in a folder; None without a corpus."""
    try:
        return json.loads((root / MARKER).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _draw_corpus(root: Path, identity: dict, workers: int | None) -> None:
    """Draw a whole corpus next to its folder, then replace the folder."""
    write_lists = _write_hmdb51 if identity["dataset"] == "demo-hmdb51" else _write_ucf101
    remove_leftovers(root)
    with complete(root) as unfinished:
        clips = write_lists(unfinished, identity["seed"])
        for _, error in map_in_processes(draw_clip, clips, workers):
            if isinstance(error, WorkerError):
                raise error
        (unfinished / MARKER).write_text(json.dumps(identity))
        remove(root)


def _class_scenes(dataset: str) -> list[tuple[str, str, bool]]:
    """Return, for each class, its name, its scene, and whether the frames are in reverse order."""
    moving = []
    for scene, (forwards, backwards) in MOTION_PAIRS[dataset].items():
        moving += [(forwards, scene, False), (backwards, scene, True)]
    return moving + [(name, name.lower(), False) for name in APPEARANCE[dataset]]


def _write_hmdb51(root: Path, seed: int) -> list[DemoClip]:
    """Write lists and folders like HMDB51's, and return the clips to draw.

    Each class has 70 training, 30 test and some unused clips in each split.
    """
    num_films, clips_per_film, num_splits = 21, 5, 3
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    clips = []
    for class_name, scene, reverse in _class_scenes("demo-hmdb51"):
        folder = root / "hmdb51_org" / class_name
        folder.mkdir(parents=True)
        lines: list[list[str]] = [[] for _ in range(num_splits)]
        for film, number in product(range(num_films), range(clips_per_film)):
            name = f"Film{film:02d}_{class_name}_f_nm_np1_fr_goo_{number}.avi"
            seeds = (seed, 51, film), (seed, 51, film, number)
            clips.append(DemoClip(folder / name, scene, reverse, *seeds, fps=30))
            for split in range(num_splits):
                tag = _hmdb51_tag((film - 6 * split) % num_films)
                lines[split].append(f"{name} {tag} \n")
        for split in range(num_splits):
            (lists / f"{class_name}_test_split{split + 1}.txt").write_text("".join(lines[split]))
    return clips


def _hmdb51_tag(position: int) -> int:
    """Return the tag of a film: 2 (test) for 6 films, 1 (train) for 14, 0 (unused) for one."""
    return 2 if position < 6 else 1 if position < 20 else 0


def _write_ucf101(root: Path, seed: int) -> list[DemoClip]:
    """Write lists and folders like UCF101's, and return the clips to draw.

    Each split tests 28 % of the groups. There are twice as many groups as in UCF101, because with
    fewer backgrounds and colours a model does not generalise from them to new ones.
    """
    num_groups, clips_per_group, test_groups, num_splits = 50, 2, 14, 3
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    classes = sorted(_class_scenes("demo-ucf101"))
    clips = []
    lines: dict[str, list[str]] = {"classInd": []}
    lines |= {f"{part}list{n + 1:02d}": [] for part in ("train", "test") for n in range(num_splits)}
    for label, (class_name, scene, reverse) in enumerate(classes, start=1):
        lines["classInd"].append(f"{label} {class_name}")
        folder = root / "UCF-101" / class_name
        folder.mkdir(parents=True)
        for group, number in product(range(1, num_groups + 1), range(1, clips_per_group + 1)):
            name = f"v_{class_name}_g{group:02d}_c{number:02d}.avi"
            seeds = (seed, 101, group), (seed, 101, group, number)
            clips.append(DemoClip(folder / name, scene, reverse, *seeds, fps=25))
            for split in range(num_splits):
                if test_groups * split < group <= test_groups * (split + 1):
                    lines[f"testlist{split + 1:02d}"].append(f"{class_name}/{name}")
                else:
                    lines[f"trainlist{split + 1:02d}"].append(f"{class_name}/{name} {label}")
    for list_name, entries in lines.items():
        text = "".join(f"{entry}\r\n" for entry in entries)
        (lists / f"{list_name}.txt").write_bytes(text.encode())
    return clips


def draw_clip(clip: DemoClip) -> None:
    """Draw one video and write it as an MPEG-4 AVI file.

    Raises:
        OSError: If OpenCV cannot write the file.
    """
    frames = draw_frames(clip.scene, clip.group_seed, clip.clip_seed)
    if clip.reverse:
        frames = frames[::-1]
    codec = cv2.VideoWriter_fourcc(*"XVID")
    writer = cv2.VideoWriter(str(clip.path), cv2.CAP_FFMPEG, codec, clip.fps, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise OSError(
            f"{clip.path}: OpenCV cannot write an XVID AVI file; check that the folder is writable"
        )
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
