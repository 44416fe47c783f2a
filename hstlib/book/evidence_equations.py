"""Predicates on the equations and modules of section 3, computed on small random tensors."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from hstlib.book.paper import PAPER_ROWS
from hstlib.book.verdicts import UNCHECKABLE, Finding, decide
from hstlib.model import ops
from hstlib.model.hst import HST
from hstlib.model.inputs import NUM_FRAMES

CHANNELS, HEIGHT, WIDTH = 8, 6, 4
"""Sizes of the random feature maps."""


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _features(seed: int = 0) -> Tensor:
    """Return features of frames, shape (1, 16, C, H, W)."""
    return _random(1, NUM_FRAMES, CHANNELS, HEIGHT, WIDTH, seed=seed)


@cache
def small_hst() -> HST:
    """Build HST at demo size in float64, with fixed random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HST(5, "demo").double().eval()


def _inputs() -> tuple[Tensor, Tensor]:
    return _random(1, 3, NUM_FRAMES, 32, 32), _random(1, 2, NUM_FRAMES, 32, 32, seed=1)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def has_parts(parts: list[str]) -> Finding:
    """Every named part exists in the built HST."""
    built = {name for name, _ in small_hst().named_modules()}
    missing = [part for part in parts if part not in built]
    return decide(not missing, parts=_listed(parts), count=len(parts), missing=missing)


def forward_order(parts: list[str]) -> Finding:
    """The parts of HST compute in this order when a clip is classified."""
    model, called = small_hst(), []
    hooks = [
        model.get_submodule(part).register_forward_hook(lambda *_, name=part: called.append(name))
        for part in parts
    ]
    with torch.no_grad():
        model(*_inputs())
    for hook in hooks:
        hook.remove()
    return decide(called == parts, order=_listed(called), count=len(called))


def both_streams() -> Finding:
    """The logits of HST depend on the images and on the flow."""
    model, (clips, flow) = small_hst(), _inputs()
    with torch.no_grad():
        base = model(clips, flow)
        images = (model(-clips, flow) - base).abs().max().item()
        motion = (model(clips, -flow) - base).abs().max().item()
    return decide(min(images, motion) > 0, images=images, motion=motion)


def kernel(part: str, size: list[int], channels: int | None = None) -> Finding:
    """A convolution of HST has this kernel (time, height, width) and number of channels."""
    layer = small_hst().get_submodule(part)
    built = (1,) * (3 - len(layer.kernel_size)) + tuple(layer.kernel_size)
    fits = list(built) == size and channels in (None, layer.out_channels)
    return decide(fits, kernel=" × ".join(map(str, built)), channels=layer.out_channels)


def first_activation() -> Finding:
    """LeakyReLU follows the first layer of HST."""
    windows, seen = small_hst().windows, {}
    hooks = [
        windows.omega.register_forward_hook(lambda *args: seen.update(first=args[-1])),
        windows.phi.register_forward_pre_hook(lambda _, args: seen.update(second=args[0])),
    ]
    with torch.no_grad():
        windows(_inputs()[0])
    for hook in hooks:
        hook.remove()
    leaky = nn.functional.leaky_relu(seen["first"])
    negative = (seen["first"] < 0).double().mean().item()
    return decide(torch.equal(leaky, seen["second"]), negative=negative)


def axis_order(temporal: list[int], spatial: list[int]) -> Finding:
    """Some order of the axes makes the first kernel temporal only and the second spatial only."""
    times = [
        axis
        for axis in range(3)
        if temporal[axis] > 1 and math.prod(temporal) == temporal[axis] and spatial[axis] == 1
    ]
    return decide(bool(times), orders=3, fitting=len(times))


def shuffle_is_identity() -> Finding:
    """Shuffling the channels of RGB moves something, for some number of groups."""
    images = _random(1, 3, HEIGHT, WIDTH)
    groups = [n for n in range(1, 4) if 3 % n == 0]
    moved = [n for n in groups if not torch.equal(ops.channel_shuffle(images, n), images)]
    return decide(bool(moved), groups=" or ".join(map(str, groups)), moved=len(moved))


def dense_weights(size: int) -> Finding:
    """A dense layer from an image to a vector of its size has fewer weights than the whole HST."""
    weights = (3 * size**2) ** 2
    printed = next(row for row in PAPER_ROWS if row.model == "hst")
    times = weights / (1e6 * float(printed.parameters))
    return decide(times < 1, weights=weights, times=times, printed=printed.parameters)


def reshape_keeps_values() -> Finding:
    """Flattening an image and reshaping it again changes nothing."""
    image = _random(3, HEIGHT, WIDTH)
    return decide(torch.equal(image.flatten().view_as(image), image), values=image.numel())


def _plain_merge(features: Tensor) -> Tensor:
    pairs = range(0, NUM_FRAMES, 2)
    return torch.stack([features[:, i] + features[:, i + 1] for i in pairs], 1)


def _plain_concat(features: Tensor) -> Tensor:
    windows = _plain_merge(features)
    return torch.cat([windows[:, i] for i in range(windows.shape[1])], 1)


def _plain_gelu_product(features: Tensor) -> Tensor:
    first, second = (x * (1 + torch.erf(x / math.sqrt(2))) / 2 for x in features[0, :2])
    return first * second


TRANSCRIPTIONS: dict[int, tuple[Callable, Callable]] = {
    2: (_plain_merge, ops.merge_windows),
    6: (_plain_concat, lambda x: ops.concat_windows(ops.merge_windows(x))),
    10: (_plain_gelu_product, lambda x: ops.gelu_product(x[0, 0], x[0, 1])),
}
"""Plain transcription and library function of the equations that leave no choice."""


def transcribed(equation: int) -> Finding:
    """The equation, transcribed as printed, equals the library."""
    plain, library = (compute(_features()) for compute in TRANSCRIPTIONS[equation])
    same = plain.shape == library.shape and torch.allclose(plain, library)
    return decide(same, shape=tuple(library.shape), channels=CHANNELS, windows=NUM_FRAMES // 2)


def sum_needs_frames() -> Finding:
    """The sum of Eq. (3) over all frames only uses frames that exist."""
    needed = max(i + 1 for i in range(1, NUM_FRAMES + 1))
    return decide(needed <= NUM_FRAMES, frames=NUM_FRAMES, needed=needed)


def is_a_variance() -> Finding:
    """Eq. (4) around Eq. (3)'s u is the variance of the features."""
    features = _features()
    _, sigma = ops.window_statistics(features)
    variance = features.var(ops.FRAMES_AND_POSITIONS, correction=0)
    ratio = (sigma.flatten() / variance.flatten()).mean().item()
    return decide(abs(ratio - 1) < 0.01, ratio=ratio)


def noise_under_the_root(variance: float, scale: float) -> Finding:
    """How often Gaussian noise makes the term under the root of Eq. (5) negative."""
    share = 0.5 * math.erfc(variance / scale / math.sqrt(2))
    return Finding(UNCHECKABLE, {"share": share, "variance": variance, "scale": scale})


def is_a_similarity() -> Finding:
    """Eq. (3) is larger for equal frames than for different ones, as a similarity would be."""
    features = _features()
    equal = features[:, :1].expand_as(features)
    u_equal, u_different = (ops.window_statistics(x)[0].mean().item() for x in (equal, features))
    windows = ops.spatial_visual_norm(features, torch.zeros(1, 1, CHANNELS, 1, 1))
    shape = " × ".join(map(str, windows.shape[1:]))
    return decide(u_equal > u_different, equal=u_equal, different=u_different, shape=shape)


def keeps_contrast(factor: float) -> Finding:
    """Scaling the features leaves the normalised windows as they were."""
    features = _features() + 1
    noise = torch.full((1, 1, CHANNELS, 1, 1), 1e-3, dtype=torch.float64)
    windows, scaled = (ops.spatial_visual_norm(x, noise) for x in (features, factor * features))
    change = ((scaled - windows).abs().mean() / windows.abs().mean()).item()
    mean, spread = windows.mean().item(), windows.std().item()
    return decide(change < 0.01, factor=factor, change=change, mean=mean, spread=spread)


def is_one_channel() -> Finding:
    """One channel of Eq. (6)'s stack has the shape that the paper gives s."""
    stack = ops.concat_windows(ops.merge_windows(_features()))
    window = (CHANNELS, HEIGHT, WIDTH)
    shapes = {"channel": tuple(stack[0, :1].shape), "window": window}
    return decide(shapes["channel"] == window, **shapes, channels=stack.shape[1])


def summands_fit() -> Finding:
    """The summands of Eq. (8) have one shape if only the first is down-sampled."""
    features = _random(1, CHANNELS, HEIGHT, WIDTH)
    first, second = ops.max_pool(features, halve=True), features
    shapes = {"first": tuple(first.shape[2:]), "second": tuple(second.shape[2:])}
    return decide(first.shape == second.shape, **shapes)


def is_maximum() -> Finding:
    """The down-sample module takes the maximum of each 2 x 2 square."""
    features = _random(1, CHANNELS, HEIGHT, WIDTH)
    squares = features.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
    return decide(torch.equal(squares, ops.max_pool(features, halve=True)), size=2)


def is_a_probability() -> Finding:
    """The similarity delta of Eq. (9) stays between 0 and 1."""
    features = _random(1, CHANNELS, HEIGHT, WIDTH)
    mask = _random(1, 1, HEIGHT, WIDTH, seed=1).sigmoid()
    delta = ops.masked_similarity(features, mask, _random(1, CHANNELS, HEIGHT, WIDTH, seed=2))
    low, high = delta.min().item(), delta.max().item()
    return decide(low >= 0 and high <= 1, low=low, high=high)


def information_flow() -> Finding:
    """In one unit a window influences itself and the following window only."""
    unit = small_hst().hierarchy.units[0]
    windows = _random(1, NUM_FRAMES // 2, unit.phi.in_channels, HEIGHT, WIDTH)
    changed = windows.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        difference = (unit(changed) - unit(windows)).abs().amax((0, 2, 3, 4))
    reached = [k - 3 for k in range(len(difference)) if difference[k] > 1e-9]
    return decide(reached == [0, 1], forwards=max(reached), backwards=-min(reached))


def split_keeps_values() -> Finding:
    """Two equal branches of Eq. (13) keep every value of lambda."""
    feature_map = torch.arange(float(CHANNELS * HEIGHT * WIDTH)).view(1, CHANNELS, HEIGHT, WIDTH)
    first, _ = ops.split_channels(feature_map)
    kept, values = first.unique().numel(), feature_map.numel()
    return decide(kept == values, kept=kept, values=values, share=kept / values)


def split_counts() -> Finding:
    """Eq. (13) and Eq. (14) give a branch equally many channels."""
    by_13, by_14 = 2 * CHANNELS, CHANNELS
    left = 2 * by_14 * (HEIGHT // 2) * (WIDTH // 2) / (CHANNELS * HEIGHT * WIDTH)
    return decide(by_13 == by_14, first="2 C", second="C", left=left)


def expand_counts() -> Finding:
    """Eq. (16) has as many values on its left as on its right, and more channels on its right."""
    left, right = 2 * CHANNELS * (HEIGHT // 2) * (WIDTH // 2), CHANNELS * HEIGHT * WIDTH
    return decide(left == right, times=right / left, channels=CHANNELS / (2 * CHANNELS))


def expand_is_redundant() -> Finding:
    """The second half of the expanded channels equals the first."""
    expanded = ops.expand_channels(_random(1, 2 * CHANNELS, HEIGHT // 2, WIDTH // 2))
    first, second = expanded.chunk(2, dim=1)
    return decide(torch.equal(first, second), share=first.shape[1] / expanded.shape[1])


def product_is_sum() -> Finding:
    """The two lines of Eq. (17), a matrix product and a sum of the branches, are equal."""
    first, second = _random(CHANNELS, HEIGHT, HEIGHT), _random(CHANNELS, HEIGHT, HEIGHT, seed=1)
    product, total = first @ second, first + second
    apart = ((product - total).norm() / total.norm()).item()
    return decide(apart < 1e-6, apart=apart)


def text_is_equation() -> Finding:
    """T inside the softmax of Eq. (17) equals T outside of it, as the text below has it."""
    mix, temporal = _random(1, CHANNELS, HEIGHT, WIDTH), _random(1, CHANNELS, HEIGHT, WIDTH, seed=1)
    inside, outside = (mix * temporal).softmax(1), mix.softmax(1) * temporal
    apart = ((inside - outside).norm() / outside.norm()).item()
    return decide(apart < 1e-6, apart=apart)


def pooled_softmax() -> Finding:
    """What is left of different clips if a softmax over positions is averaged over positions."""
    inside = _random(16, CHANNELS, HEIGHT, WIDTH)
    vectors = inside.flatten(2).softmax(-1).mean(-1)
    spread = (vectors.max() - vectors.min()).item()
    if spread > 1e-9:
        raise ValueError(f"the pooled softmax varies by {spread}, expected a constant")
    channels = (inside.softmax(1).mean((2, 3)).std()).item()
    return Finding(UNCHECKABLE, {"clips": len(inside), "channels": channels})


def only_a_softmax() -> Finding:
    """The vector that HST classifies is a softmax: not negative, with a fixed sum."""
    model, seen = small_hst(), []
    hook = model.hybrid_attention.register_forward_hook(lambda *args: seen.append(args[-1]))
    with torch.no_grad():
        model(*_inputs())
    hook.remove()
    vector = seen[0]
    fixed = torch.allclose(vector.sum(1), torch.full((1,), float(vector.shape[1])).double())
    return decide(bool(vector.min() >= 0) and fixed, channels=vector.shape[1])


def every_parameter_trains() -> Finding:
    """Every parameter of HST gets a finite gradient from the logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = HST(5, "demo").double().train()
        clips, flow = (x.expand(2, -1, -1, -1, -1) * torch.rand(2, 1, 1, 1, 1) for x in _inputs())
        model(clips.double(), flow.double()).square().sum().backward()
    gradients = [p.grad for p in model.parameters()]
    trained = sum(g is not None and bool(g.isfinite().all()) for g in gradients)
    return decide(trained == len(gradients), trained=trained, tensors=len(gradients))
