"""How much of a model's accuracy is motion, and how much appearance: tests on changed clips.

Not in the paper. Each probe changes the test clips and leaves the model alone. A model that was not
trained on such clips may also fail because they are unusual, so a loss of accuracy is an upper
bound on what the model owes to what the probe removes; what is left is a lower bound.
"""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from torch import nn

from hstlib.config import TrainConfig
from hstlib.data.clips import Clips
from hstlib.data.datasets import VideoSet
from hstlib.data.flow import optical_flow
from hstlib.data.ridge import RIDGES, ridge_classes
from hstlib.data.shortcuts import SHORTCUTS, nearest_classes, read_features
from hstlib.data.store import ClipStore
from hstlib.training.evaluate import average_views, score_views
from hstlib.training.metrics import predict_classes

Pair = tuple[np.ndarray, np.ndarray]
"""Frames of a clip, uint8, (T, S, S, 3), and its flow in pixels per frame, (2, T, S, S)."""
Change = Callable[[np.ndarray, np.ndarray, str, np.random.Generator], Pair]
"""Function of frames, flow, flow method and random numbers that returns the changed clip."""

GREY, CONTRAST, GRAIN = 128, 40, 1.5
"""Mean and standard deviation of the texture's levels, and the width of its grain, in pixels."""


def _unchanged(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    return frames, flow


def _shuffled(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    changed = frames[rng.permutation(len(frames))]
    return changed, optical_flow(changed, None, method)


def _frames_shuffled_only(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    return frames[rng.permutation(len(frames))], flow


def _one_frame(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    return np.repeat(frames[len(frames) // 2][None], len(frames), axis=0), np.zeros_like(flow)


def _reversed(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    changed = np.ascontiguousarray(frames[::-1])
    return changed, optical_flow(changed, None, method)


def _no_flow(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    return frames, np.zeros_like(flow)


def _moving_texture(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    changed = move_texture(draw_texture(frames.shape[1], rng), flow)
    return changed, optical_flow(changed, None, method)


def _still_texture(frames: np.ndarray, flow: np.ndarray, method: str, rng) -> Pair:
    return move_texture(draw_texture(frames.shape[1], rng), 0 * flow), np.zeros_like(flow)


PROBES: dict[str, tuple[Change, str]] = {
    "original": (_unchanged, "clips as they are"),
    "time reversed": (_reversed, "frames in reverse order, flow computed again"),
    "frames shuffled": (_shuffled, "frames in random order, flow computed again"),
    "frames shuffled, flow kept": (_frames_shuffled_only, "frames in random order, true flow"),
    "one frame": (_one_frame, "middle frame repeated, flow 0"),
    "flow removed": (_no_flow, "true frames, flow 0"),
    "motion only": (_moving_texture, "noise moved by the clip's flow, flow computed again"),
    "neither": (_still_texture, "noise that stands still, flow 0"),
}
"""Change and description of each probe."""
ABOUT = {name: text for name, (_, text) in PROBES.items()} | SHORTCUTS | RIDGES
"""What each probe shows the model, and what each reference without a network sees, by name."""


def draw_texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth coloured noise, float32, shape (size, size, 3), around middle grey."""
    noise = rng.standard_normal((size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), GRAIN, borderType=cv2.BORDER_REFLECT)
    return GREY + CONTRAST * smooth / smooth.std()


def move_texture(texture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Move a texture along a clip's flow, so that its motion is the clip's and its look is not.

    The place that each pixel came from is followed from frame to frame, and the texture is read
    there once, so that it does not blur where it moves. Where the flow is not constant the texture
    is stretched, more in later frames; the first frame is the texture itself.

    Args:
        texture: float32, shape (S, S, 3).
        flow: Pixels per frame, shape (2, T, S, S); the last field, which leads out of the clip, is
            not used.

    Returns:
        Frames, uint8, shape (T, S, S, 3).
    """
    size = len(texture)
    x, y = np.meshgrid(*2 * [np.arange(size, dtype=np.float32)])
    origin_x, origin_y = x, y
    frames = []
    for step in flow.astype(np.float32).swapaxes(0, 1):  # (2, S, S)
        moved = cv2.remap(
            texture, origin_x, origin_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        frames.append(moved.clip(0, 255).round().astype(np.uint8))
        before = (x - step[0], y - step[1])  # backwards along the field
        displacement = np.dstack([origin_x - x, origin_y - y])
        carried = cv2.remap(
            displacement, *before, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        origin_x, origin_y = before[0] + carried[..., 0], before[1] + carried[..., 1]
    return np.stack(frames)


class ChangedClips:
    """Clips of a store, changed as they are read.

    Args:
        store: Clip store.
        change: What is done to each clip.
        seed: Seed of the random numbers; those of a video depend on its name too.
    """

    def __init__(self, store: ClipStore, change: Change, seed: int):
        self.store, self.change, self.seed = store, change, seed
        self.config = store.config

    def read_all(self, path: Path) -> Clips:
        """Read and change all clips of a video, as :meth:`ClipStore.read_all` reads them."""
        clips = self.store.read_all(path)
        rng = np.random.default_rng([self.seed, crc32(path.name.encode(errors="surrogateescape"))])
        changed = [
            self.change(frames, flow, self.config.flow, rng)
            for frames, flow in zip(clips.frames, clips.flow, strict=True)
        ]
        frames, flow = (np.stack(parts) for parts in zip(*changed, strict=True))
        return clips._replace(frames=frames, flow=flow.astype(clips.flow.dtype))


def probe(
    model: nn.Module, config: TrainConfig, data: VideoSet, store: ClipStore, seed: int = 0
) -> dict[str, np.ndarray]:
    """Classify the test videos of a split under every probe.

    Args:
        model: The model; it is put into evaluation mode.
        config: Settings that the model was trained with.
        data: The split.
        store: Clip store of its videos.
        seed: Seed of the random order and of the noise.

    Returns:
        For each name of :data:`PROBES` whether each test sample is classified correctly, bool,
        shape (test samples,). A video that cannot be read is wrong.

    Raises:
        NotFiniteError: If scores are not finite: the model has diverged.
    """
    labels = np.array([sample.label for sample in data.test])
    correct = {}
    for name, (change, _) in PROBES.items():
        changed = ChangedClips(store, change, seed)
        views = score_views(
            model, data.test, changed, crop_size=config.crop_size, num_crops=config.num_crops
        )
        correct[name] = predict_classes(average_views(views, len(data.classes))) == labels
    return correct


def without_network(data: VideoSet, store: ClipStore) -> dict[str, np.ndarray]:
    """Classify the same videos without a network, by neighbours and by ridge regression.

    Returns:
        As :func:`probe`, by the names of the references.

    Raises:
        ValueError: If no training video can be read, or the readable ones have one source only.
    """
    features, _ = read_features(data)
    labels = np.array([sample.label for sample in data.test])
    predicted = nearest_classes(data, features) | ridge_classes(data, store)
    return {name: classes == labels for name, classes in predicted.items()}
