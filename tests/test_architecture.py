from functools import partial

import pytest
import torch
from torch import nn

from hstlib.book.architecture import (
    kept_memory,
    multiply_adds,
    parameter_counts,
    parameter_formulas,
    parameter_sum,
    stage_table,
    step_traffic,
    trace,
    training_traffic,
)
from hstlib.model import C3D, HST, R3D, R2Plus1D
from hstlib.model.hst import BACKBONES
from hstlib.training.metrics import count_parameters

MODELS = [HST, C3D, R2Plus1D, R3D]


class Small(nn.Module):
    """Two convolutions and a layer whose costs can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(3, 5, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(5)
        self.second = nn.Conv2d(5, 7, 1)
        self.head = nn.Linear(7, 2)

    def forward(self, clips, flow):
        features = self.norm(self.first(clips)).relu().mean(2)
        return self.head(self.second(features).mean((2, 3)))


def test_trace_lists_kernels_shapes_and_multiply_adds():
    first, second, head = trace(Small, 24)
    assert (first.kernel, first.channels, first.shape) == ((1, 3, 3), 5, (1, 5, 16, 12, 12))
    assert first.multiply_adds == 5 * 16 * 12 * 12 * 27
    assert (second.kernel, second.shape) == ((1, 1), (1, 7, 12, 12))
    assert second.multiply_adds == 7 * 12 * 12 * 5
    assert (head.kernel, head.shape, head.multiply_adds) == ((), (1, 2), 14)
    assert multiply_adds(Small, 24) == sum(layer.multiply_adds for layer in trace(Small, 24))


def test_stage_table_groups_layers_by_height():
    assert stage_table(trace(Small, 24)).to_dict() == {"12 x 12": "1x3x3, 5; 1x1x1, 7"}


def test_traffic_of_a_step_by_hand():
    """A linear layer: product and gradients; Adam reads and writes nothing that a clip brings."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2, bias=False)

        def forward(self, clips, flow):
            return self.head(clips[:, :, 0, 0, :1].mean(1).expand(-1, 4).contiguous())

    per_clip, per_step = training_traffic(Linear, 24)
    mean, copied, product = 3 + 1, 4 + 4, 4 + 2
    summed, weights_gradient = 2, 2 + 4  # the gradient of the sum is one number, expanded
    assert per_clip == 4 * (mean + copied + product + summed + weights_gradient)
    assert per_step > 4 * 10 * 8  # the weights in the product, and Adam's at least ten times


def test_traffic_does_not_depend_on_how_clips_are_batched():
    build = partial(HST, 5, "demo")
    eight = step_traffic(build, 16, 8)
    per_clip, per_step = training_traffic(build, 16)
    assert eight == 8 * per_clip + per_step


@pytest.mark.parametrize("model", MODELS)
def test_two_counters_of_multiply_adds_agree(model):
    build = partial(model, 5, "demo")
    assert multiply_adds(build, 48) == sum(layer.multiply_adds for layer in trace(build, 48))


def test_parameter_sum_of_a_small_model():
    assert parameter_sum(Small()) == "9*3*5 + 2*5 + 5*7 + 7 + 7*2 + 2"


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("model", MODELS)
def test_parameter_sum_evaluates_to_the_count(model, backbone):
    with torch.device("meta"):
        built = model(11, backbone)
    assert eval(parameter_sum(built)) == count_parameters(built)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_formulas_by_block_are_the_built_model(backbone):
    with torch.device("meta"):
        counts = parameter_counts(HST(11, backbone))
    formulas = parameter_formulas(11, BACKBONES[backbone])
    assert counts == {block: value for block, _, value in formulas}


def test_kept_memory_of_a_small_model():
    kept = kept_memory(Small, 24)
    plane, frame = 4 * 12 * 12, 4 * 24 * 24
    assert kept["first"] == 16 * 3 * frame  # its input
    # the input of the norm, and its statistics: mean and inverse deviation
    assert kept["norm"] == 16 * 5 * plane + 2 * 5 * 4
    assert kept["the rest"] == 16 * 5 * plane  # the ReLU's output
    assert kept["second"] == 5 * plane
    assert kept["head"] == 7 * 4


def test_kept_memory_is_what_a_real_step_keeps():
    real, seen = 0, {}
    torch.manual_seed(0)
    model = HST(5, "demo")
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}

    def pack(tensor):
        nonlocal real
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own | seen.keys():
            seen[storage.data_ptr()] = storage
            real += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(torch.randn(1, 3, 16, 48, 48), torch.randn(1, 2, 16, 48, 48))
    assert sum(kept_memory(partial(HST, 5, "demo"), 48).values()) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize(
    ("recompute", "gigabytes", "temporal"), [(False, 4, 0.01), (True, 2, 0.02)]
)
def test_a_clip_at_the_papers_size_keeps_little(recompute, gigabytes, temporal):
    def build() -> HST:
        model = HST(51, "resnet21")
        if recompute:
            model.enable_activation_checkpointing()
        return model

    kept = kept_memory(build, 224)
    assert max(kept, key=kept.get) == "stage 2"
    assert sum(kept.values()) < gigabytes * 1e9
    # the temporal branch has 608 channels, but on the grid of S only
    assert kept["temporal"] < temporal * sum(kept.values())
