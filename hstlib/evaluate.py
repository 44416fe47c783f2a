"""Scores of a model on videos: clip scores averaged per video, over a strict denominator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hstlib.augment import evaluation_views
from hstlib.config import ClipConfig, TrainConfig
from hstlib.datasets import Sample, normalise
from hstlib.flow import optical_flow
from hstlib.metrics import top_k_accuracy
from hstlib.store import ClipStore, cut_clips


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


def score_videos(
    model: nn.Module,
    samples: Sequence[Sample],
    store: ClipStore,
    batch_size: int = 16,
    shuffle_time_seed: int | None = None,
    crop: int = 0,
    crops: int = 1,
) -> np.ndarray:
    """Return class probabilities of videos, averaged over the clips and crops of each.

    Args:
        model: Put into evaluation mode.
        samples: What to score; of one that names a window, that clip alone.
        store: Holds their clips.
        batch_size: Most clips that go through the model at once.
        shuffle_time_seed: Shuffle the frames of every clip by this seed and compute the flow
            anew: a control in which motion is destroyed and appearance kept.
        crop: Height and width of the crops, in pixels; 0: whole frames.
        crops: 1 or 3, see :func:`hstlib.augment.evaluation_views`.

    Returns:
        float32, shape (N, classes). The row of a video that cannot be read is NaN.
    """
    model.eval()
    scores: list[np.ndarray] = []
    readable = [s for s in samples if s.path in store]
    rng = None if shuffle_time_seed is None else np.random.default_rng(shuffle_time_seed)
    per_step = max(1, batch_size // (store.num_windows * crops))
    for begin in range(0, len(readable), per_step):
        clips = [_clips_of(s, store) for s in readable[begin : begin + per_step]]
        if rng is not None:
            clips = [_shuffle_time(frames, store.config, rng) for frames, _ in clips]
        clips = [evaluation_views(*clip, crop, crops) for clip in clips]
        frames = torch.from_numpy(np.concatenate([frames for frames, _ in clips]))
        flow = torch.from_numpy(np.concatenate([flow for _, flow in clips]))
        parts = zip(frames.split(batch_size), flow.split(batch_size), strict=True)
        probabilities = torch.cat([score_clips(model, *part) for part in parts])
        views = probabilities.split([len(frames) for frames, _ in clips])
        scores += [view.mean(0).numpy() for view in views]
    found = iter(scores)
    width = len(scores[0]) if scores else 1
    unreadable = np.full(width, np.nan, np.float32)
    return np.stack([next(found) if s.path in store else unreadable for s in samples])


def _clips_of(sample: Sample, store: ClipStore) -> tuple[np.ndarray, np.ndarray]:
    """Read the clips that a sample stands for: frames (W, T, S, S, 3) and flow (W, 2, T, S, S)."""
    windows = slice(None) if sample.window is None else slice(sample.window, sample.window + 1)
    clips = store.read_all(sample.path)
    return clips.frames[windows], clips.flow[windows]


def _shuffle_time(
    frames: np.ndarray, config: ClipConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put the frames of each clip (W, T, H, W, 3) into a random order and compute their flow."""
    shuffled = np.stack([clip[rng.permutation(len(clip))] for clip in frames])
    flow = np.stack([optical_flow(clip, None, config.flow) for clip in shuffled])
    return shuffled, flow.astype(np.float16)


def summarise(scores: np.ndarray, labels: Sequence[int]) -> dict[str, float | int]:
    """Return top-1 and top-5 as fractions, and how many videos they stand on."""
    unreadable = int(np.isnan(scores).any(1).sum())
    return {
        "top1": top_k_accuracy(scores, labels, 1),
        "top5": top_k_accuracy(scores, labels, 5),
        "videos": len(labels),
        "unreadable": unreadable,
    }


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
    model.eval()
    frames, flow, _ = cut_clips(path, config.clip)
    frames, flow = evaluation_views(frames, flow, config.augment.crop, config.crops)
    return score_clips(model, torch.from_numpy(frames), torch.from_numpy(flow)).mean(0).numpy()
