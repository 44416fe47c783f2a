"""HST, the Hierarchy Spatial-Temporal Transformer: the three parts wired together."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hstlib.attention import HybridAttention, SpatialAttention
from hstlib.reformer import HierarchyResidualNetwork, SpatialVisualWindows, TemporalConvolution

NUM_FRAMES = 16
"""Frames of a clip; two make a window."""


@dataclass(frozen=True)
class Backbone:
    """Sizes of HST.

    Attributes:
        channels: C0, channels of the windows.
        stages: Units and channels of each stage.
        hidden: Width of the first fully connected layer of the head.
    """

    channels: int
    stages: tuple[tuple[int, int], ...]
    hidden: int


# Units per stage: Table 1 and Table 3 (the text of section 4 says 4-7-7-3 for the first, but only
# 4-6-6-3 gives Table 2's 65.53 M of R2Plus1D). Widths: the printed 64 and 128 in every stage give
# 2.3 M; these give the 35.54 M of Table 2 and the 24.1 M of Table 4. A construction, no recovery.
BACKBONES = {
    "resnet21": Backbone(64, ((4, 96), (6, 320), (6, 496), (3, 608)), 1024),
    "vgg13": Backbone(64, ((4, 96), (3, 320), (3, 496), (3, 608)), 1024),
    "demo": Backbone(16, ((2, 16), (2, 32), (2, 48)), 128),
}


class HST(nn.Module):
    """The paper's model.

    Paper: section 3, Figure 1; head: Table 1, last row ("global average pool, 1024 FC, softmax",
    the softmax being part of the loss).

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21``, ``vgg13`` or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        super().__init__()
        sizes = pick(BACKBONES, backbone)
        channels = sizes.stages[-1][1]
        self.divisor = 2 ** len(sizes.stages)  # stride of Phi and the halvings
        self.windows = SpatialVisualWindows(sizes.channels)
        self.hierarchy = HierarchyResidualNetwork(NUM_FRAMES // 2, sizes.channels, sizes.stages)
        self.temporal = TemporalConvolution(channels)
        self.spatial_attention = SpatialAttention(channels)
        self.hybrid_attention = HybridAttention(channels)
        self.head = nn.Sequential(
            nn.Linear(channels, sizes.hidden),
            nn.LeakyReLU(),
            nn.Linear(sizes.hidden, num_classes),
        )

    def recompute(self) -> None:
        """Train with half the memory for more time, to the same weights.

        Each HResidual unit works what it did not keep out again in the backward pass.
        """
        for unit in self.hierarchy.units:
            unit.recompute = True

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clips: Normalised RGB, float, shape (B, 3, 16, H, W).
            flow: Pixels per frame, float, shape (B, 2, 16, H, W).

        Returns:
            Logits, shape (B, num_classes).

        Raises:
            ValueError: If a shape or type does not fit; the message shows both.
        """
        check_clips(clips, self.divisor)
        check_flow(flow, clips)
        first, second = self.hierarchy(self.windows(clips))
        spatial = self.spatial_attention(first, second)
        temporal = self.temporal(flow, first.shape[-2:])
        return self.head(self.hybrid_attention(spatial, temporal))


def pick(table: dict, backbone: str):
    """Return the entry of a table of backbones.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    if backbone not in table:
        raise ValueError(f"backbone {backbone!r} is unknown; use one of {sorted(table)}")
    return table[backbone]


def check_clips(clips: Tensor, divisor: int) -> None:
    """Refuse clips that no model of this package can take.

    Args:
        clips: To be of shape (B, 3, 16, H, W) and floating point.
        divisor: Of H and W.

    Raises:
        ValueError: With the shape and what is expected.
    """
    expected = f"(B, 3, {NUM_FRAMES}, H, W) with H and W divisible by {divisor}"
    shape = tuple(clips.shape)
    if clips.ndim != 5 or shape[1:3] != (3, NUM_FRAMES):
        raise ValueError(f"clips have shape {shape}, expected {expected}")
    if shape[3] % divisor or shape[4] % divisor or 0 in shape:
        raise ValueError(f"clips have shape {shape}, expected {expected}")
    if not torch.is_floating_point(clips):
        raise ValueError(
            f"clips {shape} are {clips.dtype}, expected floating point; "
            "normalise uint8 frames with hstlib.datasets.normalise"
        )
    _check_finite(clips, "clips")


def check_flow(flow: Tensor, clips: Tensor) -> None:
    """Refuse flow that does not belong to the clips.

    Args:
        flow: To be of shape (B, 2, 16, H, W) and floating point.
        clips: Shape (B, 3, 16, H, W).

    Raises:
        ValueError: With both shapes.
    """
    expected = (clips.shape[0], 2, *clips.shape[2:])
    if tuple(flow.shape) != expected or not torch.is_floating_point(flow):
        raise ValueError(
            f"flow has shape {tuple(flow.shape)} and type {flow.dtype}, "
            f"expected floating point {expected} for clips {tuple(clips.shape)}"
        )
    _check_finite(flow, "flow")


def _check_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity on the CPU; on a GPU the look would stop the stream of work."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        if not torch.isfinite(values.sum()):
            raise ValueError(
                f"{name} {tuple(values.shape)} hold NaN or infinity, expected finite numbers"
            )
