"""The paper's equations without parameters: tensors in, tensors out.

Windows are kept on their own axis, (B, K, C, H, W), because the hierarchy of section 3.1 runs
along it; K = 8 windows come from 16 frames.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

NOISE_SCALE = 1e-3
"""Scale of Eq. (5)'s Gaussian noise; the paper gives none."""

_PER_CLIP = (1, 3, 4)
"""What a statistic per clip and channel of (B, T, C, H, W) is taken over."""


def channel_shuffle(images: Tensor, groups: int) -> Tensor:
    """Mix the channels of an image across groups.

    Paper: section 3.1, "channel shuffle operation that is a tensor operation inside the Pytorch".
    Reading: on RGB both possible group counts, 1 and 3, leave the image as it is, so HST applies
    it as a documented no-op.

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
    return images.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def merge_windows(features: Tensor) -> Tensor:
    """Add the features of the two frames of each window.

    Paper: Eq. (2), section 3.1.
    Reading: the windows are the pairs (1, 2), (3, 4) ... (15, 16), since Eq. (6) counts 8.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.

    Returns:
        Merged features xi, shape (B, T / 2, C, H, W).

    Raises:
        ValueError: If T is odd.
    """
    first, second = _pairs(features)
    return first + second


def window_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean difference and the variance that a clip's windows are normalised with.

    Paper: Eqs. (3) and (4), section 3.1.
    Reading: the norm is the element-wise magnitude, and both are statistics per clip and channel
    over frames and positions, as in instance normalisation.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.

    Returns:
        Mean u and variance sigma, each of shape (B, 1, C, 1, 1).

    Raises:
        ValueError: If T is odd.
    """
    first, second = _pairs(features)
    mean = (first - second).abs().mean(_PER_CLIP, keepdim=True)
    variance = (features - mean).square().mean(_PER_CLIP, keepdim=True)
    return mean, variance


def normalise_windows(merged: Tensor, mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """Normalise the merged features of a clip's windows.

    Paper: Eq. (5), section 3.1.
    Reading: the noise is a magnitude, so that the root stays real.

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
    """Merge the frames of each window and normalise them, all in one.

    Paper: Eqs. (2)-(5), section 3.1; :func:`merge_windows`, :func:`window_statistics` and
    :func:`normalise_windows` are the same one by one.

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.
        noise: Added to the variance, not negative; shape (B, 1, C, 1, 1), without gradient.

    Returns:
        Windows s, shape (B, T / 2, C, H, W).

    Raises:
        ValueError: If T is odd.
    """
    if torch.compiler.is_compiling():  # a compiler fuses and chooses what is kept by itself
        mean, variance = window_statistics(features)
        return normalise_windows(merge_windows(features), mean, variance, noise)
    return _SpatialVisualNorm.apply(features, noise)


def window_noise(variance: Tensor, training: bool) -> Tensor:
    """Draw the noise of Eq. (5), or take its mean when not training.

    Args:
        variance: Gives the shape, (B, 1, C, 1, 1).
        training: Draw, instead of taking the mean.

    Returns:
        ``NOISE_SCALE`` x |n| with n ~ N(0, 1), the shape of ``variance``.
    """
    if training:
        return NOISE_SCALE * torch.randn_like(variance).abs()
    return torch.full_like(variance, NOISE_SCALE * math.sqrt(2 / math.pi))


def concat_windows(windows: Tensor) -> Tensor:
    """Stack the channels of all windows.

    Paper: Eq. (6), section 3.1.

    Args:
        windows: Shape (B, K, C, H, W).

    Returns:
        s_spa, shape (B, K C, H, W).
    """
    return torch.cat(windows.movedim(2, 4).unbind(1), dim=3).movedim(3, 1)


def previous_windows(windows: Tensor, prior: Tensor | None = None) -> Tensor:
    """Give each window the one before it.

    Paper: Eq. (7), section 3.1: the residual of window i is window i - 1.
    Reading: the first window's predecessor is the initial prior p(w) of section 1, or itself.

    Args:
        windows: Shape (B, K, C, H, W).
        prior: Predecessor of the first window, shape (B, C, H, W).

    Returns:
        Shape (B, K, C, H, W).
    """
    each = windows.movedim(2, 4).split(1, dim=1)  # K of (B, 1, H, W, C)
    first = each[0] if prior is None else prior.unsqueeze(1).movedim(2, 4)
    return torch.cat([first, *each[:-1]], dim=1).movedim(4, 2)


def masked_similarity(features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
    """Blend features with their re-weighted copy by a soft mask.

    Paper: Eq. (9), section 3.1.
    Reading: the mask is a sigmoid, since no threshold is given.

    Args:
        features: Phi(s), shape (N, C, H, W).
        mask: In [0, 1], shape (N, 1, H, W).
        weighted: W Phi(s), shape (N, C, H, W); multiplied element by element with the features.

    Returns:
        delta, shape (N, C, H, W).
    """
    if torch.compiler.is_compiling():
        return torch.lerp(features, features * weighted, mask)
    return _MaskedSimilarity.apply(features, mask, weighted)


def max_pool(features: Tensor, halve: bool) -> Tensor:
    """Take the largest value of a neighbourhood.

    Paper: Eq. (8), section 3.1, phi.

    Args:
        features: Shape (N, C, H, W).
        halve: The neighbourhoods are the 2x2 blocks, else the 3x3 around each position.

    Returns:
        Shape (N, C, H / 2, W / 2), rounded down, or (N, C, H, W).
    """
    window = (2, 2, 0) if halve else (3, 1, 1)  # size, stride, padding
    if torch.compiler.is_compiling():
        return functional.max_pool2d(features, *window)
    return _MaxPool.apply(features, *window)


def converge_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the windows together into the two spatial feature maps of section 3.2.

    Paper: end of section 3.1, "converged into one backbone", and section 3.2, "s1, s2".
    Reading: s1 is the mean of the first half of the windows, s2 of the second.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    first, second = windows.chunk(2, dim=1)
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
    """Turn each channel into attention over positions.

    Paper: Eq. (11), section 3.2.
    Reading: the softmax runs over positions, and is multiplied by H W so that its mean is 1.

    Args:
        features: gamma, shape (B, C, H, W).

    Returns:
        beta, shape (B, C, H, W); each channel sums to H W.
    """
    positions = features.flatten(2)
    return (positions.softmax(-1) * positions.shape[-1]).view_as(features)


def split_channels(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split a feature map into two branches of twice the channels and half the size.

    Paper: Eqs. (13) and (14), section 3.3, Figure 6.
    Reading: a pixel-unshuffle by 2 gives 4C channels, whose halves are the branches.

    Args:
        features: lambda, shape (B, C, H, W), H and W even.

    Returns:
        b1 and b2, each of shape (B, 2 C, H / 2, W / 2).

    Raises:
        ValueError: If H or W is odd.
    """
    height, width = features.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"split needs an even height and width, got {height} x {width}")
    return functional.pixel_unshuffle(features, 2).chunk(2, dim=1)


def expand_channels(branch: Tensor) -> Tensor:
    """Expand a branch back to the size that it was split from.

    Paper: Eq. (16), section 3.3.
    Reading: a pixel-shuffle by 2, its C / 2 channels repeated twice: "to enhance the information
    redundancy between channels".

    Args:
        branch: Shape (B, 2 C, H / 2, W / 2), C even.

    Returns:
        Shape (B, C, H, W).

    Raises:
        ValueError: If the channels do not divide by 4.
    """
    if branch.shape[1] % 4:
        raise ValueError(f"expand needs channels that divide by 4, got {branch.shape[1]}")
    return functional.pixel_shuffle(branch, 2).repeat(1, 2, 1, 1)


def block_in_attention(mix: Tensor, temporal: Tensor, reading: str = "equation") -> Tensor:
    """Combine the spatial mix with the temporal feature into one vector.

    Paper: Eq. (17), section 3.3, Figure 7.
    Reading: ``equation`` is the printed last line, softmax over channels of mix T, averaged over
    positions and multiplied by C so that its mean is 1; ``text`` is "the attention score and
    temporal feature T are used as the input to perform the element-wise product": softmax over
    positions, times T, summed over positions.

    Args:
        mix: Normalised W1 b1 + W2 b2, shape (B, C, H, W).
        temporal: T, shape (B, C, H, W).
        reading: ``equation`` or ``text``.

    Returns:
        Shape (B, C).

    Raises:
        ValueError: If the reading is unknown or the shapes differ.
    """
    if mix.shape != temporal.shape:
        raise ValueError(f"mix {tuple(mix.shape)} and T {tuple(temporal.shape)} differ in shape")
    if reading == "equation":
        return (mix * temporal).softmax(1).mean((2, 3)) * mix.shape[1]
    if reading == "text":
        score = mix.flatten(2).softmax(-1)
        return (score * temporal.flatten(2)).sum(-1)
    raise ValueError(f"reading {reading!r} is unknown; use 'equation' or 'text'")


def _pairs(features: Tensor) -> tuple[Tensor, Tensor]:
    if features.shape[1] % 2:
        raise ValueError(f"windows need an even number of frames, got {features.shape[1]}")
    pairs = features.movedim(2, 4).unflatten(1, (-1, 2))  # (B, K, 2, H, W, C)
    first, second = (frame.squeeze(2).movedim(4, 2) for frame in pairs.chunk(2, dim=2))
    return first, second


class _SpatialVisualNorm(torch.autograd.Function):
    """s = (m - u) r of the pairs' sum m and difference d, which are half as large as the frames.

    u = mean |d|, r = (v + noise)^-1/2, and v = mean ((m - 2 u)^2 + d^2) / 4, which is Eq. (4).
    """

    @staticmethod
    def forward(ctx, features: Tensor, noise: Tensor) -> Tensor:
        first, second = _pairs(features)
        m, d = first + second, first - second
        u = d.abs().mean(_PER_CLIP, keepdim=True)
        v = (m - 2 * u).square_().mean(_PER_CLIP, keepdim=True)
        v = (v + d.square().mean(_PER_CLIP, keepdim=True)) / 4
        r = (v + noise).rsqrt()
        ctx.save_for_backward(m, d, u, r)
        return (m - u).mul_(r)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        m, d, u, r = ctx.saved_tensors
        count = m[0, :, 0].numel()
        total = grad.sum(_PER_CLIP, keepdim=True)
        grad_v = -((grad * m).sum(_PER_CLIP, keepdim=True) - u * total) * r**3 / 2
        grad_u = -total * r - grad_v * (m.mean(_PER_CLIP, keepdim=True) - 2 * u)
        slope = grad_v / (2 * count)
        grad_m = torch.addcmul(grad * r, m - 2 * u, slope)
        grad_d = torch.addcmul(d * slope, d.sign(), grad_u / count)
        pairs = [(grad_m + grad_d).movedim(2, 4), grad_m.sub_(grad_d).movedim(2, 4)]
        return torch.stack(pairs, dim=2).flatten(1, 2).movedim(4, 2), None


class _MaskedSimilarity(torch.autograd.Function):
    """Eq. (9) as one interpolation, which keeps nothing but its inputs for the backward pass."""

    @staticmethod
    def forward(ctx, features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
        ctx.save_for_backward(features, mask, weighted)
        return torch.lerp(features, features * weighted, mask)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, mask, weighted = ctx.saved_tensors
        product = grad * features
        grad_mask = (product * (weighted - 1)).sum(1, keepdim=True)
        return torch.lerp(grad, grad * weighted, mask), grad_mask, product * mask


class _MaxPool(torch.autograd.Function):
    """Max-pooling that keeps positions in 2 bytes (4 where the map is large); torch's keeps 12."""

    @staticmethod
    def forward(ctx, features: Tensor, *window: int) -> Tensor:
        pooled, positions = functional.max_pool2d(features, *window, return_indices=True)
        H, W = features.shape[2:]
        ctx.size, ctx.window = (H, W), window
        ctx.save_for_backward(positions.to(torch.int16 if H * W <= 2**15 else torch.int32))
        return pooled

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (positions,) = ctx.saved_tensors
        shape = *grad.shape[:2], *ctx.size
        layout = {"memory_format": torch.channels_last, "dtype": grad.dtype, "device": grad.device}
        size, stride, padding = ((length, length) for length in ctx.window)
        grad_features = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, torch.empty(shape, **layout), size, stride, padding, (1, 1), False,
            positions.long(),
        )  # fmt: skip
        return grad_features, None, None, None
