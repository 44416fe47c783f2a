"""The baselines C3D, R2Plus1D and R3D, as Tables 1-4 of the paper print them.

The paper's parameter counts (78.20, 65.53 and 57.68 M in Table 2; 42.5, 35.8 and 26.78 M in
Table 4) belong to six different networks. The docstring of each class says how certain its
reconstructions are.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from hstlib.model.inputs import check_clips, lookup_backbone

Triple = tuple[int, int, int]
STRIDE_1: Triple = (1, 1, 1)
STRIDE_2: Triple = (2, 2, 2)


class C3D(nn.Module):
    """Plain 3-D convolutions, max-pooling and fully connected layers.

    Certainty: ``resnet21`` is the classic C3D network (it is no ResNet); it gives Table 2's 78.20
    with no free choice. ``vgg13`` has 13 convolutions; it misses Table 4's 42.5 by 0.1 % and is
    weakly supported.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` (Table 2), ``vgg13`` (Table 4) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    # Channels of the convolutions between two poolings; widths of the fully connected layers;
    # height and width to which the last feature map is pooled.
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
        self.features = nn.Sequential(*layers)
        self.grid = grid
        head: list[nn.Module] = []
        width = width * grid * grid
        for channels in hidden:
            head += [nn.Linear(width, channels), nn.ReLU(inplace=True), nn.Dropout(0.5)]
            width = channels
        self.head = nn.Sequential(nn.Flatten(), *head, nn.Linear(width, num_classes))

    def forward(self, clips: Tensor, flow: Tensor | None = None) -> Tensor:
        """Classify clips; arguments, result and errors as :meth:`VideoResNet.forward`."""
        check_clips(clips, self.DIVISOR, next(self.parameters()).dtype)
        features = self.features(clips).mean(2)  # (B, C, h, w)
        # mean and 2-D pooling, because AdaptiveAvgPool3d cannot be exported to ONNX
        return self.head(functional.adaptive_avg_pool2d(features, self.grid))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, as in ResNet's basic block."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, features: Tensor) -> Tensor:
        """Compute relu(second(relu(first(x))) + shortcut(x))."""
        residual = self.shortcut(features)
        features = functional.relu(self.first(features))
        return functional.relu(self.second(features) + residual)


class VideoResNet(nn.Module):
    """Stem, residual blocks, global average pooling and a fully connected head."""

    DIVISOR = 16

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module):
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, clips: Tensor, flow: Tensor | None = None) -> Tensor:
        """Classify clips.

        Args:
            clips: Normalised RGB, shape (B, 3, 16, H, W), of the weights' type.
            flow: Ignored; accepted so that all models are called alike.

        Returns:
            Logits, shape (B, num_classes).

        Raises:
            ValueError: If shape, type or values of the clips do not fit.
        """
        check_clips(clips, self.DIVISOR, next(self.parameters()).dtype)
        features = self.blocks(self.stem(clips))  # (B, C, t, h, w)
        return self.head(features.mean((2, 3, 4)))


class R2Plus1D(VideoResNet):
    """Residual network with 3-D convolutions factored into space and time.

    Certainty: ``resnet21`` is Tran et al.'s network with blocks 4-6-6-3 and an extra batch norm
    and ReLU in every factored convolution; it gives Table 2's 65.53 with no free choice.
    ``vgg13`` follows Table 3's rows as printed, misses Table 4's 35.8 by 0.2 %, and is plausible.

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
            stem = nn.Sequential(_convolution(3, 64, (1, 3, 3), (1, 2, 2)), _norm_and_relu(64))
            rows = zip(units, (3, 64, 128, 256), (64, 128, 256, 512), strict=True)
            blocks = _residual_stages(64, [(n, out, _table_3_block(mid)) for n, mid, out in rows])
            super().__init__(stem, blocks, _head(512, num_classes))
            return
        widths = (64, 128, 256, 512) if backbone == "resnet21" else (16, 32, 48)
        stem = _factored_convolution(3, widths[0], (3, 7, 7), (1, 2, 2), mid=45 * widths[0] // 64)
        stages = [(n, c, _factored_block) for n, c in zip(units, widths, strict=True)]
        blocks = _residual_stages(widths[0], stages)
        super().__init__(stem, blocks, nn.Linear(widths[-1], num_classes))


class R3D(VideoResNet):
    """Residual network of 3-D convolutions with a 7x7 stem of 3 channels and max-pooling.

    Certainty: both sizes are constructions. With the settings of R2Plus1D the network would have
    65.51 M, so the paper's 57.68 cannot belong to a matched network. Which kernels have no extent
    in time was chosen to give 57.68 and to come within 0.2 % of 26.78.

    Args:
        num_classes: Number of action classes.
        backbone: ``resnet21`` (Table 2), ``vgg13`` (Table 4) or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    # Per stage: units, channels, kernel, and kernel of the first convolution of the first unit.
    _FLAT, _FULL, _POINT = (1, 3, 3), (3, 3, 3), (1, 1, 1)
    STAGES = {
        "resnet21": (
            (4, 64, _FLAT, _POINT), (6, 128, _FLAT, _POINT),
            (6, 256, _FULL, _POINT), (3, 512, _FULL, _POINT),
        ),
        "vgg13": (
            (4, 64, _FULL, _FULL), (3, 128, _FULL, _FULL),
            (3, 256, _FULL, _FULL), (3, 512, _FLAT, _FLAT),
        ),
        "demo": ((1, 16, _FULL, _FULL), (1, 32, _FULL, _FULL), (1, 48, _FULL, _FULL)),
    }  # fmt: skip

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        stages = lookup_backbone(self.STAGES, backbone)
        width = 16 if backbone == "demo" else 3
        stem = [_convolution(3, width, (3, 7, 7), (1, 2, 2)), _norm_and_relu(width)]
        if backbone != "demo":
            stem.append(nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)))
        plain = [(n, c, _plain_block(kernel, first)) for n, c, kernel, first in stages]
        blocks = _residual_stages(width, plain)
        super().__init__(nn.Sequential(*stem), blocks, _head(stages[-1][1], num_classes))


BlockMaker = Callable[[int, int, bool], ResidualBlock]
"""Function of input channels, output channels, and whether to halve time and space."""


def _residual_stages(
    channels: int, stages: Sequence[tuple[int, int, BlockMaker]]
) -> list[ResidualBlock]:
    """Build the blocks of all stages; each stage after the first halves time and space."""
    blocks = []
    for stage, (units, out_channels, make) in enumerate(stages):
        for unit in range(units):
            blocks.append(make(channels, out_channels, stage > 0 and unit == 0))
            channels = out_channels
    return blocks


def _plain_block(kernel: Triple, first_kernel: Triple) -> BlockMaker:
    """Return a maker of R3D's blocks.

    Args:
        kernel: Kernel of the convolutions.
        first_kernel: Kernel of the first convolution where channels or size change.
    """

    def make(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
        stride = STRIDE_2 if halve else STRIDE_1
        changes = halve or in_channels != out_channels
        first = _normed(in_channels, out_channels, first_kernel if changes else kernel, stride)
        second = _normed(out_channels, out_channels, kernel, STRIDE_1)
        return ResidualBlock(first, second, _shortcut(in_channels, out_channels, stride))

    return make


def _table_3_block(mid: int) -> BlockMaker:
    """Return a maker of the blocks in Table 3's R2Plus1D column: 7x7 to ``mid``, then 3x3x3."""

    def make(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
        stride = STRIDE_2 if halve else STRIDE_1
        first = _normed(in_channels, mid, (1, 7, 7), (1, *stride[1:]))
        second = _normed(mid, out_channels, (3, 3, 3), (stride[0], 1, 1))
        return ResidualBlock(first, second, _shortcut(in_channels, out_channels, stride))

    return make


def _factored_block(in_channels: int, out_channels: int, halve: bool) -> ResidualBlock:
    """Build Tran et al.'s (2+1)D block, with a factored shortcut."""
    stride = STRIDE_2 if halve else STRIDE_1

    def normed(channels: int, kernel: Triple, stride: Triple) -> nn.Sequential:
        factored = _factored_convolution(channels, out_channels, kernel, stride)
        return nn.Sequential(factored, nn.BatchNorm3d(out_channels))

    shortcut: nn.Module = nn.Identity()
    if halve or in_channels != out_channels:
        shortcut = normed(in_channels, (1, 1, 1), stride)
    return ResidualBlock(
        normed(in_channels, (3, 3, 3), stride), normed(out_channels, (3, 3, 3), STRIDE_1), shortcut
    )


def _factored_convolution(
    in_channels: int, out_channels: int, kernel: Triple, stride: Triple, mid: int | None = None
) -> nn.Sequential:
    """Factor a 3-D convolution into space and time.

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
        _convolution(in_channels, mid, (1, *space), (1, *stride[1:])),
        _norm_and_relu(mid),
        _convolution(mid, out_channels, (time, 1, 1), (stride[0], 1, 1)),
        _norm_and_relu(out_channels),
    )


def _convolution(in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> nn.Conv3d:
    padding = tuple(size // 2 for size in kernel)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)


def _normed(in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> nn.Sequential:
    convolution = _convolution(in_channels, out_channels, kernel, stride)
    return nn.Sequential(convolution, nn.BatchNorm3d(out_channels))


def _norm_and_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def _shortcut(in_channels: int, out_channels: int, stride: Triple) -> nn.Module:
    if in_channels == out_channels and stride == STRIDE_1:
        return nn.Identity()
    return _normed(in_channels, out_channels, (1, 1, 1), stride)


def _head(channels: int, num_classes: int) -> nn.Sequential:
    """Build the last row of Tables 1 and 3: 1024 FC and the classes (128 FC at demo size)."""
    hidden = 1024 if channels == 512 else 128
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_classes)
    )
