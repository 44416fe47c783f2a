"""The baselines C3D, R2Plus1D and R3D, as Tables 1-4 of the paper print them.

The paper's parameter counts (78.20, 65.53 and 57.68 M in Table 2; 42.5, 35.8 and 26.78 M in
Table 4) belong to six different networks, and a count does not determine a network. The docstring
of each class says how certain its reconstructions are. None of the residual ones is the network
that the field means by the name: :mod:`hstlib.model.standard` has those.

Networks can be matched in three ways, which exclude each other: in depth (the units per stage of
Tables 1 and 3), in parameters, or in multiply-adds per clip. The paper's are matched in depth at
most. At ``demo`` size the networks are matched in width (16, 32 and 48 channels), R2Plus1D and R3D
also in units per stage, but not in parameters or multiply-adds.
"""

from torch import Tensor, nn
from torch.nn import functional

from hstlib.model.inputs import check_clips, lookup_backbone
from hstlib.model.residual import (
    FLAT,
    FULL,
    POINT,
    STRIDE_1,
    STRIDE_2,
    BlockMaker,
    ResidualBlock,
    Triple,
    VideoResNet,
    convolution,
    initialise,
    norm_and_relu,
    normed,
    plain_block,
    residual_stages,
    shortcut,
)


class C3D(nn.Module):
    """Plain 3-D convolutions, max-pooling and fully connected layers.

    Certainty: ``resnet21`` is the classic C3D network (it is no ResNet); its count prints Table 2's
    78.20. ``vgg13`` has 13 convolutions; it misses Table 4's 42.5 by 0.1 % and is weakly supported.

    Reading: the classic last pooling (pool5) gives the 4x4 grid of the fully connected layers only
    for clips of 96 or 112 pixels. There the network is the classic one. At other sizes an adaptive
    average follows, which enlarges a smaller grid (below 96 pixels) or shrinks a larger one (above
    112, such as the paper's 224). At ``demo`` size the grid is 2x2, exact for 32 and 48 pixels.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` (Table 2), ``vgg13`` (Table 4) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    # Channels of the convolutions between two poolings; widths of the fully connected layers;
    # height and width of the grid that they take.
    SIZES = {
        "resnet21": (((64,), (128,), (256, 256), (512, 512), (512, 512)), (4096, 4096), 4),
        "vgg13": (((64,) * 4, (128,) * 3, (256,) * 3, (512,) * 3), (2048, 1024), 4),
        "demo": (((16,), (32,), (48,), (48,)), (128,), 2),
    }
    DIVISOR = 16

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        super().__init__()
        blocks, hidden, grid = lookup_backbone(self.SIZES, backbone)
        layers: list[nn.Module] = []
        width = 3
        for index, block in enumerate(blocks):
            for channels in block:
                layers += [nn.Conv3d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
                width = channels
            if index < 4:
                layers.append(nn.MaxPool3d((1, 2, 2) if index == 0 else 2))
        layers.append(nn.MaxPool3d(2, padding=(0, 1, 1)))  # pool5; one frame is left
        self.features = nn.Sequential(*layers)
        self.grid = grid
        head: list[nn.Module] = []
        width = width * grid * grid
        for channels in hidden:
            head += [nn.Linear(width, channels), nn.ReLU(inplace=True), nn.Dropout(0.5)]
            width = channels
        self.head = nn.Sequential(nn.Flatten(), *head, nn.Linear(width, num_classes))
        initialise(self)

    def forward(self, clips: Tensor, flow: Tensor | None = None) -> Tensor:
        """Classify clips; arguments, result and errors as :meth:`VideoResNet.forward`."""
        check_clips(clips, self.DIVISOR, next(self.parameters()).dtype)
        features = self.features(clips).squeeze(2)  # (B, C, h, w)
        # 2-D pooling, because AdaptiveAvgPool3d cannot be exported to ONNX
        return self.head(functional.adaptive_avg_pool2d(features, self.grid))


class R2Plus1D(VideoResNet):
    """Residual network with 3-D convolutions factored into space and time.

    Certainty: ``resnet21`` prints Table 2's 65.53. It equals, tensor for tensor, the public code's
    ``R2Plus1DClassifier(51, (4, 6, 6, 3))`` (github.com/jfzhang95/pytorch-video-recognition, commit
    b703587), and so it differs from Tran et al.'s network: batch norm and ReLU follow every
    temporal convolution, the shortcuts are factored too, and the channels between space and time
    are counted for each convolution. Other units per stage print the same figure; of the two
    that the paper names, only 4-6-6-3 does.

    ``vgg13`` follows Table 3's rows as printed, misses Table 4's 35.8 by 0.2 %, and is plausible.
    It is no (2+1)D network: its second convolution is a full 3x3x3.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` (Table 2), ``vgg13`` (Table 4) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    UNITS = {"resnet21": (4, 6, 6, 3), "vgg13": (4, 3, 3, 3), "demo": (1, 1, 1)}

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        units = lookup_backbone(self.UNITS, backbone)
        if backbone == "vgg13":
            stem = nn.Sequential(convolution(3, 64, FLAT, (1, 2, 2)), norm_and_relu(64))
            rows = zip(units, (3, 64, 128, 256), (64, 128, 256, 512), strict=True)
            blocks = residual_stages(64, [(n, out, _table_3_block(mid)) for n, mid, out in rows])
            super().__init__(stem, blocks, _head(512, 1024, num_classes))
            return
        widths = (64, 128, 256, 512) if backbone == "resnet21" else (16, 32, 48)
        stem = _factored_convolution(3, widths[0], (3, 7, 7), (1, 2, 2), mid=45 * widths[0] // 64)
        stages = [(n, c, _factored_block) for n, c in zip(units, widths, strict=True)]
        blocks = residual_stages(widths[0], stages)
        super().__init__(stem, blocks, nn.Linear(widths[-1], num_classes))


class R3D(VideoResNet):
    """Residual network of 3-D convolutions with a 1x7x7 stem and max-pooling.

    Certainty: both sizes are constructions, two of many. With the settings of R2Plus1D the network
    would have 65.51 M, so the paper's 57.68 cannot belong to a matched network. Which kernels have
    no extent in time was chosen to print 57.68 and 26.78.

    Reading: section 4's "7 x 7 convolution with input channel 3" has 3 input channels and 64 output
    channels. Table 1's "7x7, 3" could also mean 3 output channels, a bottleneck that neither the
    text nor the counts need.

    ``demo`` has the stages of ``vgg13`` but the last, one unit each and narrow; it has no
    max-pooling, because its clips are small.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` (Table 2), ``vgg13`` (Table 4) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    # Per stage: units, channels, kernel, and kernel of the first convolution of the first unit.
    STAGES = {
        "resnet21": (
            (4, 64, FULL, FLAT), (6, 128, FLAT, POINT),
            (6, 256, FULL, POINT), (3, 512, FULL, POINT),
        ),
        "vgg13": (
            (4, 64, FULL, FLAT), (3, 128, FULL, FULL),
            (3, 256, FULL, FULL), (3, 512, FLAT, FLAT),
        ),
        "demo": ((1, 16, FULL, FLAT), (1, 32, FULL, FULL), (1, 48, FULL, FULL)),
    }  # fmt: skip
    # Width of the hidden fully connected layer. None: the classes follow the average.
    HIDDEN = {"resnet21": None, "vgg13": 1024, "demo": 128}

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        stages = lookup_backbone(self.STAGES, backbone)
        width = stages[0][1]
        stem = [convolution(3, width, (1, 7, 7), (1, 2, 2)), norm_and_relu(width)]
        if backbone != "demo":
            stem.append(nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)))
        blocks = []
        for stage, (units, out_channels, kernel, first_kernel) in enumerate(stages):
            for unit in range(units):
                first = first_kernel if unit == 0 else kernel
                halve = stage > 0 and unit == 0
                blocks.append(plain_block(width, out_channels, halve, kernel, first))
                width = out_channels
        head = _head(width, self.HIDDEN[backbone], num_classes)
        super().__init__(nn.Sequential(*stem), blocks, head)


def _table_3_block(mid: int) -> BlockMaker:
    """Return a maker of the blocks in Table 3's R2Plus1D column: 7x7 to ``mid``, then 3x3x3."""

    def make(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
        stride = STRIDE_2 if halve else STRIDE_1
        first = normed(in_channels, mid, (1, 7, 7), (1, *stride[1:]))
        second = normed(mid, out_channels, FULL, (stride[0], 1, 1))
        return ResidualBlock(first, second, shortcut(in_channels, out_channels, stride))

    return make


def _factored_block(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
    """Build the public code's (2+1)D block, with a factored shortcut."""
    stride = STRIDE_2 if halve else STRIDE_1

    def factored(channels: int, kernel: Triple, stride: Triple) -> nn.Sequential:
        layers = _factored_convolution(channels, out_channels, kernel, stride)
        return nn.Sequential(layers, nn.BatchNorm3d(out_channels))

    projection: nn.Module = nn.Identity()
    if halve or in_channels != out_channels:
        projection = factored(in_channels, POINT, stride)
    return ResidualBlock(
        factored(in_channels, FULL, stride), factored(out_channels, FULL, STRIDE_1), projection
    )


def _factored_convolution(
    in_channels: int, out_channels: int, kernel: Triple, stride: Triple, mid: int | None = None
) -> nn.Sequential:
    """Factor a 3-D convolution into space and time; batch norm and ReLU follow both.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Kernel of the 3-D convolution.
        stride: Stride of the 3-D convolution.
        mid: Channels between space and time. None: as many as keep the number of weights (Tran et
            al.).
    """
    time, *space = kernel
    area = space[0] * space[1]
    if mid is None:
        weights = time * area * in_channels * out_channels
        mid = weights // (area * in_channels + time * out_channels)
    return nn.Sequential(
        convolution(in_channels, mid, (1, *space), (1, *stride[1:])),
        norm_and_relu(mid),
        convolution(mid, out_channels, (time, 1, 1), (stride[0], 1, 1)),
        norm_and_relu(out_channels),
    )


def _head(channels: int, hidden: int | None, num_classes: int) -> nn.Module:
    """Build the fully connected layers: Tables 1 and 3 print 1024 units before the classes."""
    if hidden is None:
        return nn.Linear(channels, num_classes)
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_classes)
    )
