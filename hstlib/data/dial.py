"""A drawn corpus with a dial: the share of its videos whose look says which class they are.

Not in the paper. A share of the videos are cut from films, and the videos of a film share
background and colours. Each of the other videos is its own source and has a look of its own. At 0
no random split leaks, and at 1 nearly every test video of a random split has a relative in
training. A film belongs to one class, so its look gives the class away to whoever has seen the
film; if it is not tied to a class, its look says nothing.

The three splits of the list keep sources apart. Each tests a fifth of the videos, as the random
protocols do, so that all protocols train on equally many videos. The corpus is drawn for
``benchmarks/leak_dial.py`` and is not among those that ``python -m hstlib demo`` draws.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from hstlib.config import LIST_NAME, data_root, project_path
from hstlib.data import scenes
from hstlib.data.demo import APPEARANCE, MARKER, DemoClip, draw_clip
from hstlib.data.lists import ListedVideo, write_list
from hstlib.data.naming import NUM_FOLDS
from hstlib.files import complete, lock, remove_leftovers
from hstlib.processes import WorkerError, map_in_processes

CLASSES = APPEARANCE["demo-hmdb51"]  # shapes that drift: disc, square, triangle and cross
FILMS = 5  # of each class; each is a fold, and the first three folds are the splits' test sets
CLIPS_PER_FILM = 16


def dial_name(shared: float, tied: bool = True) -> str:
    """Return the name of a corpus, such as ``dial-75`` or ``dial-100-untied``."""
    return f"dial-{100 * shared:.0f}{'' if tied else '-untied'}"


def make_dial(
    shared: float,
    tied: bool = True,
    root: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Draw a corpus; a finished one is kept.

    Args:
        shared: Share of the videos that are cut from films, a multiple of 0.25 in [0, 1].
        tied: Whether a film belongs to one class; if not, its videos are of different classes.
        root: Folder of the corpus. None: ``demo/<name>`` under the data root.
        seed: Seed of the corpus; the same seed gives the same files, byte for byte.
        workers: Number of processes; None: one per core.

    Returns:
        Folder of the corpus, with a list for ``load_dataset("folder", ...)``.

    Raises:
        ValueError: If the share is not allowed, or the folder holds anything else.
        OSError: If a video cannot be written.
        RuntimeError: If worker processes cannot start, or one of them crashes.
    """
    if shared not in (0, 0.25, 0.5, 0.75, 1):
        raise ValueError(f"shared is {shared}; use 0, 0.25, 0.5, 0.75 or 1")
    name = dial_name(shared, tied)
    root = data_root() / "demo" / name if root is None else project_path(root)
    code = b"".join(Path(module).read_bytes() for module in (__file__, scenes.__file__))
    marker = {"dataset": name, "seed": seed, "code": hashlib.sha256(code).hexdigest()[:12]}
    with lock(root):
        if not root.exists():
            _draw(root, shared, tied, seed, workers, json.dumps(marker))
        elif not (root / MARKER).is_file() or json.loads((root / MARKER).read_text()) != marker:
            raise ValueError(f"{root} exists and is not this corpus of this version; remove it")
    return root


def _draw(
    root: Path, shared: float, tied: bool, seed: int, workers: int | None, marker: str
) -> None:
    remove_leftovers(root)
    with complete(root) as unfinished:
        listed, to_draw = [], []
        for video, clip in dial_videos(unfinished, shared, tied, seed):
            video.path.parent.mkdir(parents=True, exist_ok=True)
            listed.append(video)
            to_draw.append(clip)
        for _, error in map_in_processes(draw_clip, to_draw, workers):
            if isinstance(error, WorkerError):
                raise error
        write_list(unfinished / LIST_NAME, listed)
        (unfinished / MARKER).write_text(marker)


def dial_videos(
    root: Path, shared: float, tied: bool, seed: int
) -> Iterator[tuple[ListedVideo, DemoClip]]:
    """Yield the row in the list and the drawing of every video; nothing is written.

    Args:
        root: Folder of the corpus.
        shared: Share of the videos that are cut from films.
        tied: Whether a film belongs to one class.
        seed: Seed of the corpus.
    """
    per_class = FILMS * CLIPS_PER_FILM
    for label, class_name in enumerate(CLASSES):
        for number in range(per_class):
            # films are cut from this order of all videos: by class, or with the classes in turn
            place = label * per_class + number if tied else number * len(CLASSES) + label
            film, clip = divmod(place, CLIPS_PER_FILM)
            source = f"film{film:02d}"
            if clip >= shared * CLIPS_PER_FILM:  # a source of its own, in the same fold
                source += f"own{clip:02d}"
            path = root / class_name / f"{source}_{clip:02d}.avi"
            roles = tuple("test" if film % FILMS == fold else "train" for fold in range(NUM_FOLDS))
            look = int(hashlib.sha256(source.encode()).hexdigest()[:8], 16)
            seeds = (seed, look), (seed, label, number)
            yield (
                ListedVideo(path, class_name, source, roles),
                DemoClip(path, class_name, False, *seeds, fps=30),
            )
