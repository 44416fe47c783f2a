"""Equations of ``ops`` with hand-written backward passes, which save less memory than autograd.

Each function computes what the function of the same name in ``ops`` computes. Every backward pass
is written with differentiable operations on saved inputs, so second derivatives are right, too, and
``torch.func.grad`` and ``torch.func.vjp`` pass through them. For ``torch.compile`` the functions
call ``ops``: a compiler decides by itself what to save.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hstlib.model import ops
from hstlib.model.ops import FRAMES_AND_POSITIONS


def spatial_visual_norm(features: Tensor, noise: Tensor) -> Tensor:
    """Compute :func:`hstlib.model.ops.spatial_visual_norm`, Eqs. (2)-(5).

    For the backward pass it saves as many values as ``features`` has; autograd saves twice as many.
    """
    if torch.compiler.is_compiling():
        return ops.spatial_visual_norm(features, noise)
    first, second = ops.frame_pairs(features)
    return _NormalisedSum.apply(first + second, first - second, noise)[0]


def masked_similarity(features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
    """Compute :func:`hstlib.model.ops.masked_similarity`, Eq. (9).

    For the backward pass it saves its inputs; autograd saves their product, too.
    """
    if torch.compiler.is_compiling():
        return ops.masked_similarity(features, mask, weighted)
    return _MaskedSimilarity.apply(features, mask, weighted)


def max_pool(features: Tensor, halve: bool) -> Tensor:
    """Compute :func:`hstlib.model.ops.max_pool`, the phi of Eq. (8).

    For the backward pass it saves the position of each maximum, in 2 bytes (4 for maps of more
    than 2^15 positions); autograd saves 8-byte positions and the 4-byte features.
    """
    if torch.compiler.is_compiling():
        return ops.max_pool(features, halve)
    return _MaxPool.apply(features, *ops.POOLING[halve])[0]


class _NormalisedSum(torch.autograd.Function):
    """Eqs. (3)-(5) for the sum m and the difference d of the two frames of each window.

    u = mean |d|, v = mean ((m - 2 u)^2 + d^2) / 4, which is Eq. (4), r = (v + noise)^-1/2, and
    s = (m - u) r.
    """

    @staticmethod
    def forward(m: Tensor, d: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, r = _mean_and_inverse_deviation(m, d, noise)
        return (m - u).mul_(r), u, r

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        _, u, r = output
        ctx.mark_non_differentiable(u, r)
        ctx.save_for_backward(*inputs, u, r)

    @staticmethod
    def backward(ctx, grad: Tensor, *_: None) -> tuple[Tensor, Tensor, Tensor]:
        m, d, noise, u, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative u and r must depend on m and d
            u, r = _mean_and_inverse_deviation(m, d, noise)
        count = m[0, :, 0].numel()  # values that a mean is taken over
        grad_sum = grad.sum(FRAMES_AND_POSITIONS, keepdim=True)
        product_sum = (grad * m).sum(FRAMES_AND_POSITIONS, keepdim=True)
        grad_v = (u * grad_sum - product_sum) * r**3 / 2
        grad_u = -grad_sum * r - grad_v * (m.mean(FRAMES_AND_POSITIONS, keepdim=True) - 2 * u)
        slope = grad_v / (2 * count)
        grad_m = torch.addcmul(grad * r, m - 2 * u, slope)
        grad_d = torch.addcmul(d * slope, d.sign(), grad_u / count)
        return grad_m, grad_d, grad_v


def _mean_and_inverse_deviation(m: Tensor, d: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Compute u and r of :class:`_NormalisedSum`, each of shape (B, 1, C, 1, 1)."""
    u = d.abs().mean(FRAMES_AND_POSITIONS, keepdim=True)
    v = (m - 2 * u).square_().mean(FRAMES_AND_POSITIONS, keepdim=True)
    v = (v + d.square().mean(FRAMES_AND_POSITIONS, keepdim=True)) / 4
    return u, (v + noise).rsqrt()


class _MaskedSimilarity(torch.autograd.Function):
    """Eq. (9) as one interpolation."""

    @staticmethod
    def forward(features: Tensor, mask: Tensor, weighted: Tensor) -> Tensor:
        return torch.lerp(features, features * weighted, mask)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, mask, weighted = ctx.saved_tensors
        product = grad * features
        grad_mask = (product * (weighted - 1)).sum(1, keepdim=True)
        return torch.lerp(grad, grad * weighted, mask), grad_mask, product * mask


class _MaxPool(torch.autograd.Function):
    """Max-pooling by kernel size, stride and padding."""

    @staticmethod
    def forward(features: Tensor, *pooling: int) -> tuple[Tensor, Tensor]:
        pooled, positions = functional.max_pool2d(features, *pooling, return_indices=True)
        small = features.shape[2:].numel() <= 2**15
        return pooled, positions.to(torch.int16 if small else torch.int32)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        features, *ctx.pooling = inputs
        _, positions = output
        ctx.size = features.shape[2:]
        ctx.mark_non_differentiable(positions)
        ctx.save_for_backward(positions)

    @staticmethod
    def backward(ctx, grad: Tensor, _: None) -> tuple[Tensor, None, None, None]:
        (positions,) = ctx.saved_tensors
        shape = *grad.shape[:2], *ctx.size
        # The operator reads shape and memory format of its second argument, not its values.
        features = torch.empty(
            shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        kernel, stride, padding = ((length, length) for length in ctx.pooling)
        grad_features = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, features, kernel, stride, padding, (1, 1), False, positions.long()
        )
        return grad_features, None, None, None
