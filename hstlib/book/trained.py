r"""A trained HST of demo size, and clips to look at what it computes inside.

The book shows maps of trained weights without training: the weights of one run on the drawn corpus
are part of the repository. These commands make them again:

    python -m hstlib train --dataset demo-hmdb51 --backbone demo --size 48 --batch-size 16 \
        --clips-per-video 2 --schedule cosine --learning-rate 0.005 --epochs 3
    python -m hstlib.book.trained <its last.safetensors> <its top-1 on the test videos>
"""

import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from hstlib.config import ClipConfig, project_path
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.demo import draw_frames
from hstlib.data.flow import optical_flow
from hstlib.model import HST
from hstlib.model.inputs import NUM_FRAMES
from hstlib.training.checkpoint import load_checkpoint
from hstlib.training.sealed import load_sealed, save_sealed

WEIGHTS = "results/published/demo/hst.safetensors"
SIZE = 48
"""Height and width of the clips that the published weights were trained on, in pixels."""
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
            project root. Empty: the published weights, trained on the drawn HMDB51-like corpus.

    Raises:
        ValueError: If the checkpoint is unusable or is not one of HST.
    """
    if checkpoint:
        path = project_path(checkpoint)
        model, _, classes = load_checkpoint(path)
        if not isinstance(model, HST):
            raise ValueError(f"{path} is a {type(model).__name__}; use a checkpoint of HST")
        return model.double(), classes
    metadata, tensors, _ = load_sealed(project_path(WEIGHTS))
    published = HST(len(metadata["classes"]), metadata["backbone"])
    published.load_state_dict(tensors)
    return published.double().eval(), metadata["classes"]


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
        clips = cut_clips(project_path(video), ClipConfig(size=SIZE, clips_per_video=1))
        if reverse:
            frames = np.ascontiguousarray(clips.frames[0][::-1])
            return seen_clip(frames, optical_flow(frames))
        return seen_clip(clips.frames[0], clips.flow[0].astype(np.float32))
    drawn = draw_frames(scene, (seed, 51, FILM), (seed, 51, FILM, 0))[:: -2 if reverse else 2]
    resized = [cv2.resize(f, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for f in drawn]
    frames = np.stack(resized[:NUM_FRAMES])
    return seen_clip(frames, optical_flow(frames, resized[NUM_FRAMES]))


def seen_clip(frames: np.ndarray, motion: np.ndarray) -> SeenClip:
    """Return frames (16, S, S, 3) and flow (2, 16, S, S) with the model's inputs."""
    clips = normalise(torch.from_numpy(frames))[None].double()
    return SeenClip(frames, motion, clips, torch.from_numpy(motion)[None].double())


def publish_weights(checkpoint: Path, test_top1: float) -> None:
    """Write the weights of a run to :data:`WEIGHTS`, with its classes and what it reached.

    Args:
        checkpoint: A .safetensors file of a run.
        test_top1: Top-1 accuracy of the run on its test videos, a fraction.
    """
    model, config, classes = load_checkpoint(checkpoint)
    metadata = {
        "backbone": config.backbone,
        "classes": classes,
        "run": config.run_id,
        "epochs": config.epochs,
        "test_top1": test_top1,
    }
    save_sealed(project_path(WEIGHTS), model.state_dict(), metadata)


if __name__ == "__main__":
    publish_weights(Path(sys.argv[1]), float(sys.argv[2]))
