"""R3D with optical flow, by late fusion: a baseline that sees what HST sees. Not in the paper.

The paper gives flow to HST alone, so a comparison with its baselines measures the flow as well as
the architecture.
"""

from torch import Tensor, nn

from hstlib.model.baselines import R3D
from hstlib.model.inputs import check_clips, check_flow
from hstlib.model.residual import (
    VideoResNet,
    convolution,
    norm_and_relu,
    plain_block,
    residual_stages,
)


class R3DFlow(nn.Module):
    """R3D on RGB and a small 3-D network on flow; their logits are averaged.

    Late fusion of two streams is Simonyan and Zisserman's (*Two-Stream Convolutional Networks*,
    2014). Logits are averaged, instead of a head on the concatenated features, for two reasons: R3D
    stays the paper's network, unchanged, and each stream can be scored alone. A linear head on the
    concatenation would be the same sum of two linear heads. Both streams are trained together.

    The flow network has the width of R3D at demo size for every backbone. Its stem starts with a
    convolution and batch norm, so the unit of the flow does not matter.

    Args:
        num_classes: Number of action classes.
        backbone: Backbone of R3D: ``resnet21``, ``vgg13`` or ``demo``.

    Raises:
        ValueError: If the backbone is unknown.
    """

    FLOW_WIDTHS = (16, 32, 48)

    def __init__(self, num_classes: int, backbone: str = "resnet21"):
        super().__init__()
        self.appearance = R3D(num_classes, backbone)
        first, *_, last = self.FLOW_WIDTHS
        stem = nn.Sequential(convolution(2, first, (3, 7, 7), (1, 2, 2)), norm_and_relu(first))
        blocks = residual_stages(first, [(1, width, plain_block) for width in self.FLOW_WIDTHS])
        self.motion = VideoResNet(stem, blocks, nn.Linear(last, num_classes))

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        """Classify clips; arguments, result and errors as :meth:`hstlib.model.HST.forward`."""
        dtype = next(self.parameters()).dtype
        check_clips(clips, VideoResNet.DIVISOR, dtype)
        check_flow(flow, clips, dtype)
        return (self.appearance.classify(clips) + self.motion.classify(flow)) / 2
