"""The networks that the field calls R3D and R(2+1)D, to be compared beside the paper's.

The paper's baselines of these names are other networks (:mod:`hstlib.model.baselines`). The two
here have the layers of Tran et al.'s 18-layer networks (*A Closer Look at Spatiotemporal
Convolutions*, 2018) as torchvision builds them (``r3d_18`` and ``r2plus1d_18``), and its initial
weights.
"""

from torch import nn

from hstlib.model.inputs import lookup_backbone
from hstlib.model.residual import (
    FLAT,
    STRIDE_1,
    STRIDE_2,
    BlockMaker,
    ResidualBlock,
    VideoResNet,
    convolution,
    norm_and_relu,
    plain_block,
    residual_stages,
    shortcut,
)

EIGHTEEN_LAYERS = ((2, 64), (2, 128), (2, 256), (2, 512))
STAGES = {
    "resnet21": EIGHTEEN_LAYERS,
    "vgg13": EIGHTEEN_LAYERS,
    "demo": ((1, 16), (1, 32), (1, 48)),
}
"""Units and channels of each stage. There is no standard network of the paper's depths, so both of
its backbones stand for the 18-layer one. ``demo`` has the widths and units of the paper's baselines
at demo size."""


class StandardR3D(VideoResNet):
    """18-layer residual network of full 3-D convolutions, as torchvision's ``r3d_18``.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` or ``vgg13`` (both the 18-layer network) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        stages = lookup_backbone(STAGES, backbone)
        width = stages[0][1]
        stem = nn.Sequential(convolution(3, width, (3, 7, 7), (1, 2, 2)), norm_and_relu(width))
        super().__init__(stem, *_blocks_and_head(stages, plain_block, num_classes))


class StandardR2Plus1D(VideoResNet):
    """18-layer (2+1)D residual network, as torchvision's ``r2plus1d_18``.

    Unlike in the paper's R2Plus1D, one batch norm follows a temporal convolution, not two; the two
    factored convolutions of a block have equally many channels between space and time; and
    shortcuts are plain projections.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` or ``vgg13`` (both the 18-layer network) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        stages = lookup_backbone(STAGES, backbone)
        width = stages[0][1]
        between = 45 * width // 64  # torchvision: 45 of 64
        stem = nn.Sequential(
            convolution(3, between, (1, 7, 7), (1, 2, 2)),
            norm_and_relu(between),
            convolution(between, width, (3, 1, 1), STRIDE_1),
            norm_and_relu(width),
        )
        super().__init__(stem, *_blocks_and_head(stages, _factored_block, num_classes))


def _blocks_and_head(
    stages: tuple[tuple[int, int], ...], make: BlockMaker, num_classes: int
) -> tuple[list[ResidualBlock], nn.Linear]:
    """Build all residual blocks, and the layer that follows the global average."""
    blocks = residual_stages(stages[0][1], [(units, width, make) for units, width in stages])
    return blocks, nn.Linear(stages[-1][1], num_classes)


def _factored_block(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
    """Build a block of two factored convolutions with a plain shortcut."""
    stride = STRIDE_2 if halve else STRIDE_1
    # as many channels between space and time as keep the weights of the first full 3x3x3
    between = 27 * in_channels * out_channels // (9 * in_channels + 3 * out_channels)

    def factored(channels: int, stride: tuple[int, int, int]) -> nn.Sequential:
        return nn.Sequential(
            convolution(channels, between, FLAT, (1, *stride[1:])),
            norm_and_relu(between),
            convolution(between, out_channels, (3, 1, 1), (stride[0], 1, 1)),
            nn.BatchNorm3d(out_channels),
        )

    projection = shortcut(in_channels, out_channels, stride)
    return ResidualBlock(
        factored(in_channels, stride), factored(out_channels, STRIDE_1), projection
    )
