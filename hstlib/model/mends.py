"""What might mend HST: changes of ours that the paper's words do not allow.

Unlike :mod:`hstlib.model.ablations`, they leave nothing out. What they add to the output of a
module is a forward hook of it. :mod:`hstlib.model.readings` names them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.model.hst import HST


def gelu_sum(first: Tensor, second: Tensor) -> Tensor:
    """Fuse s1 and s2, both (B, C, H, W), by the sum of their GELUs, in place of Eq. (10)."""
    return functional.gelu(first) + functional.gelu(second)


def bounded_similarity(features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
    """Compute delta of Eq. (9) with the sigmoid of W Phi(s), so that it never exceeds Phi(s).

    Args:
        features: Phi(s), shape (N, C, H, W).
        mask: Between 0 and 1, shape (N, 1, H, W).
        weighted: W Phi(s), shape (N, C, H, W).

    Returns:
        delta, shape (N, C, H, W).
    """
    return torch.lerp(features, features * weighted.sigmoid(), mask)


def add_residual_connections(model: HST) -> None:
    """Give both attention modules of a model residual connections, in place."""
    model.spatial_attention.register_forward_hook(_add_mean_of_maps)
    model.hybrid_attention.register_forward_hook(_add_means)


def convolve_over_time(model: HST) -> None:
    """Let the windows of a model see their neighbours in time, in place.

    The weights are drawn as the global generator would draw next; its state is restored, so
    whatever is random later stays equal.
    """
    channels = model.windows.phi.out_channels
    with torch.random.fork_rng(devices=[]):
        model.windows.over_time = nn.Conv3d(
            channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False
        )
    model.windows.register_forward_hook(_add_convolution_over_time)


def _add_mean_of_maps(module: nn.Module, maps: tuple[Tensor, Tensor], attended: Tensor) -> Tensor:
    """Add the mean of s1 and s2 to lambda, all of shape (B, C, H, W)."""
    first, second = maps
    return attended + (first + second) / 2


def _add_means(module: nn.Module, features: tuple[Tensor, Tensor], vector: Tensor) -> Tensor:
    """Add the means of lambda and T, both (B, C, H, W), to the vector of Eq. (17), (B, C)."""
    spatial, temporal = features
    return vector + (spatial + temporal).mean((2, 3))


def _add_convolution_over_time(module: nn.Module, clips: tuple[Tensor], windows: Tensor) -> Tensor:
    """Add a convolution over three windows to the windows, shape (B, K, C, H, W)."""
    return windows + module.over_time(windows.transpose(1, 2)).transpose(1, 2)
