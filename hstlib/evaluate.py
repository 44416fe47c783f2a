"""Scores of a model on videos: view scores averaged per video, over a strict denominator."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hstlib.augment import evaluation_views
from hstlib.config import ClipConfig, TrainConfig
from hstlib.datasets import Sample, normalise
from hstlib.flow import optical_flow
from hstlib.metrics import (
    clip_accuracy,
    confusion_matrix,
    expected_calibration_error,
    mean_class_accuracy,
    predict_classes,
    reliability,
    top_k_accuracy,
)
from hstlib.store import ClipStore, cut_clips
from hstlib.video import VideoError

BATCH_SIZE = 16

NumberedClip = tuple[int, np.ndarray, np.ndarray]
"""Which sample it is of, frames (T, H, W, 3) and flow (2, T, H, W)."""


def score_clips(model: nn.Module, frames: Tensor, flow: Tensor) -> Tensor:
    """Return class probabilities of clips.

    Args:
        model: In evaluation mode.
        frames: RGB uint8, shape (B, T, H, W, 3).
        flow: Pixels per frame, shape (B, 2, T, H, W).

    Returns:
        Probabilities, shape (B, classes), on the CPU.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = model(normalise(frames.to(device)), flow.to(device).float())
    return logits.softmax(-1).cpu()


def score_views(
    model: nn.Module,
    samples: Sequence[Sample],
    store: ClipStore,
    batch_size: int = BATCH_SIZE,
    shuffle_time_seed: int | None = None,
    crop: int = 0,
    crops: int = 1,
) -> list[np.ndarray | None]:
    """Return class probabilities of every view of videos: each window, and of it each crop.

    Args:
        model: Put into evaluation mode.
        samples: What to score; of one that names a window, that clip alone.
        store: Holds their clips.
        batch_size: Most views that go through the model at once; about as many are in memory.
        shuffle_time_seed: Shuffle the frames of every clip by this seed and compute the flow
            anew: a control in which motion is destroyed and appearance kept.
        crop: Height and width of the crops, in pixels; 0: whole frames.
        crops: 1 or 3, see :func:`hstlib.augment.evaluation_views`.

    Returns:
        Of each video float32, shape (windows x crops, classes), the crops of the first window
        first; none for a video that cannot be read.

    Raises:
        ValueError: If the batch size is not positive.
    """
    clips = _read_clips(samples, store)
    if shuffle_time_seed is not None:
        clips = _shuffle_time(clips, store.config, np.random.default_rng(shuffle_time_seed))
    rows: list[list[np.ndarray]] = [[] for _ in samples]
    for number, row in _score_each(model, clips, batch_size, crop, crops):
        rows[number].append(row)
    return [np.stack(views) if views else None for views in rows]


def score_videos(
    model: nn.Module,
    samples: Sequence[Sample],
    store: ClipStore,
    batch_size: int = BATCH_SIZE,
    shuffle_time_seed: int | None = None,
    crop: int = 0,
    crops: int = 1,
) -> np.ndarray:
    """Return class probabilities of videos: of each, the mean of its views.

    The arguments are those of :func:`score_views`.

    Returns:
        float32, shape (N, classes). The row of a video that cannot be read is NaN.
    """
    views = score_views(model, samples, store, batch_size, shuffle_time_seed, crop, crops)
    width = next((view.shape[1] for view in views if view is not None), None)
    return average_views(views, width or _num_classes(model, store.config, crop))


def average_views(views: Sequence[np.ndarray | None], num_classes: int) -> np.ndarray:
    """Return the mean of each video's views, float32, shape (N, classes); NaN where none."""
    scores = np.full((len(views), num_classes), np.nan, np.float32)
    for row, view in zip(scores, views, strict=True):
        if view is not None:
            row[:] = view.mean(0)
    return scores


def _num_classes(model: nn.Module, config: ClipConfig, crop: int) -> int:
    """Ask the model for the scores of an empty clip."""
    frames, side = config.num_frames, crop or config.size
    clip = torch.zeros(1, frames, side, side, 3, dtype=torch.uint8)
    return score_clips(model, clip, torch.zeros(1, 2, frames, side, side)).shape[1]


def _read_clips(samples: Sequence[Sample], store: ClipStore) -> Iterator[NumberedClip]:
    """Yield the clips that each sample stands for; nothing for one that cannot be read."""
    for number, sample in enumerate(samples):
        try:
            frames, flow, _ = store.read_all(sample.path)
        except VideoError:
            continue
        windows = range(len(frames)) if sample.window is None else [sample.window]
        for window in windows:
            yield number, frames[window], flow[window]


def _shuffle_time(
    clips: Iterable[NumberedClip], config: ClipConfig, rng: np.random.Generator
) -> Iterator[NumberedClip]:
    """Put the frames of each clip into a random order and compute their flow."""
    for number, frames, _ in clips:
        shuffled = frames[rng.permutation(len(frames))]
        yield number, shuffled, optical_flow(shuffled, None, config.flow).astype(np.float16)


def _score_each(
    model: nn.Module, clips: Iterable[NumberedClip], batch_size: int, crop: int, crops: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and probabilities (classes,) of every view, scored in full batches."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, it must be positive")
    model.eval()
    views = (
        (number, *view)
        for number, frames, flow in clips
        for view in zip(*evaluation_views(frames[None], flow[None], crop, crops), strict=True)
    )
    while batch := list(islice(views, batch_size)):
        numbers, frames, flow = zip(*batch, strict=True)
        stacked = torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(flow))
        yield from zip(numbers, score_clips(model, *stacked).numpy(), strict=True)


def summarise(
    scores: np.ndarray,
    labels: Sequence[int],
    views: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float | int]:
    """Judge the scores of videos; see :mod:`hstlib.metrics` for those that cannot be read.

    Args:
        scores: Probabilities, shape (N, classes); NaN: unreadable.
        labels: N class indices.
        views: Of :func:`score_views`, if the single views are to be judged too.

    Returns:
        ``top1``, ``top5``, ``mean_class``, ``clip_top1`` (with views only) and ``ece`` (if any
        video can be read) as fractions; and how many ``videos`` they stand on, of which
        ``unreadable``. No value is NaN.

    Raises:
        ValueError: If there are no videos, numbers of rows and labels differ, or a label is no
            class.
    """
    summary: dict[str, float | int] = {
        "top1": top_k_accuracy(scores, labels, 1),
        "top5": top_k_accuracy(scores, labels, 5),
    }
    confusion = confusion_matrix(labels, predict_classes(scores), scores.shape[1])
    summary["mean_class"] = mean_class_accuracy(confusion)
    if views is not None:
        summary["clip_top1"] = clip_accuracy(views, labels)
    unreadable = int(confusion[:, -1].sum())
    if unreadable < len(labels):
        summary["ece"] = expected_calibration_error(reliability(scores, labels))
    return summary | {"videos": len(labels), "unreadable": unreadable}


def predict_video(model: nn.Module, path: Path, config: TrainConfig) -> np.ndarray:
    """Classify one video file.

    Args:
        model: Put into evaluation mode.
        path: The file.
        config: Of the model's training: how clips are cut and cropped.

    Returns:
        Probabilities, shape (classes,), averaged over the clips and crops.

    Raises:
        hstlib.video.VideoError: If the file cannot be used.
    """
    frames, flow, _ = cut_clips(path, config.clip)
    clips = zip(repeat(0), frames, flow, strict=False)
    views = _score_each(model, clips, BATCH_SIZE, config.augment.crop, config.crops)
    return np.stack([row for _, row in views]).mean(0)
