"""HST with all three modules in each unit, another reading of Tables 1 and 3.

:mod:`hstlib.model.readings` names it ``modules-in-each-unit``.
"""

import torch
from torch import Tensor, nn

from hstlib.model import ops
from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.hst import HST
from hstlib.model.reformer import HierarchyResidualNetwork, TemporalConvolution


class UnitAttention(nn.Module):
    """Spatial and hybrid attention inside a stage: weights for the channels of a unit's windows.

    Paper: Tables 1 and 3, HST's column, "three stages x4"; section 4, "three sections in the table
    is interpreted as a three-stage calculation model, which are: hierarchy residual reformer,
    spatial attention module, and hybrid spatial-temporal attention".
    Reading: R21. The next unit needs windows, not Eq. (17)'s vector, so the windows are multiplied
    by the vector, channel by channel. As Eq. (17) is printed, the vector's mean is 1.

    Args:
        channels: C, channels of the windows.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.temporal = TemporalConvolution(channels)
        self.spatial_attention = SpatialAttention(channels)
        self.hybrid_attention = HybridAttention(channels)

    def forward(self, windows: Tensor, maps: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
        """Weight the channels of the windows.

        Args:
            windows: Shape (B, K, C, h, w).
            maps: s1 and s2 of these windows, each of shape (B, C, h, w).
            flow: Pixels per frame, shape (B, 2, T, H, W).

        Returns:
            Shape (B, K, C, h, w).
        """
        spatial = self.spatial_attention(*maps)  # (B, C, h, w)
        temporal = self.temporal(flow, windows.shape[-2:])  # (B, C, h, w)
        vector = self.hybrid_attention(spatial, temporal)  # (B, C)
        return windows * vector[:, None, :, None, None]  # (B, K, C, h, w)


class ThreeModuleHierarchy(HierarchyResidualNetwork):
    """Hierarchy residual network whose units are each followed by a :class:`UnitAttention`.

    The modules of the last unit are the model's own, whose vector is classified.

    Args:
        hierarchy: Network to take prior, units and convergence from.
    """

    def __init__(self, hierarchy: HierarchyResidualNetwork):
        nn.Module.__init__(self)
        self.prior, self.units, self.converge = hierarchy.prior, hierarchy.units, hierarchy.converge
        widths = [unit.phi.out_channels for unit in hierarchy.units]
        self.attention = nn.ModuleList(UnitAttention(channels) for channels in widths[:-1])

    def forward(self, windows: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the two spatial feature maps.

        Args:
            windows: Shape (B, K, C0, H, W).
            flow: Pixels per frame, shape (B, 2, T, 2 H, 2 W).

        Returns:
            s1 and s2, each of shape (B, C, h, w), halved once for each stage after the first.
        """
        prior = self.prior(ops.concat_windows(windows))  # (B, C0, H, W)
        windows = self.units[0](windows, prior)
        for attention, unit in zip(self.attention, self.units[1:], strict=True):
            windows = unit(attention(windows, self.converge(windows), flow))
        return self.converge(windows)


def maps_of_clips_and_flow(model: HST, clips: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Compute s1 and s2 of a model whose hierarchy reads the flow, too."""
    return model.hierarchy(model.windows(clips), flow)


def add_modules_to_units(model: HST) -> None:
    """Put spatial and hybrid attention behind each unit, in place.

    All weights of the model stay equal. The added ones are drawn as the global generator would draw
    next; its state is restored, so whatever is random later stays equal, too.
    """
    with torch.random.fork_rng(devices=[]):
        model.hierarchy = ThreeModuleHierarchy(model.hierarchy)
    model.maps = maps_of_clips_and_flow
