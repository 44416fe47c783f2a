"""Parts of a training step: loss, learning rate, moving average of the weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def learning_rate_factor(schedule: str, epoch: int, epochs: int) -> float:
    """Return the factor that a schedule applies to the learning rate in an epoch."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def inverse_frequencies(labels: Sequence[int], num_classes: int) -> Tensor:
    """Return a weight for each class, inverse to its number of samples.

    Args:
        labels: Class index of each training sample.
        num_classes: Number of classes, C.

    Returns:
        float32, shape (C,). The mean weight of the samples is 1; a class without samples has 0.

    >>> inverse_frequencies([0, 0, 0, 1], 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    weights = len(labels) / (counts.clamp(min=1) * (counts > 0).sum())
    return weights.where(counts > 0, 0.0).float()


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """Return the mean cross-entropy of a batch.

    Samples are weighted by their class and divided by their number, not by the sum of the weights,
    so a batch in parts gives the same gradient as a whole one.

    Args:
        logits: Shape (B, C).
        labels: Class indices, shape (B,).
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Shape (C,); None: equal weights.
    """
    if class_weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    losses = functional.cross_entropy(
        logits, labels, label_smoothing=label_smoothing, reduction="none"
    )
    return (losses * class_weights[labels]).mean()


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of the model for the exponential moving average; None if decay is 0."""
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
