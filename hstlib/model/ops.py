"""The paper's equations as functions of tensors, without parameters.

B is the batch, T = 16 the frames of a clip, K = 8 its windows of two frames, C the channels.
Windows have an axis of their own, (B, K, C, H, W), because Eq. (7) of section 3.1 runs along it.
Axes are split or joined with the channels last, so that features, results and gradients stay in
the channels-last memory format.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from hstlib.model.inputs import check_same_shape

NOISE_SCALE = 1e-3
"""Scale of Eq. (5)'s Gaussian noise; the paper gives none."""

FRAMES_AND_POSITIONS = (1, 3, 4)
"""Axes of (B, T, C, H, W) that Eqs. (3) and (4) average over: statistics per clip and channel."""

POOLING = {True: (2, 2, 0), False: (3, 1, 1)}
"""Kernel size, stride and padding of Eq. (8)'s phi where a unit halves the size, and elsewhere."""


def maximum_over_time(features: Tensor) -> Tensor:
    """Take the maximum over the frames: (B, C, T, H, W) to (B, C, H, W).

    Paper: Eq. (1), section 3.1, has one T for all frames.
    Reading: R3, the paper does not say how the frames are combined.
    """
    return features.amax(2)


def channel_shuffle(images: Tensor, groups: int) -> Tensor:
    """Interleave the channels of groups: the first channel of each, the second of each, and so on.

    Paper: section 3.1, "channel shuffle operation that is a tensor operation inside the Pytorch".
    Reading: R4. RGB allows 1 or 3 groups, and either leaves the image unchanged, so HST does not
    call this function.

    Args:
        images: Shape (B, C, H, W).
        groups: Number of groups; divides C.

    Returns:
        Shape (B, C, H, W).

    Raises:
        ValueError: If ``groups`` does not divide C.
    """
    if groups < 1 or images.shape[1] % groups:
        raise ValueError(f"groups = {groups} does not divide the {images.shape[1]} channels")
    by_group = images.unflatten(1, (groups, -1))  # (B, groups, C / groups, H, W)
    return by_group.transpose(1, 2).flatten(1, 2)  # (B, C, H, W)


def frame_pairs(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split the frames into the first and the second frame of each window.

    Paper: Eq. (2), section 3.1, v_i and v_(i+1).
    Reading: R7, the windows are the pairs (1, 2), (3, 4) ... (15, 16), since Eq. (6) counts 8.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.

    Returns:
        First and second frames, each of shape (B, T / 2, C, H, W).

    Raises:
        ValueError: If T is odd.
    """
    if features.shape[1] % 2:
        raise ValueError(f"windows need an even number of frames, got {features.shape[1]}")
    pairs = features.movedim(2, 4).unflatten(1, (-1, 2))  # (B, K, 2, H, W, C)
    # chunk, because the backward pass of a slice fills a tensor of zeros as large as its input
    first, second = pairs.chunk(2, dim=2)  # each (B, K, 1, H, W, C)
    return first.squeeze(2).movedim(4, 2), second.squeeze(2).movedim(4, 2)  # (B, K, C, H, W)


def merge_windows(features: Tensor) -> Tensor:
    """Add the features of the two frames of each window.

    Paper: Eq. (2), section 3.1.
    Reading: R7, the pairs of :func:`frame_pairs`.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.

    Returns:
        Merged features xi, shape (B, T / 2, C, H, W).

    Raises:
        ValueError: If T is odd.
    """
    first, second = frame_pairs(features)
    return first + second


def window_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean difference of neighbouring frames and the variance around it.

    Paper: Eqs. (3) and (4), section 3.1.
    Reading: R8, the norm is the element-wise magnitude, and both are statistics per clip and
    channel over frames and positions, as in instance normalisation.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.

    Returns:
        Mean u and variance sigma, each of shape (B, 1, C, 1, 1).

    Raises:
        ValueError: If T is odd.
    """
    first, second = frame_pairs(features)
    mean = (first - second).abs().mean(FRAMES_AND_POSITIONS, keepdim=True)
    variance = (features - mean).square().mean(FRAMES_AND_POSITIONS, keepdim=True)
    return mean, variance


def normalise_windows(merged: Tensor, mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """Normalise the merged features of a clip's windows.

    Paper: Eq. (5), section 3.1.
    Reading: R9, the noise is a magnitude, so that the root stays real.

    Args:
        merged: Merged features xi, shape (B, K, C, H, W).
        mean: u, shape (B, 1, C, 1, 1).
        variance: sigma, shape (B, 1, C, 1, 1).
        noise: Added to the variance, not negative; shape (B, 1, C, 1, 1).

    Returns:
        Windows s, shape (B, K, C, H, W).
    """
    return (merged - mean) / (variance + noise).sqrt()


def spatial_visual_norm(features: Tensor, noise: Tensor) -> Tensor:
    """Merge the two frames of each window and normalise the windows.

    Paper: Eqs. (2)-(5), section 3.1, called SVN.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.
        noise: Added to the variance, not negative; shape (B, 1, C, 1, 1).

    Returns:
        Windows s, shape (B, T / 2, C, H, W).

    Raises:
        ValueError: If T is odd.
    """
    return normalise_windows(merge_windows(features), *window_statistics(features), noise)


def window_noise(variance: Tensor, training: bool) -> Tensor:
    """Draw the noise of Eq. (5) in training; return its mean in evaluation.

    Reading: R9, :data:`NOISE_SCALE` x |n| with n ~ N(0, 1), one draw per clip and channel.

    Args:
        variance: Tensor of the shape and type to return, (B, 1, C, 1, 1).
        training: True to draw, False for the mean.

    Returns:
        Noise, not negative, of the shape of ``variance``.
    """
    if training:
        return NOISE_SCALE * torch.randn_like(variance).abs()
    return torch.full_like(variance, NOISE_SCALE * math.sqrt(2 / math.pi))


def concat_windows(windows: Tensor) -> Tensor:
    """Concatenate the channels of all windows.

    Paper: Eq. (6), section 3.1.

    Args:
        windows: Shape (B, K, C, H, W).

    Returns:
        s_spa, shape (B, K C, H, W).
    """
    each = windows.movedim(2, 4).unbind(1)  # K of (B, H, W, C)
    return torch.cat(each, dim=3).movedim(3, 1)  # (B, K C, H, W)


def previous_windows(windows: Tensor, prior: Tensor | None = None) -> Tensor:
    """Return the predecessor of each window.

    Paper: Eq. (7), section 3.1: the residual of window i is window i - 1.
    Reading: R10 and R11, the first window's predecessor is the initial prior p(w) of section 1 or,
    without a prior, the window itself.

    Args:
        windows: Shape (B, K, C, H, W).
        prior: Predecessor of the first window, shape (B, C, H, W), or None.

    Returns:
        Shape (B, K, C, H, W).
    """
    each = windows.movedim(2, 4).split(1, dim=1)  # K of (B, 1, H, W, C)
    first = each[0] if prior is None else prior.unsqueeze(1).movedim(2, 4)  # (B, 1, H, W, C)
    return torch.cat([first, *each[:-1]], dim=1).movedim(4, 2)  # (B, K, C, H, W)


def masked_similarity(features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
    """Interpolate between features and their re-weighted copy with a soft mask.

    Paper: Eq. (9), section 3.1: (1 - mask) Phi(s) + mask (Phi(s) * W Phi(s)).
    Reading: R14, the mask is soft, since no threshold is given.

    Args:
        features: Phi(s), shape (N, C, H, W).
        mask: Between 0 and 1, shape (N, 1, H, W).
        weighted: W Phi(s), shape (N, C, H, W); multiplied with the features element by element.

    Returns:
        delta, shape (N, C, H, W).
    """
    return torch.lerp(features, features * weighted, mask)


def max_pool(features: Tensor, halve: bool) -> Tensor:
    """Max-pool feature maps.

    Paper: Eq. (8), section 3.1, phi.
    Reading: R13, 2x2 with stride 2 where the stage halves the size, else 3x3 with stride 1.

    Args:
        features: Shape (N, C, H, W).
        halve: Halve height and width.

    Returns:
        Shape (N, C, H, W), or (N, C, H / 2, W / 2) rounded down.
    """
    return functional.max_pool2d(features, *POOLING[halve])


def converge_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Average the windows into the two spatial feature maps of section 3.2.

    Paper: end of section 3.1, "converged into one backbone", and section 3.2, "s1, s2".
    Reading: R16, s1 is the mean of the first half of the windows, s2 of the second.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    first, second = windows.chunk(2, dim=1)  # each (B, K / 2, C, H, W)
    return first.mean(1), second.mean(1)


def gelu_product(first: Tensor, second: Tensor) -> Tensor:
    """Fuse two feature maps by the product of their GELUs.

    Paper: Eq. (10), section 3.2.

    Args:
        first: s1, shape (B, C, H, W).
        second: s2, shape (B, C, H, W).

    Returns:
        gamma, shape (B, C, H, W).
    """
    return functional.gelu(first) * functional.gelu(second)


def spatial_softmax(features: Tensor) -> Tensor:
    """Compute attention weights over the positions of each channel.

    Paper: Eq. (11), section 3.2.
    Reading: R17, the softmax runs over positions, and is multiplied by H W so that its mean is 1.

    Args:
        features: gamma, shape (B, C, H, W).

    Returns:
        beta, shape (B, C, H, W); each channel sums to H W.
    """
    positions = features.flatten(2)  # (B, C, H W)
    return (positions.softmax(-1) * positions.shape[-1]).view_as(features)  # (B, C, H, W)


def split_channels(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split a feature map into two branches with twice the channels and half the size.

    Paper: Eqs. (13) and (14), section 3.3, Figure 6.
    Reading: R18, a pixel-unshuffle by 2 gives 4 C channels; each half of them is a branch.

    Args:
        features: lambda, shape (B, C, H, W), H and W even.

    Returns:
        b1 and b2, each of shape (B, 2 C, H / 2, W / 2).

    Raises:
        ValueError: If H or W is odd.
    """
    H, W = features.shape[-2:]
    if H % 2 or W % 2:
        raise ValueError(f"split needs an even height and width, got {H} x {W}")
    return functional.pixel_unshuffle(features, 2).chunk(2, dim=1)  # each (B, 2 C, H / 2, W / 2)


def expand_channels(branch: Tensor) -> Tensor:
    """Expand a branch to the size of the map that was split.

    Paper: Eq. (16), section 3.3.
    Reading: R19, a pixel-shuffle by 2 gives C / 2 channels, which are repeated twice: "to enhance
    the information redundancy between channels".

    Args:
        branch: Shape (B, 2 C, H / 2, W / 2), C even.

    Returns:
        Shape (B, C, H, W).

    Raises:
        ValueError: If the number of channels is not divisible by 4.
    """
    if branch.shape[1] % 4:
        raise ValueError(f"expand needs channels divisible by 4, got {branch.shape[1]}")
    return functional.pixel_shuffle(branch, 2).repeat(1, 2, 1, 1)  # (B, C, H, W)


def block_in_attention(mix: Tensor, temporal: Tensor) -> Tensor:
    """Combine the spatial mix with the temporal feature into one vector.

    Paper: Eq. (17), section 3.3, Figure 7.
    Reading: R20, the printed last line: softmax over the channels of mix T, averaged over positions
    (Table 1), times C so that its mean is 1; ``alternatives.attention_over_positions`` is the text.

    Args:
        mix: Normalised W1 b1 + W2 b2, shape (B, C, H, W).
        temporal: T, shape (B, C, H, W).

    Returns:
        Shape (B, C).

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(mix, temporal)
    return (mix * temporal).softmax(1).mean((2, 3)) * mix.shape[1]
