"""Building blocks of the convolutional baselines, and their initial weights."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from hstlib.model.inputs import check_clips

Triple = tuple[int, int, int]
STRIDE_1: Triple = (1, 1, 1)
STRIDE_2: Triple = (2, 2, 2)
FULL: Triple = (3, 3, 3)
FLAT: Triple = (1, 3, 3)
POINT: Triple = (1, 1, 1)


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
    """Stem, residual blocks, global average pooling and a fully connected head.

    The weights are initialised as :func:`initialise` describes.
    """

    DIVISOR = 16

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module):
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head
        initialise(self)

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
        return self.classify(clips)

    def classify(self, images: Tensor) -> Tensor:
        """Classify without checks: (B, channels of the stem, 16, H, W) to (B, num_classes)."""
        features = self.blocks(self.stem(images))  # (B, C, t, h, w)
        return self.head(features.mean((2, 3, 4)))


BlockMaker = Callable[[int, int, bool], ResidualBlock]
"""Function of input channels, output channels, and whether to halve time and space."""


def residual_stages(
    channels: int, stages: Sequence[tuple[int, int, BlockMaker]]
) -> list[ResidualBlock]:
    """Build the blocks of all stages; each stage after the first halves time and space.

    Args:
        channels: Output channels of the stem.
        stages: Units, output channels and block maker of each stage.
    """
    blocks = []
    for stage, (units, out_channels, make) in enumerate(stages):
        for unit in range(units):
            blocks.append(make(channels, out_channels, stage > 0 and unit == 0))
            channels = out_channels
    return blocks


def plain_block(
    in_channels: int,
    out_channels: int,
    halve: bool,
    kernel: Triple = FULL,
    first_kernel: Triple = FULL,
) -> ResidualBlock:
    """Build a residual block of two 3-D convolutions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        halve: Halve time and space in the first convolution.
        kernel: Kernel of the second convolution.
        first_kernel: Kernel of the first convolution.
    """
    stride = STRIDE_2 if halve else STRIDE_1
    return ResidualBlock(
        normed(in_channels, out_channels, first_kernel, stride),
        normed(out_channels, out_channels, kernel, STRIDE_1),
        shortcut(in_channels, out_channels, stride),
    )


class TemporalConv3d(nn.Conv3d):
    """A convolution along time, kernel (t, 1, 1), with stride 1 in space.

    On a CPU it runs as a 2-D convolution of frames by pixels: with fewer than 16 clips on one
    thread, PyTorch has no fast kernel for the 3-D one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve features of shape (B, C, T, H, W) along T."""
        if input.device.type != "cpu":
            return super().forward(input)
        weight, stride, padding = self.weight.squeeze(-1), self.stride[:2], self.padding[:2]
        rows = functional.conv2d(input.flatten(3), weight, self.bias, stride, padding)
        return rows.unflatten(3, input.shape[3:])


def convolution(in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> nn.Conv3d:
    """Build a 3-D convolution without bias, padded to keep the size at stride 1."""
    padding = tuple(size // 2 for size in kernel)
    only_time = kernel[0] > 1 and kernel[1:] == stride[1:] == (1, 1)
    layer = TemporalConv3d if only_time else nn.Conv3d
    return layer(in_channels, out_channels, kernel, stride, padding, bias=False)


def normed(in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> nn.Sequential:
    """Build a 3-D convolution followed by batch norm."""
    layer = convolution(in_channels, out_channels, kernel, stride)
    return nn.Sequential(layer, nn.BatchNorm3d(out_channels))


def norm_and_relu(channels: int) -> nn.Sequential:
    """Build batch norm followed by ReLU."""
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def shortcut(in_channels: int, out_channels: int, stride: Triple) -> nn.Module:
    """Build a block's shortcut: the identity, or a 1x1x1 projection where shapes change."""
    if in_channels == out_channels and stride == STRIDE_1:
        return nn.Identity()
    return normed(in_channels, out_channels, POINT, stride)


def initialise(model: nn.Module) -> None:
    """Initialise weights as torchvision's video networks do, in place. Not in the paper.

    Convolutions: Kaiming's normal distribution over the fan-out, for ReLU. Fully connected layers:
    normal with standard deviation 0.01. All biases are 0; batch norms keep weight 1 and bias 0.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
