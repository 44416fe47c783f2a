"""Where a model looks: Grad-CAM of every model, and the maps that HST computes itself.

Grad-CAM (Selvaraju et al., 2017) weights the channels of the last feature maps that still have an
axis of time by the gradient of a class's logit. Here the weights are summed over positions, not
averaged, so the map is a density: for a model that averages its features and has one linear layer,
the mean of the map over the clip, before negative values are set to 0, is the logit less its bias.
A map shows what this model used for this class, and not whether that was right.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.data.clips import normalise
from hstlib.model import C3D, HST, ops
from hstlib.model.residual import VideoResNet


@dataclass(frozen=True)
class HSTMaps:
    """What HST computes inside, for one clip. A part that a reading leaves out is None.

    K windows, C channels, h x w positions; all float32.

    Attributes:
        masks: Mask of Eq. (9) of each unit, shape (K, h, w), 0 to 1: 0 is convolution, 1 is
            product. Later units have fewer positions.
        gamma: gamma of Eq. (10) after its batch norm, shape (C, h, w), any sign.
        beta: beta of Eq. (11), shape (C, h, w), not negative; the mean of each channel is 1.
        temporal: T of Eq. (1), shape (C, h, w), any sign.
        score: Argument of the softmax of Eq. (17), shape (C, h, w), any sign: mix times T, or the
            mix alone where the reading has T outside of the softmax.
        over_channels: Whether that softmax is over channels, as the equation is printed, or over
            positions.
    """

    masks: tuple[np.ndarray, ...] = ()
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None
    temporal: np.ndarray | None = None
    score: np.ndarray | None = None
    over_channels: bool = True


@dataclass(frozen=True)
class ClipMaps:
    """Explanation of one clip.

    Attributes:
        label: Index of the class that the map is for.
        probability: Probability of that class, 0 to 1.
        grad_cam: float32, shape (T, H, W), not negative, in units of the logit.
        hst: Maps of HST; None for other models.
    """

    label: int
    probability: float
    grad_cam: np.ndarray
    hst: HSTMaps | None


@dataclass(frozen=True)
class Layer:
    """One map of a clip, as it is drawn.

    Attributes:
        values: float32, shape (T, H, W), not negative.
        top: Value that gets the strongest colour; None: the largest of the video.
    """

    values: np.ndarray
    top: float | None = None


def feature_layers(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs are the last feature maps with an axis of time.

    The last unit of HST's hierarchy; the layer before C3D's last pooling; the blocks of a residual
    network, and of both streams of one with flow.

    Raises:
        ValueError: If the model is of another kind.
    """
    if isinstance(model, HST):
        return [model.hierarchy.units[-1]]
    if isinstance(model, C3D):
        return [model.features[-2]]
    if layers := [part.blocks for part in model.modules() if isinstance(part, VideoResNet)]:
        return layers
    raise ValueError(f"{type(model).__name__} is no model of hstlib, so it has no Grad-CAM")


def explain_clip(
    model: nn.Module, frames: np.ndarray, flow: np.ndarray, label: int | None = None
) -> ClipMaps:
    """Compute Grad-CAM, and HST's own maps, of one clip.

    Args:
        model: The model, in evaluation mode.
        frames: RGB frames as the model sees them, uint8, shape (T, H, W, 3).
        flow: Optical flow in pixels per frame, shape (2, T, H, W).
        label: Index of the class to explain; None: the most probable one.

    Returns:
        Maps; Grad-CAM has the size of the clip.

    Raises:
        ValueError: If the model is of an unknown kind, or cannot take the clip.
    """
    device = next(model.parameters()).device
    clips = normalise(torch.from_numpy(np.ascontiguousarray(frames)).to(device))[None]
    fields = torch.from_numpy(np.ascontiguousarray(flow)).to(device).float()[None]
    layers = feature_layers(model)
    inner = _inner_modules(model)
    with _frozen(model), _recorded(layers, leaves=True) as features, _recorded(inner) as outputs:
        (logits,) = model(clips, fields)
        label = int(logits.argmax()) if label is None else label
        maps = [features[layer] for layer in layers]
        gradients = torch.autograd.grad(logits[label], maps)
    cams = [
        _density(_channels_first(model, a), _channels_first(model, g), frames.shape[:3])
        for a, g in zip(maps, gradients, strict=True)
    ]
    return ClipMaps(
        label,
        float(logits.detach().softmax(0)[label]),
        _numpy(torch.stack(cams).sum(0).relu()),
        _hst_maps(model, outputs) if isinstance(model, HST) else None,
    )


def _channels_first(model: nn.Module, features: Tensor) -> Tensor:
    """Return features as (C, t, h, w); HST's windows are (1, K, C, h, w)."""
    return features[0].movedim(0, 1) if isinstance(model, HST) else features[0]


def _density(features: Tensor, gradient: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return one stream's Grad-CAM without the last step, which sets negative values to 0.

    Args:
        features: Shape (C, t, h, w).
        gradient: Gradient of the logit, of the same shape.
        size: T, H and W of the clip.

    Returns:
        Shape (T, H, W), any sign.
    """
    weights = gradient.sum((1, 2, 3))  # the mean, times the number of positions
    return enlarge(torch.einsum("c,cthw->thw", weights, features.detach()), size)


def enlarge(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate a map (t, h, w) linearly in time and space: (T, H, W)."""
    return functional.interpolate(values[None, None], tuple(size), mode="trilinear")[0, 0]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keep no gradients of weights, so that only what follows the feature maps is stored."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def _recorded(modules: list[nn.Module], leaves: bool = False) -> Iterator[dict[nn.Module, Tensor]]:
    """Record the outputs of modules while the model runs.

    Args:
        modules: Modules, each of which runs once.
        leaves: Cut the graph there: the model continues with outputs that need a gradient.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        outputs[module] = output.detach().requires_grad_() if leaves else output
        return outputs[module] if leaves else None

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _inner_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs :func:`_hst_maps` reads; a reading may lack some."""
    if not isinstance(model, HST):
        return []
    norms = (getattr(part, "norm", None) for part in _attention(model))
    masks = (unit.mask for unit in model.hierarchy.units)
    return [part for part in (*masks, model.temporal, *norms) if part is not None]


def _attention(model: HST) -> tuple[nn.Module, nn.Module]:
    return model.spatial_attention, model.hybrid_attention


def _hst_maps(model: HST, outputs: Mapping[nn.Module, Tensor]) -> HSTMaps:
    spatial, hybrid = (outputs.get(getattr(part, "norm", None)) for part in _attention(model))
    temporal = outputs.get(model.temporal)
    gates = [unit.gate(outputs[unit.mask]) for unit in model.hierarchy.units]
    score, over_channels = hybrid, True
    if hybrid is not None:
        over_channels = model.hybrid_attention.combine is ops.block_in_attention
        score = hybrid * temporal if over_channels else hybrid
    return HSTMaps(
        masks=tuple(_numpy(gate[:, 0]) for gate in gates if gate is not None),
        gamma=_first(spatial),
        beta=None if spatial is None else _first(ops.spatial_softmax(spatial)),
        temporal=_first(temporal),
        score=_first(score),
        over_channels=over_channels,
    )


def _first(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else _numpy(values[0])


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().numpy()


def layers_to_draw(maps: ClipMaps) -> dict[str, Layer]:
    """Reduce the maps of a clip to one value per frame and pixel, by the name to be drawn.

    * ``Grad-CAM``: as computed.
    * ``mask (9)``: mean over the units.
    * ``beta (11)``: mean over the channels; 1 on average.
    * ``score (17)``: how far the softmax over channels is from choosing none, in nats (its
      Kullback-Leibler divergence from equal shares), 0 to log C; for a softmax over positions, its
      mean over the channels, 1 on average.
    * ``T (1)``: root mean square over the channels.

    gamma has signs, so its mean would say little; it is in :class:`HSTMaps` only.
    """
    layers = {"Grad-CAM": Layer(maps.grad_cam)}
    size, hst = maps.grad_cam.shape, maps.hst or HSTMaps()
    if hst.masks:
        enlarged = [_numpy(enlarge(torch.from_numpy(mask), size)) for mask in hst.masks]
        layers["mask (9)"] = Layer(np.mean(enlarged, axis=0), 1.0)
    still = {}
    if hst.beta is not None:
        still["beta (11)"] = hst.beta.mean(0)
    if hst.score is not None:
        still["score (17)"] = choice_of_softmax(hst.score, hst.over_channels)
    if hst.temporal is not None:
        still["T (1)"] = np.sqrt((hst.temporal**2).mean(0))
    for name, values in still.items():
        layers[name] = Layer(_numpy(enlarge(torch.from_numpy(values)[None], size)))
    return layers


def choice_of_softmax(score: np.ndarray, over_channels: bool) -> np.ndarray:
    """Return how strongly the softmax of Eq. (17) prefers something at each position.

    Args:
        score: Argument of the softmax, shape (C, h, w).
        over_channels: Whether the softmax is over the channels, or over the positions.

    Returns:
        Shape (h, w), not negative; :func:`layers_to_draw` describes both cases.
    """
    values = torch.from_numpy(score)
    if not over_channels:
        return _numpy(ops.spatial_softmax(values[None])[0].mean(0))
    shares = values.log_softmax(0)  # logarithms of the shares
    divergence = (shares.exp() * (shares + np.log(len(score)))).sum(0)
    return _numpy(divergence.clamp(min=0))
