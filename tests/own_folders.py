"""What somebody brings who has clips of their own: drawn here, for tests."""

import shutil
from pathlib import Path

from hstlib.data import demo


def draw_folders(folder: Path) -> None:
    """Draw two folders with a folder per class, and a video.

    ``my-clips`` has the classes close and slide_left, ``other-clips`` has disc and Close, whose
    clips are those of close.
    """
    for clip in demo._write_hmdb51(folder / "drawn", 0):
        name, number = clip.path.parent.name, int(clip.path.name[4:6])
        if name in ("close", "slide_left", "disc") and number < 6 and clip.path.stem[-1] in "01":
            demo.draw_clip(clip)
            owner = "my-clips" if name != "disc" else "other-clips"
            target = folder / owner / name
            target.mkdir(parents=True, exist_ok=True)
            clip.path.rename(target / clip.path.name)
    shutil.copytree(folder / "my-clips/close", folder / "other-clips/Close")
    shutil.copy(next((folder / "my-clips/close").iterdir()), folder / "clip.avi")
