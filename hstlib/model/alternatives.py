"""Steps of HST in other readings of the paper: functions of tensors, without parameters.

:mod:`hstlib.model.readings` names them and puts them into a model. The replacements in
:mod:`hstlib.model.ablations` are those that the paper's words do not allow.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hstlib.model import ops
from hstlib.model.inputs import check_same_shape


def mean_over_time(features: Tensor) -> Tensor:
    """Average the frames, Eq. (1): (B, C, T, H, W) to (B, C, H, W)."""
    return features.mean(2)


def instance_norm(features: Tensor, noise: Tensor) -> Tensor:
    """Normalise the merged windows with their own mean and variance, in place of Eqs. (3)-(5).

    Args:
        features: Features of the frames, shape (B, T, C, H, W), T even.
        noise: Added to the variance, shape (B, 1, C, 1, 1).

    Returns:
        Windows, shape (B, T / 2, C, H, W).
    """
    merged = ops.merge_windows(features)
    variance, mean = torch.var_mean(merged, ops.FRAMES_AND_POSITIONS, correction=0, keepdim=True)
    return ops.normalise_windows(merged, mean, variance, noise)


def same_windows(windows: Tensor, prior: Tensor | None) -> Tensor:
    """Return the windows themselves, Eq. (7), with the prior added to the first.

    Args:
        windows: Shape (B, K, C, H, W).
        prior: Shape (B, C, H, W), or None.

    Returns:
        Shape (B, K, C, H, W).
    """
    if prior is None:
        return windows
    first = windows[:, :1] + prior.unsqueeze(1)  # (B, 1, C, H, W)
    return torch.cat([first, windows[:, 1:]], dim=1)  # (B, K, C, H, W)


def converge_interleaved(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Average the odd windows into s1, the even ones into s2.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    return windows[:, 0::2].mean(1), windows[:, 1::2].mean(1)


def converge_maximum(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Take the maximum over the first half of the windows as s1, over the second half as s2.

    Args:
        windows: Shape (B, K, C, H, W), K even.

    Returns:
        s1 and s2, each of shape (B, C, H, W).
    """
    first, second = windows.chunk(2, dim=1)  # each (B, K / 2, C, H, W)
    return first.amax(1), second.amax(1)


def split_columns(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split columns 1, 3, 5 ... from columns 2, 4, 6 ..., Eqs. (13) and (14).

    Args:
        features: lambda, shape (B, C, H, W), H and W even.

    Returns:
        Branches of the odd and of the even columns, each (B, 2 C, H / 2, W / 2), in which the odd
        and the even rows are concatenated as channels.
    """
    odd, even = features[..., 0::2], features[..., 1::2]  # each (B, C, H, W / 2)
    return _rows_to_channels(odd), _rows_to_channels(even)


def _rows_to_channels(columns: Tensor) -> Tensor:
    """Concatenate odd and even rows as channels: (B, C, H, W) to (B, 2 C, H / 2, W)."""
    return torch.cat([columns[..., 0::2, :], columns[..., 1::2, :]], 1)


def expand_columns(branch: Tensor) -> Tensor:
    """Undo :func:`split_columns` for one branch and repeat its columns, Eq. (16).

    Args:
        branch: Shape (B, 2 C, H / 2, W / 2).

    Returns:
        Shape (B, C, H, W).
    """
    odd, even = branch.chunk(2, dim=1)  # rows, each (B, C, H / 2, W / 2)
    rows = torch.stack([odd, even], dim=3).flatten(2, 3)  # (B, C, H, W / 2)
    return rows.repeat_interleave(2, dim=3)  # (B, C, H, W)


def attention_over_positions(mix: Tensor, temporal: Tensor) -> Tensor:
    """Average T over positions with the softmax of the mix as weights.

    Paper: the text below Eq. (17), section 3.3: "the attention score and temporal feature T are
    used as the input to perform the element-wise product".
    Reading: R20, softmax over positions, times T, summed over positions.

    Args:
        mix: Normalised W1 b1 + W2 b2, shape (B, C, H, W).
        temporal: T, shape (B, C, H, W).

    Returns:
        Shape (B, C).

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(mix, temporal)
    score = mix.flatten(2).softmax(-1)  # (B, C, H W)
    return (score * temporal.flatten(2)).sum(-1)  # (B, C)


def channel_correlation(residual: Tensor) -> Tensor:
    """Correlate the channels of the prior, for a W of Eq. (8) that is computed from it.

    Paper: Eq. (8), section 3.1, W with the subscript s^(i-1); section 1, p(w).
    Reading: R12, W is the learned 1x1 convolution times this matrix. For channels that do not
    correlate the matrix is the identity, and W is the parameter alone.

    Args:
        residual: s^(i-1), projected, shape (N, C, H, W).

    Returns:
        Correlation over positions of each two channels, shape (N, C, C), from -1 to 1.
    """
    channels = residual.flatten(2)  # (N, C, H W)
    standard = functional.layer_norm(channels, channels.shape[2:])  # mean 0, variance 1
    return standard @ standard.mT / channels.shape[2]  # (N, C, C)


def recur_over_outputs(terms: Tensor, residuals: Tensor) -> Tensor:
    """Add to each window's terms the output of the window before it, Eq. (7) as a recursion.

    Paper: Eq. (7), section 3.1; section 1, "initial prior to infer the action context" of the next
    frame.
    Reading: R11, s^(i-1) is the unit's own result for the previous window. The first window adds
    its predecessor, as in the parallel form.

    Args:
        terms: Terms of Eq. (8), shape (B, K, C, H, W).
        residuals: Projected residuals of the input windows, shape (B, K, C, H, W); only the first
            is used.

    Returns:
        Next windows, shape (B, K, C, H, W).
    """
    first, *following = terms.movedim(2, 4).unbind(1)  # K of (B, H, W, C)
    outputs = [functional.leaky_relu(first + residuals[:, 0].movedim(1, 3))]
    for term in following:
        outputs.append(functional.leaky_relu(term + outputs[-1]))
    return torch.stack(outputs, 1).movedim(4, 2)  # (B, K, C, H, W)


def hard_mask(logits: Tensor) -> Tensor:
    """Decide between convolution and product at each position, Eq. (9).

    Paper: text above Eq. (9), section 3.1: "then the Hadamard product is performed, otherwise, the
    only operation that is performed of the part is convolution".
    Reading: R14, the mask is 0 or 1, with 0.5 as the threshold of the soft mask. The gradient is
    the soft mask's (straight-through), because a step has none.

    Args:
        logits: Output of the mask's convolution, shape (N, 1, H, W).

    Returns:
        0 or 1, shape (N, 1, H, W).
    """
    soft = logits.sigmoid()
    return (logits > 0).to(soft.dtype) + (soft - soft.detach())  # the difference is exactly 0


def product_of_maps(first: Tensor, second: Tensor) -> Tensor:
    """Multiply two feature maps as matrices, channel by channel: mat of Eq. (17).

    Paper: Eq. (17), first line, and section 3.3, "Matrix product is firstly performed to fuse two
    feature maps".
    Reading: R20. Among the matrix products of two C x H x W tensors, only this one gives C x H x W
    again, which the product with T needs. It requires square maps.

    Args:
        first: W1 b1, shape (B, C, H, H).
        second: W2 b2, shape (B, C, H, H).

    Returns:
        Shape (B, C, H, H).

    Raises:
        ValueError: If the maps are not square.
    """
    H, W = first.shape[-2:]
    if H != W:
        raise ValueError(
            f"reading 'matrix-product' multiplies square maps, got {H} x {W}; use square clips"
        )
    return first @ second
