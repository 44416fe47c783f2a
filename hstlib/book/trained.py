"""A trained HST of demo size, and clips to look at what it computes inside.

The weights are those of one run of ``make book``. They are not part of the repository: where the
run is missing, it is trained once, by ``python -m hstlib.book.trained``.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from hstlib.config import TrainConfig, project_path, project_root
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.demo import draw_frames, make_demo
from hstlib.data.flow import optical_flow
from hstlib.model import HST
from hstlib.model.inputs import NUM_FRAMES
from hstlib.training.checkpoint import load_checkpoint
from hstlib.training.experiment import evaluated_checkpoint, run_experiment
from hstlib.training.plan import parse_plan, planned_runs, read_plan
from hstlib.training.plan_progress import FINISHED, run_state

PLAN = "workflow/params/demo.yaml"
"""The plan of ``make book``."""
SIZE = 32
"""Height and width of the clips that this run is trained on, in pixels."""
FILM = 40
"""Number of a film (background and colours) that no drawn corpus has."""


class SeenClip(NamedTuple):
    """One clip as a picture and as the model's input.

    Attributes:
        frames: RGB uint8, shape (16, S, S, 3).
        motion: Pixels per frame, float32, shape (2, 16, S, S).
        clips: Normalised RGB, float64, shape (1, 3, 16, S, S).
        flow: ``motion`` as a float64 batch, shape (1, 2, 16, S, S).
    """

    frames: np.ndarray
    motion: np.ndarray
    clips: Tensor
    flow: Tensor


def load_trained(checkpoint: str = "") -> tuple[HST, list[str]]:
    """Load a trained HST in float64, for evaluation, and the names of its classes.

    Args:
        checkpoint: A .safetensors file of ``python -m hstlib train``; a relative path starts at the
            project root. Empty: that of :func:`book_run`, which is trained first if it is missing.

    Raises:
        ValueError: If the checkpoint is unusable or is not one of HST, or the run cannot be
            trained.
    """
    path = checkpoint_path(checkpoint)
    model, _, classes = load_checkpoint(path)
    if not isinstance(model, HST):
        raise ValueError(f"{path} is a {type(model).__name__}; use a checkpoint of HST")
    return model.double(), classes


def checkpoint_path(checkpoint: str = "") -> Path:
    """Return the file that :func:`load_trained` loads; the default one is made if missing."""
    return project_path(checkpoint) if checkpoint else _train_once()


def book_run() -> tuple[TrainConfig, Path]:
    """Return the run whose weights the chapters show, and the folder of all runs of its plan."""
    content = read_plan(project_path(PLAN))
    run = next(run for run in planned_runs(content).values() if run.model == "hst")
    return run, project_path(parse_plan(content).build) / "results"


def _train_once() -> Path:
    """Train :func:`book_run` if it is not finished, and return its checkpoint.

    A process of its own has no default data type of a notebook, and one thread, as in the workflow,
    so that the weights do not depend on who trains them.
    """
    run, results = book_run()
    if run_state(run, results) != FINISHED:
        command = [sys.executable, "-m", "hstlib.book.trained"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=project_root(), env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return evaluated_checkpoint(run, results)


def untrained(model: HST, clip: SeenClip, seed: int = 0) -> HST:
    """Return a model of the same size with random weights, its batch norms set by one clip.

    Args:
        model: Model whose size is copied; the other one has the demo backbone, too.
        clip: Clip that gives the batch norms their statistics.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        other = HST(model.head[-1].out_features, "demo").double()
        for part in other.modules():
            if hasattr(part, "momentum"):
                part.momentum = None  # the next pass alone sets the statistics
        other(clip.clips, clip.flow)
    return other.eval()


def load_clip(
    video: str = "", scene: str = "slide", seed: int = 0, reverse: bool = False
) -> SeenClip:
    """Load one clip of 16 frames, from a video or drawn.

    Args:
        video: Video file; a relative path starts at the project root. Empty: a drawn clip, of
            :data:`FILM`.
        scene: Scene to draw, as in :func:`hstlib.data.scenes.draw_frames`.
        seed: Seed of the drawing.
        reverse: Play the frames backwards, which makes ``slide_left`` of ``slide_right``.

    Raises:
        VideoError: If the video cannot be used.
    """
    if video:
        clips = cut_clips(project_path(video), book_run()[0].clip)
        if reverse:
            frames = np.ascontiguousarray(clips.frames[0][::-1])
            return seen_clip(frames, optical_flow(frames))
        return seen_clip(clips.frames[0], clips.flow[0].astype(np.float32))
    return _seen_first(_drawn(scene, seed)[:: -2 if reverse else 2])


def turned_clip(scene: str, direction: int, every: int, seed: int) -> SeenClip:
    """Draw a clip whose motion has a chosen direction and speed.

    Args:
        scene: Scene to draw, as in :func:`hstlib.data.scenes.draw_frames`.
        direction: Angle by which the pictures are turned, clockwise, in degrees: with 0 the star of
            ``slide`` moves to the right, with 90 down.
        every: Take every frame drawn, 1, or every second one, 2.
        seed: Seed of the drawing.
    """
    middle = (SIZE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -direction, 1.0)
    turned = [
        cv2.warpAffine(frame, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
        for frame in _drawn(scene, seed)[::every][: NUM_FRAMES + 1]
    ]
    return _seen_first(np.stack(turned))


def _seen_first(pictures: np.ndarray) -> SeenClip:
    """Return the clip of the first frames; the flow of its last leads to the one after it."""
    frames = np.ascontiguousarray(pictures[:NUM_FRAMES])
    return seen_clip(frames, optical_flow(frames, pictures[NUM_FRAMES]))


def _drawn(scene: str, seed: int) -> np.ndarray:
    """Draw a scene of :data:`FILM`: all frames, RGB uint8, shape (44, S, S, 3)."""
    drawn = draw_frames(scene, (seed, 51, FILM), (seed, 51, FILM, 0))
    return np.stack([cv2.resize(f, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for f in drawn])


def seen_clip(frames: np.ndarray, motion: np.ndarray) -> SeenClip:
    """Return frames (16, S, S, 3) and flow (2, 16, S, S) with the model's inputs."""
    clips = normalise(torch.from_numpy(frames))[None].double()
    return SeenClip(frames, motion, clips, torch.from_numpy(motion)[None].double())


if __name__ == "__main__":
    settings, folder = book_run()
    make_demo(settings.dataset)
    run_experiment(settings, folder)
