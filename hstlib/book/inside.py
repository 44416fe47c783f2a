"""What a model computes inside for one clip: every tensor that an equation of section 3 names."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hstlib.model import HST, ops
from hstlib.model.inputs import NUM_FRAMES


def look_inside(model: HST, clips: Tensor, flow: Tensor) -> dict[str, Tensor]:
    """Classify clips and keep what the parts of the model compute on the way.

    Args:
        model: HST, in evaluation or training mode.
        clips: Normalised RGB, shape (B, 3, 16, H, W).
        flow: Pixels per frame, shape (B, 2, 16, H, W).

    Returns:
        Tensors by name, detached, in the order of the computation. ``features``, Phi(v), is
        (B, 16, C, h, w); ``xi`` and ``s`` are (B, 8, C, h, w), ``u`` and ``sigma`` (B, 1, C, 1, 1),
        ``s_spa`` is (B, 8 C, h, w), ``prior`` (B, C, h, w), ``mask 1`` and so on, one per unit,
        (B, 8, 1, h, w). ``s1``, ``s2``, ``gamma``, ``beta``, ``lambda``, ``T``, ``b1 final``, ``b2
        final``, ``mix`` and ``share``, the softmax of Eq. (17) before its average, are
        (B, C, h, w); ``branch 1`` and ``branch 2``, after fc, are (B, 2 C, h / 2, w / 2);
        ``vector`` is (B, C) and ``logits`` (B, num_classes).
    """
    outputs: dict[str, Tensor] = {}
    watched = _watched(model)
    hooks = [part.register_forward_hook(_keep(outputs, name)) for name, part in watched.items()]
    try:
        with torch.no_grad():
            outputs["logits"] = model(clips, flow)
    finally:
        for hook in hooks:
            hook.remove()
    return _named(model, outputs, len(clips))


def _watched(model: HST) -> dict[str, nn.Module]:
    """Return the parts whose outputs are kept."""
    hybrid = model.hybrid_attention
    units = {f"mask {i}": unit.mask for i, unit in enumerate(model.hierarchy.units, start=1)}
    return units | {
        "features": model.windows.norm,
        "s": model.windows,
        "prior": model.hierarchy.prior,
        "maps": model.hierarchy,
        "gamma": model.spatial_attention.norm,
        "lambda": model.spatial_attention,
        "T": model.temporal,
        "branch 1": hybrid.branches[0],
        "branch 2": hybrid.branches[1],
        "mix": hybrid.norm,
        "vector": hybrid,
    }


def _keep(outputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        # clone, because activations in place follow some parts
        outputs[name] = torch.stack(output) if isinstance(output, tuple) else output.clone()

    return keep


def _named(model: HST, outputs: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
    """Name the outputs as the paper does, and add what functions compute between the parts."""
    features = outputs["features"].unflatten(0, (batch, NUM_FRAMES))
    u, sigma = ops.window_statistics(features)
    first, second = outputs["maps"]
    hybrid, spatial = model.hybrid_attention, outputs["lambda"]
    size = spatial.shape[-2:]
    finals = [hybrid.expand(outputs[f"branch {i}"])[..., : size[0], : size[1]] for i in (1, 2)]
    inside = outputs["mix"] * outputs["T"]
    masks = {
        f"mask {i}": unit.gate(outputs[f"mask {i}"]).unflatten(0, (batch, NUM_FRAMES // 2))
        for i, unit in enumerate(model.hierarchy.units, start=1)
    }
    return {
        "features": features, "xi": ops.merge_windows(features), "u": u, "sigma": sigma,
        "s": outputs["s"], "s_spa": ops.concat_windows(outputs["s"]), "prior": outputs["prior"],
        **masks, "s1": first, "s2": second, "gamma": outputs["gamma"],
        "beta": ops.spatial_softmax(outputs["gamma"]), "lambda": spatial, "T": outputs["T"],
        "branch 1": outputs["branch 1"], "branch 2": outputs["branch 2"],
        "b1 final": finals[0], "b2 final": finals[1], "mix": outputs["mix"],
        "share": inside.softmax(1) * inside.shape[1], "vector": outputs["vector"],
        "logits": outputs["logits"],
    }  # fmt: skip
