"""Accuracy as a fraction, and parameter counts."""

import math
from collections.abc import Sequence

import numpy as np
from torch import nn


def top_k_accuracy(scores: np.ndarray, labels: Sequence[int] | np.ndarray, k: int = 1) -> float:
    """Return the share of rows whose label is among the k highest scores.

    Args:
        scores: Shape (N, classes). A row of NaN (an unreadable video) counts as wrong.
        labels: N class indices.
        k: How many guesses count.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If there are no rows, or numbers of rows and labels differ.
    """
    labels = np.asarray(labels)
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"scores {scores.shape} and {len(labels)} labels do not form an accuracy")
    best = np.argsort(-scores, axis=1)[:, :k]
    hits = (best == labels[:, None]).any(1) & ~np.isnan(scores).any(1)
    return float(hits.mean())


def accuracy_interval(accuracy: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy over ``count`` independent clips."""
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
