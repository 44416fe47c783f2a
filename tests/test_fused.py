"""Hand-written backward passes: right to the second order, with as little saved as they say."""

from collections.abc import Callable

import pytest
import torch
from loops import assert_same, random
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from hstlib.model import fused, ops

CASES = {
    "spatial_visual_norm": (random(0, 2, 4, 3, 2, 3), random(1, 2, 1, 3, 1, 1).abs() + 0.1),
    "masked_similarity": (
        random(2, 2, 3, 2, 4), random(3, 2, 1, 2, 4).sigmoid(), random(4, 2, 3, 2, 4),
    ),
    "max_pool, halved": (random(5, 2, 3, 5, 4),),
    "max_pool": (random(6, 2, 3, 5, 4),),
}  # fmt: skip


def functions(case: str) -> tuple[Callable, Callable]:
    """Return the fused function of a case and its twin of ops."""
    name, _, halved = case.partition(", ")
    both = getattr(fused, name), getattr(ops, name)
    if name == "max_pool":
        return tuple(lambda x, pool=pool: pool(x, halve=bool(halved)) for pool in both)
    return both


def saved_tensors(function: Callable, *inputs: Tensor) -> list[Tensor]:
    """Return what a call saves for its backward pass."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        function(*inputs)
    return saved


@pytest.mark.parametrize("case", CASES)
def test_fused_functions_are_those_of_ops(case):
    assert_same(*functions(case), *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives_are_right(case):
    function, _ = functions(case)
    inputs = [x.clone().requires_grad_() for x in CASES[case]]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_spatial_visual_norm_saves_as_much_as_its_input():
    features = random(38, 2, 6, 3, 5, 7).requires_grad_()
    saved = saved_tensors(fused.spatial_visual_norm, features, torch.ones(2, 1, 3, 1, 1))
    statistics = 3 * 2 * 3  # u, r and the noise of each clip and channel
    assert sum(x.numel() for x in saved) == features.numel() + statistics


def test_masked_similarity_saves_its_inputs_only():
    inputs = [random(35, *shape).requires_grad_() for shape in ((2, 5, 3, 7), (2, 1, 3, 7))]
    saved = saved_tensors(fused.masked_similarity, inputs[0], inputs[1], inputs[0])
    assert {x.data_ptr() for x in saved} == {x.data_ptr() for x in inputs}


@pytest.mark.parametrize(("size", "bytes_per_position"), [((16, 16), 2), ((192, 192), 4)], ids=str)
def test_max_pool_saves_positions_only(size, bytes_per_position):
    features = random(34, 2, 3, *size).requires_grad_()
    (positions,) = saved_tensors(lambda x: fused.max_pool(x, halve=True), features)
    assert positions.nbytes == bytes_per_position * features.numel() // 4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (200, 180)], ids=str)  # 36,000: 4 bytes each
@pytest.mark.parametrize(("halve", "window"), [(True, (2, 2, 0)), (False, (3, 1, 1))])
def test_max_pool_is_torchs_to_the_last_digit_also_with_ties(halve, window, size, layout):
    features = random(33, 2, 3, *size).contiguous(memory_format=layout)
    for values in (features, features.round(), torch.zeros_like(features)):
        assert_same(
            lambda x: fused.max_pool(x, halve),
            lambda x: functional.max_pool2d(x, *window),
            values, rtol=0, atol=0,
        )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_functional_gradients_are_those_of_autograd(case):
    function, twin = functions(case)
    inputs = CASES[case]

    def total(*inputs: Tensor, function=function) -> Tensor:
        return function(*inputs).square().sum()

    expected = torch.autograd.grad(
        total(*(leaves := [x.clone().requires_grad_() for x in inputs]), function=twin), leaves
    )
    places = tuple(range(len(inputs)))
    torch.testing.assert_close(torch.func.grad(total, places)(*inputs), expected)
    value, pull = torch.func.vjp(total, *inputs)
    torch.testing.assert_close(pull(torch.ones_like(value)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_finite_and_near_double_precision(case, dtype):
    function, twin = functions(case)
    half = [x.to(dtype).requires_grad_() for x in CASES[case]]
    double = [x.detach().double().requires_grad_() for x in half]
    weights = torch.linspace(-1, 1, len(function(*half).flatten()))
    for of, inputs in ((function, half), (twin, double)):
        (of(*inputs).flatten() * weights.to(inputs[0])).sum().backward()
    for x, exact in zip(half, double, strict=True):
        assert x.grad.dtype == dtype and x.grad.isfinite().all()
        scale = exact.grad.abs().max()
        assert (x.grad.double() - exact.grad).abs().max() <= 8 * torch.finfo(dtype).eps * scale
