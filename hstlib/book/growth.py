"""How far HST's features grow in evaluation, where batch norm does not follow them.

In training, each batch norm divides by the spread of the batch it sees; in evaluation by a stored
one. Equation (9) multiplies features by a linear map of themselves. So features that are larger
than the stored ones by a factor come out of a unit larger by up to its square, and of n units by up
to its 2^n-th power.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hstlib.data.clips import normalise
from hstlib.data.scenes import draw_frames
from hstlib.model import HST
from hstlib.model.inputs import NUM_FRAMES

SIZE = 32  # pixels


def drawn_clips(films: range) -> Tensor:
    """Draw a clip of each film: normalised RGB, float64, shape (len(films), 3, 16, S, S)."""
    clips = []
    for film in films:
        frames = draw_frames("slide", (film,), (film,))[::2][:NUM_FRAMES]
        small = [cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames]
        clips.append(normalise(torch.from_numpy(np.stack(small))))
    return torch.stack(clips).double()


@torch.no_grad()
def store_statistics(model: HST, clips: Tensor) -> None:
    """Let the batch norms of section 3.1's spatial part store the statistics of clips, exactly.

    Args:
        model: HST; its stored statistics change, and the momentum of its batch norms.
        clips: Shape (B, 3, 16, H, W), of the weights' type.
    """
    for layer in _batch_norms(model):
        layer.momentum = 1.0
    model.train()
    model.hierarchy(model.windows(clips))


@torch.no_grad()
def largest_features(model: HST, clips: Tensor, share: float = 1.0) -> list[float]:
    """Return the largest magnitude after each unit in evaluation.

    Args:
        model: HST.
        clips: Shape (B, 3, 16, H, W), of the weights' type.
        share: Factor of all stored variances while the clips are evaluated.

    Returns:
        One value per unit; infinity where a feature is not finite.
    """
    stored = {layer: layer.running_var.clone() for layer in _batch_norms(model)}
    largest = []

    def keep(unit: nn.Module, inputs: tuple[Tensor, ...], windows: Tensor) -> None:
        largest.append(windows.abs().nan_to_num(np.inf).max().item())

    handles = [unit.register_forward_hook(keep) for unit in model.hierarchy.units]
    for layer, variance in stored.items():
        layer.running_var.copy_(share * variance)
    model.eval().hierarchy(model.windows(clips))
    for layer, variance in stored.items():
        layer.running_var.copy_(variance)
    for handle in handles:
        handle.remove()
    return largest


def _batch_norms(model: HST) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
