"""HST, the Hierarchy Spatial-Temporal Transformer: sections 3.1 to 3.3 and the classifier head."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.inputs import NUM_FRAMES, check_clips, check_flow, lookup_backbone
from hstlib.model.reformer import (
    HierarchyResidualNetwork,
    SpatialVisualWindows,
    TemporalConvolution,
)


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


# Units per stage: Tables 1 and 3. (The text of section 4 says 4-7-7-3 for ResNet-21, but only
# 4-6-6-3 gives R2Plus1D the 65.53 M of Table 2.) Widths: the printed 64 and 128 in every stage give
# HST 2.3 M; these give the 35.54 M of Table 2 and the 24.1 M of Table 4. They are a construction,
# not a recovery.
BACKBONES = {
    "resnet21": Backbone(64, ((4, 96), (6, 320), (6, 496), (3, 608)), 1024),
    "vgg13": Backbone(64, ((4, 96), (3, 320), (3, 496), (3, 608)), 1024),
    "demo": Backbone(16, ((2, 16), (2, 32), (2, 48)), 128),
}


class HST(nn.Module):
    """The paper's model.

    Paper: section 3, Figure 1; head: Table 1, last row ("global average pool, 1024 FC, softmax";
    the softmax is part of the loss).

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21``, ``vgg13`` or ``demo``.

    Attributes:
        maps: Section 3.1 without Eq. (1): model, clips (B, 3, 16, H, W) and flow (B, 2, 16, H, W)
            to s1 and s2, each (B, C, h, w).

    Raises:
        ValueError: If the backbone is unknown.
    """

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        super().__init__()
        sizes = lookup_backbone(BACKBONES, backbone)
        channels = sizes.stages[-1][1]
        self.divisor = 2 ** len(sizes.stages)  # Phi halves the size, and so does each later stage
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
        self.maps: Callable[[HST, Tensor, Tensor], tuple[Tensor, Tensor]] = maps_of_clips

    def enable_activation_checkpointing(self) -> None:
        """Train with about half the memory: slower, same weights.

        Each HResidual unit recomputes in the backward pass what it did not store.
        """
        for unit in self.hierarchy.units:
            unit.activation_checkpointing = True

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clips: Normalised RGB, shape (B, 3, 16, H, W), of the weights' type.
            flow: Pixels per frame, shape (B, 2, 16, H, W), of the weights' type.

        Returns:
            Logits, shape (B, num_classes).

        Raises:
            ValueError: If shape, type or values do not fit; the message shows them.
        """
        dtype = next(self.parameters()).dtype
        check_clips(clips, self.divisor, dtype)
        check_flow(flow, clips, dtype)
        first, second = self.maps(self, clips, flow)  # s1 and s2, each (B, C, h, w)
        spatial = self.spatial_attention(first, second)  # lambda, (B, C, h, w)
        temporal = self.temporal(flow, first.shape[-2:])  # T, (B, C, h, w)
        return self.head(self.hybrid_attention(spatial, temporal))


def maps_of_clips(model: HST, clips: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Compute s1 and s2 from the clips alone; only T reads the flow."""
    return model.hierarchy(model.windows(clips))
