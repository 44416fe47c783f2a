"""Each equation against a plain loop in float64, forward and backward, and its properties."""

import math
from itertools import product

import pytest
import torch
from loops import assert_same, build, random
from torch import Tensor
from torch.testing import assert_close

from hstlib.model import fused, ops


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def test_maximum_over_time_is_its_loop():
    def twin(x):
        B, C, T, H, W = x.shape
        return build((B, C, H, W), lambda b, c, h, w: max(x[b, c, t, h, w] for t in range(T)))

    assert_same(ops.maximum_over_time, twin, random(40, 2, 3, 4, 5, 7))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle_is_its_loop(groups):
    def twin(x):
        B, C, H, W = x.shape
        size = C // groups
        return build((B, C, H, W), lambda b, c, h, w: x[b, c % groups * size + c // groups, h, w])

    assert_same(lambda x: ops.channel_shuffle(x, groups), twin, random(0, 2, 6, 3, 5))


def test_channel_shuffle_reads_groups_in_turn():
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert ops.channel_shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("groups", [1, 3])
def test_channel_shuffle_leaves_rgb_as_it_is(groups):
    images = random(1, 2, 3, 5, 7)
    assert torch.equal(ops.channel_shuffle(images, groups), images)


@pytest.mark.parametrize("groups", [0, 2])
def test_channel_shuffle_refuses_groups_that_do_not_divide(groups):
    with pytest.raises(ValueError, match=f"groups = {groups} does not divide the 3 channels"):
        ops.channel_shuffle(random(1, 1, 3, 2, 2), groups)


def test_frame_pairs_are_slices():
    features = random(41, 2, 6, 3, 5, 7)
    assert_same(ops.frame_pairs, lambda x: (x[:, 0::2], x[:, 1::2]), features)


def test_merge_windows_is_its_loop():
    def twin(x):
        B, T, C, H, W = x.shape
        return build(
            (B, T // 2, C, H, W),
            lambda b, k, c, h, w: x[b, 2 * k, c, h, w] + x[b, 2 * k + 1, c, h, w],
        )

    assert_same(ops.merge_windows, twin, random(2, 2, 4, 3, 5, 7))


def test_merge_windows_adds_pairs_without_overlap():
    frames = torch.arange(16.0).view(1, 16, 1, 1, 1)
    assert ops.merge_windows(frames).flatten().tolist() == [1, 5, 9, 13, 17, 21, 25, 29]


def test_merge_windows_commutes_within_a_pair():
    frames = random(3, 1, 4, 2, 3, 3)
    assert_close(ops.merge_windows(frames), ops.merge_windows(frames[:, [1, 0, 3, 2]]))


def test_window_statistics_are_their_loop():
    def twin(x):
        B, T, C, H, W = x.shape
        places = list(product(range(H), range(W)))

        def mean(b, c):
            gaps = [
                (x[b, t, c, h, w] - x[b, t + 1, c, h, w]).abs()
                for t in range(0, T, 2)
                for h, w in places
            ]
            return sum(gaps) / len(gaps)

        def variance(b, c):
            squares = [(x[b, t, c, h, w] - mean(b, c)) ** 2 for t in range(T) for h, w in places]
            return sum(squares) / len(squares)

        shape = (B, 1, C, 1, 1)
        return (
            build(shape, lambda b, k, c, h, w: mean(b, c)),
            build(shape, lambda b, k, c, h, w: variance(b, c)),
        )

    assert_same(ops.window_statistics, twin, random(4, 2, 4, 3, 2, 3))


def test_window_statistics_by_hand():
    frames = torch.tensor([1.0, 4.0, 2.0, 1.0]).view(1, 4, 1, 1, 1)
    mean, variance = ops.window_statistics(frames)  # gaps 3 and 1; squares 1, 4, 0, 1
    assert (mean.item(), variance.item()) == (2.0, 1.5)


@pytest.mark.parametrize(
    "function",
    [
        ops.frame_pairs,
        ops.merge_windows,
        ops.window_statistics,
        lambda x: ops.spatial_visual_norm(x, x[:, :1]),
        lambda x: fused.spatial_visual_norm(x, x[:, :1]),
    ],
)
def test_windows_need_an_even_number_of_frames(function):
    with pytest.raises(ValueError, match="even number of frames, got 5"):
        function(random(5, 1, 5, 2, 2, 2))


def test_normalise_windows_is_its_loop():
    def twin(xi, mean, variance, noise):
        return build(
            tuple(xi.shape),
            lambda b, k, c, h, w: (
                (xi[b, k, c, h, w] - mean[b, 0, c, 0, 0])
                / (variance[b, 0, c, 0, 0] + noise[b, 0, c, 0, 0]) ** 0.5
            ),
        )

    small = (2, 1, 5, 1, 1)
    positive = [random(seed, *small).abs() + 0.1 for seed in (7, 8)]
    assert_same(ops.normalise_windows, twin, random(6, 2, 3, 5, 2, 3), random(9, *small), *positive)


@pytest.mark.parametrize("module", [ops, fused])
def test_spatial_visual_norm_is_its_steps_one_by_one(module):
    def twin(x, noise):
        mean, variance = ops.window_statistics(x)
        return ops.normalise_windows(ops.merge_windows(x), mean, variance, noise)

    noise = random(36, 2, 1, 3, 1, 1).abs()
    features = random(37, 2, 6, 3, 5, 7)
    still = features.repeat_interleave(2, dim=1)  # the frames of a pair are equal
    for x in (features, 100 * features + 7, still):
        assert_same(module.spatial_visual_norm, twin, x, noise)


def test_window_noise_in_evaluation_is_the_mean_of_that_in_training():
    variance = torch.zeros(100_000, 1, 1, 1, 1)
    drawn, mean = ops.window_noise(variance, True), ops.window_noise(variance, False)
    assert drawn.min() >= 0
    assert_close(mean, torch.full_like(mean, ops.NOISE_SCALE * math.sqrt(2 / math.pi)))
    assert_close(drawn.mean(), mean[0, 0, 0, 0, 0], rtol=0.02, atol=0)


def test_concat_windows_is_its_loop():
    def twin(x):
        B, K, C, H, W = x.shape
        return build((B, K * C, H, W), lambda b, c, h, w: x[b, c // C, c % C, h, w])

    assert_same(ops.concat_windows, twin, random(10, 2, 5, 3, 2, 7))


def test_previous_windows_are_their_loop():
    def twin(x, prior):
        return build(
            tuple(x.shape),
            lambda b, k, c, h, w: x[b, k - 1, c, h, w] if k else prior[b, c, h, w],
        )

    assert_same(ops.previous_windows, twin, random(11, 2, 5, 3, 2, 7), random(12, 2, 3, 2, 7))


def test_previous_windows_shift_by_one_and_the_first_is_its_own():
    windows = torch.arange(8.0).view(1, 8, 1, 1, 1)
    assert ops.previous_windows(windows).flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    prior = torch.full((1, 1, 1, 1), -1.0)
    assert ops.previous_windows(windows, prior).flatten().tolist() == [-1, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("module", [ops, fused])
def test_masked_similarity_is_its_loop(module):
    def twin(features, mask, weighted):
        def value(n, c, h, w):
            m, phi = mask[n, 0, h, w], features[n, c, h, w]
            return (1 - m) * phi + m * phi * weighted[n, c, h, w]

        return build(tuple(features.shape), value)

    shape = (2, 5, 3, 7)
    assert_same(
        module.masked_similarity, twin,
        random(13, *shape), random(14, 2, 1, 3, 7).sigmoid(), random(15, *shape),
    )  # fmt: skip


@pytest.mark.parametrize("module", [ops, fused])
def test_mask_chooses_between_features_and_their_weighted_copy(module):
    features, weighted = random(16, 2, 5, 3, 7), random(17, 2, 5, 3, 7)
    off, on = torch.zeros(2, 1, 3, 7).double(), torch.ones(2, 1, 3, 7).double()
    assert torch.equal(module.masked_similarity(features, off, weighted), features)
    assert torch.equal(module.masked_similarity(features, on, weighted), features * weighted)


@pytest.mark.parametrize(
    ("halve", "stride", "offsets"), [(True, 2, (0, 1)), (False, 1, (-1, 0, 1))]
)
def test_max_pool_is_its_loop(halve, stride, offsets):
    def twin(x):
        N, C, H, W = x.shape

        def value(n, c, h, w):
            rows = [stride * h + i for i in offsets if 0 <= stride * h + i < H]
            columns = [stride * w + i for i in offsets if 0 <= stride * w + i < W]
            return max(x[n, c, row, column] for row, column in product(rows, columns))

        return build((N, C, H // stride, W // stride), value)

    assert_same(lambda x: ops.max_pool(x, halve), twin, random(33, 2, 3, 7, 5))


def test_converge_windows_is_its_loop():
    def twin(x):
        B, K, C, H, W = x.shape
        half = K // 2
        return tuple(
            build(
                (B, C, H, W),
                lambda b, c, h, w, begin=begin: (
                    sum(x[b, k, c, h, w] for k in range(begin, begin + half)) / half
                ),
            )
            for begin in (0, half)
        )

    assert_same(ops.converge_windows, twin, random(18, 2, 6, 3, 5, 7))


def test_gelu_product_is_its_loop():
    def twin(first, second):
        return build(tuple(first.shape), lambda *i: gelu(first[i]) * gelu(second[i]))

    assert_same(ops.gelu_product, twin, random(19, 2, 3, 5, 7), random(20, 2, 3, 5, 7))


def test_gelu_product_commutes():
    first, second = random(21, 2, 3, 5, 7), random(22, 2, 3, 5, 7)
    assert_close(ops.gelu_product(first, second), ops.gelu_product(second, first))


def test_spatial_softmax_is_its_loop():
    def twin(x):
        B, C, H, W = x.shape

        def value(b, c, h, w):
            total = sum(x[b, c, i, j].exp() for i, j in product(range(H), range(W)))
            return H * W * x[b, c, h, w].exp() / total

        return build((B, C, H, W), value)

    assert_same(ops.spatial_softmax, twin, random(23, 2, 3, 2, 5))


def test_spatial_softmax_sums_to_the_number_of_positions():
    attention = ops.spatial_softmax(random(24, 2, 3, 5, 7))
    assert_close(attention.sum((2, 3)), torch.full((2, 3), 35.0, dtype=torch.float64))
    assert_close(ops.spatial_softmax(torch.zeros(1, 1, 5, 7)), torch.ones(1, 1, 5, 7))


def test_split_channels_is_its_loop():
    def twin(x):
        B, C, H, W = x.shape

        def value(b, c, h, w):  # channel c holds offset (row, column) of channel c // 4
            row, column = c % 4 // 2, c % 2
            return x[b, c // 4, 2 * h + row, 2 * w + column]

        whole = build((B, 4 * C, H // 2, W // 2), value)
        return whole[:, : 2 * C], whole[:, 2 * C :]

    assert_same(ops.split_channels, twin, random(25, 2, 3, 4, 10))


@pytest.mark.parametrize(("height", "width"), [(3, 4), (4, 7)])
def test_split_channels_shows_an_odd_size(height, width):
    with pytest.raises(ValueError, match=f"even height and width, got {height} x {width}"):
        ops.split_channels(random(26, 1, 2, height, width))


def test_expand_channels_is_its_loop():
    def twin(x):
        B, D, h, w = x.shape
        C = D // 2  # of the result; the shuffle gives C / 2 channels, which come twice

        def value(b, c, i, j):
            return x[b, 4 * (c % (C // 2)) + 2 * (i % 2) + j % 2, i // 2, j // 2]

        return build((B, C, 2 * h, 2 * w), value)

    assert_same(ops.expand_channels, twin, random(27, 2, 12, 2, 5))


def test_expand_gives_each_branch_the_shape_that_was_split():
    features = random(28, 2, 6, 4, 10)
    for branch in ops.split_channels(features):
        assert branch.shape == (2, 12, 2, 5)
        assert ops.expand_channels(branch).shape == features.shape


def test_expand_of_the_first_branch_repeats_the_first_half_of_the_channels():
    features = random(29, 2, 6, 4, 10)
    first, second = ops.split_channels(features)
    assert torch.equal(ops.expand_channels(first), features[:, [0, 1, 2, 0, 1, 2]])
    assert torch.equal(ops.expand_channels(second), features[:, [3, 4, 5, 3, 4, 5]])


def test_expand_channels_shows_channels_that_are_not_divisible_by_four():
    with pytest.raises(ValueError, match="divisible by 4, got 6"):
        ops.expand_channels(random(30, 1, 6, 2, 2))


def softmax_over_channels(mix: Tensor, temporal: Tensor) -> Tensor:
    B, C, H, W = mix.shape

    def value(b, c):
        total = 0
        for h, w in product(range(H), range(W)):
            exponents = [(mix[b, i, h, w] * temporal[b, i, h, w]).exp() for i in range(C)]
            total = total + exponents[c] / sum(exponents)
        return C * total / (H * W)

    return build((B, C), value)


def test_block_in_attention_is_its_loop():
    mix, temporal = random(31, 2, 5, 3, 2), random(32, 2, 5, 3, 2)
    assert_same(ops.block_in_attention, softmax_over_channels, mix, temporal)


def test_block_in_attention_has_mean_one_over_channels():
    vector = ops.block_in_attention(random(33, 2, 5, 3, 7), random(34, 2, 5, 3, 7))
    assert_close(vector.mean(1), torch.ones(2, dtype=torch.float64))


def test_block_in_attention_shows_shapes_that_differ():
    with pytest.raises(ValueError, match=r"mix \(1, 2, 3, 3\) and T \(1, 2, 3, 4\)"):
        ops.block_in_attention(random(36, 1, 2, 3, 3), random(37, 1, 2, 3, 4))
