"""Plain loops in float64, and the comparison of a function with its loop."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.testing import assert_close


def random(seed: int, *shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def build(shape: tuple[int, ...], value: Callable[..., Tensor]) -> Tensor:
    """Build a tensor from its value at each index."""
    return torch.stack([value(*i) for i in product(*map(range, shape))]).reshape(shape)


def assert_same(function: Callable, twin: Callable, *inputs: Tensor, **tolerance: float) -> None:
    """Compare the outputs, and the gradients of a random weighted sum of them."""
    results = []
    for f in (function, twin):
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = f(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((y * random(99 + i, *y.shape)).sum() for i, y in enumerate(outputs))
        results.append((outputs, torch.autograd.grad(loss, leaves)))
    assert_close(results[0], results[1], **tolerance)
