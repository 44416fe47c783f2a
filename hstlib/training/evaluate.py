"""Scores of a model on videos.

A view is one crop of one clip. A video's score is the mean over its views. A video that cannot be
read has no views, and counts as wrong.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from hstlib.config import ClipConfig
from hstlib.data.augment import evaluation_views
from hstlib.data.clips import normalise
from hstlib.data.container import VideoError
from hstlib.data.datasets import Sample
from hstlib.data.flow import optical_flow
from hstlib.data.progress import SECONDS_PER_LINE
from hstlib.data.store import ClipStore
from hstlib.training.metrics import (
    clip_accuracy,
    confusion_matrix,
    expected_calibration_error,
    mean_class_accuracy,
    predict_classes,
    reliability,
    top_k_accuracy,
)
from hstlib.training.sealed import NotFiniteError

log = logging.getLogger("hstlib")

BATCH_SIZE = 16  # views

NumberedClip = tuple[int, np.ndarray, np.ndarray]
"""Index of the sample, frames (T, H, W, 3) and flow (2, T, H, W)."""


def score_clips(model: nn.Module, frames: Tensor, flow: Tensor) -> Tensor:
    """Return class probabilities of clips.

    Args:
        model: The model, in evaluation mode.
        frames: RGB frames, uint8, shape (B, T, H, W, 3).
        flow: Optical flow in pixels per frame, shape (B, 2, T, H, W).

    Returns:
        Probabilities, shape (B, num_classes), on the CPU.
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
    crop_size: int = 0,
    num_crops: int = 1,
) -> list[np.ndarray | None]:
    """Return class probabilities of every view of every video.

    Args:
        model: The model; it is put into evaluation mode.
        samples: Videos to score; a sample with a clip index contributes that clip only.
        store: Clip store of the videos.
        batch_size: Maximum number of views per forward pass; about as many are held in memory.
        shuffle_time_seed: If set, the frames of every clip are shuffled with this seed and their
            flow is computed again: a control that keeps appearance and destroys motion.
        crop_size: Height and width of the crops, in pixels. 0: whole frames.
        num_crops: Crops per clip, 1 or 3; see :func:`hstlib.data.augment.evaluation_views`.

    Returns:
        One float32 array per video, shape (clips * num_crops, num_classes), ordered by clip, then
        by crop. None for a video that cannot be read.

    Raises:
        ValueError: If the batch size is not positive.
    """
    clips = _read_clips(samples, store)
    if shuffle_time_seed is not None:
        clips = _shuffle_time(clips, store.config, np.random.default_rng(shuffle_time_seed))
    views: list[list[np.ndarray]] = [[] for _ in samples]
    for index, probabilities in _score_each(model, clips, batch_size, crop_size, num_crops):
        views[index].append(probabilities)
    return [np.stack(video_views) if video_views else None for video_views in views]


def average_views(views: Sequence[np.ndarray | None], num_classes: int) -> np.ndarray:
    """Return the mean over each video's views, float32, shape (N, num_classes).

    The row of a video without views (None) is NaN.

    Raises:
        NotFiniteError: If a view's scores are not finite: the model has diverged.
    """
    scores = np.full((len(views), num_classes), np.nan, np.float32)
    for number, (row, video_views) in enumerate(zip(scores, views, strict=True), start=1):
        if video_views is not None:
            row[:] = _mean(video_views, f"video {number} of {len(views)}")
    return scores


def _mean(video_views: np.ndarray, video: str) -> np.ndarray:
    """Return the mean (num_classes,) over the views of a video (views, num_classes)."""
    if not np.isfinite(video_views).all():
        raise NotFiniteError(f"the model's scores of {video} are not finite: it has diverged")
    return video_views.mean(0)


def _read_clips(samples: Sequence[Sample], store: ClipStore) -> Iterator[NumberedClip]:
    """Yield the clips of each sample, without those of a video that cannot be read.

    Every half minute, the number of videos is logged.
    """
    logged = time.monotonic()
    for index, sample in enumerate(samples):
        if time.monotonic() - logged >= SECONDS_PER_LINE:
            logged = time.monotonic()
            log.info("scored %d of %d videos", index, len(samples))
        try:
            frames, flow, *_ = store.read_all(sample.path)
        except VideoError:
            continue
        clips = range(len(frames)) if sample.clip_index is None else [sample.clip_index]
        for clip in clips:
            yield index, frames[clip], flow[clip]


def _shuffle_time(
    clips: Iterable[NumberedClip], config: ClipConfig, rng: np.random.Generator
) -> Iterator[NumberedClip]:
    """Shuffle the frames of each clip and compute their flow."""
    for index, frames, _ in clips:
        shuffled = frames[rng.permutation(len(frames))]
        yield index, shuffled, optical_flow(shuffled, None, config.flow).astype(np.float16)


def _score_each(
    model: nn.Module, clips: Iterable[NumberedClip], batch_size: int, crop_size: int, num_crops: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield sample index and probabilities (num_classes,) of every view, in full batches."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, it must be positive")
    model.eval()
    views = (
        (index, *view)
        for index, frames, flow in clips
        for view in zip(
            *evaluation_views(frames[None], flow[None], crop_size, num_crops), strict=True
        )
    )
    while batch := list(islice(views, batch_size)):
        indices, frames, flow = zip(*batch, strict=True)
        stacked = torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(flow))
        yield from zip(indices, score_clips(model, *stacked).numpy(), strict=True)


def summarise(
    scores: np.ndarray,
    labels: Sequence[int],
    views: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float | int]:
    """Compute the metrics of a test set; :mod:`hstlib.training.metrics` defines them.

    Args:
        scores: Probabilities, shape (N, num_classes). Unreadable videos are rows of NaN.
        labels: N class indices.
        views: Scores of the single views, from :func:`score_views`; adds ``clip_top1``.

    Returns:
        Fractions ``top1``, ``top5``, ``mean_class``, ``clip_top1`` (with ``views`` only) and
        ``ece`` (if any video can be read); counts ``videos`` and, among them, ``unreadable``. No
        value is NaN.

    Raises:
        ValueError: If there are no videos, the numbers of rows and labels differ, or a label is
            not a class index.
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
