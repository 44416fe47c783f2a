import copy
import logging
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.baselines import R3D
from hstlib.datasets import normalise
from hstlib.train import TrainingError, pick_device, schedule_factor, seed_torch, train


class Clips:
    """Eight clips of noise in four classes; the dataset that ``train`` needs, and no more."""

    def __init__(self, count: int = 8, size: int = 4, frames: int = 4):
        rng = torch.Generator().manual_seed(1)
        shape = (count, frames, size, size, 3)
        self.frames = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
        self.flow = torch.randn(count, 2, frames, size, size, generator=rng).half()
        self.epochs: list[int] = []
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        self.epochs.append(self.epoch)
        return self.frames[index], self.flow[index], index % 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5 * 4 * 4 * 4, 4)
        self.batches: list[Tensor] = []

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        assert clips.dtype == flow.dtype == torch.float32 and clips.shape[1] == 3
        self.batches.append(clips.detach())
        return self.layer(torch.cat([clips, flow], 1).flatten(1))


class NetThatFails(Net):
    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        logits = super().forward(clips, flow)
        return logits * math.nan if len(self.batches) == 5 else logits


def fit(model: nn.Module, data=None, **settings):
    defaults = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}
    return train(model, data or Clips(), **defaults | settings)


def test_overfits_eight_clips():
    records = fit(Net(), epochs=20)
    assert records[-1].loss < 0.05 < 0.5 < records[0].loss
    assert records[-1].train_top1 == 1.0


def test_a_video_network_overfits_eight_clips():
    torch.manual_seed(1)
    records = fit(R3D(4, "demo"), Clips(size=16, frames=16), epochs=15, batch_size=8)
    assert records[-1].train_top1 == 1.0


def losses(seed: int) -> list[float]:
    seed_torch(seed)
    return [record.loss for record in fit(Net(), seed=seed)]


def test_same_seed_same_losses():
    assert losses(3) == losses(3)
    assert losses(3) != losses(4)


def test_seed_sets_the_order_of_the_samples():
    orders = []
    for seed in (0, 0, 1):
        model = Net()
        fit(model, seed=seed)
        orders.append(torch.cat(model.batches))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_every_epoch_has_another_order_of_the_same_samples():
    model = Net()
    fit(model)
    first, second = (torch.cat(model.batches[i : i + 2]).flatten(1) for i in (0, 2))
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())


def test_the_data_set_knows_the_epoch():
    data = Clips()
    fit(Net(), data, epochs=3)
    assert data.epochs == [*[0] * 8, *[1] * 8, *[2] * 8]


def test_records_say_what_was_measured():
    records = fit(Net(), epochs=3, learning_rate=0.02)
    assert [r.epoch for r in records] == [0, 1, 2]
    assert {r.learning_rate for r in records} == {0.02}
    assert all(0 <= r.train_top1 <= 1 and r.seconds > 0 for r in records)


def test_first_loss_is_the_cross_entropy_before_any_step():
    model, data = Net(), Clips()
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.zero_()
    (record,) = fit(model, data, epochs=1, batch_size=8)
    assert record.loss == pytest.approx(math.log(4))


def test_steps_are_those_of_a_plain_adam_loop():
    model, data = Net(), Clips()
    plain = copy.deepcopy(model)
    fit(model, data, learning_rate=0.02)
    optimiser = torch.optim.Adam(plain.parameters(), 0.02)
    clips = normalise(data.frames)
    for batch in model.batches:
        rows = [next(i for i in range(8) if clips[i].equal(clip)) for clip in batch]
        logits = plain(clips[rows], data.flow[rows].float())
        optimiser.zero_grad()
        functional.cross_entropy(logits, torch.tensor(rows) % 4).backward()
        optimiser.step()
    torch.testing.assert_close(model.layer.weight, plain.layer.weight)
    torch.testing.assert_close(model.layer.bias, plain.layer.bias)


def test_an_incomplete_batch_is_left_out():
    model = Net()
    fit(model, epochs=1, batch_size=3)
    assert [len(clips) for clips in model.batches] == [3, 3]


def test_training_puts_the_model_into_training_mode():
    model = Net().eval()
    fit(model)
    assert model.training


def test_cosine_schedule_falls_from_one_towards_zero():
    factors = [schedule_factor("cosine", step, 4) for step in range(4)]
    assert factors == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)
    assert [schedule_factor("constant", step, 4) for step in range(4)] == [1] * 4


def test_cosine_schedule_reaches_the_optimiser():
    records = fit(Net(), epochs=4, learning_rate=0.1, schedule="cosine")
    assert [r.learning_rate for r in records] == pytest.approx(
        [0.1, 0.0854, 0.05, 0.0146], abs=1e-4
    )


def test_a_loss_that_is_not_finite_stops_at_its_epoch_and_step():
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 3, step 1, .* rate 0\.01"):
        fit(NetThatFails(), epochs=5)


def test_too_few_samples_for_a_batch_are_shown():
    with pytest.raises(ValueError, match="8 training videos do not fill a batch of 9"):
        fit(Net(), batch_size=9)


def test_every_epoch_is_logged(caplog):
    with caplog.at_level(logging.INFO, "hstlib"):
        fit(Net(), epochs=2)
    assert [r.getMessage().split(" loss")[0] for r in caplog.records] == ["epoch 1/2", "epoch 2/2"]


def test_pick_device():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.cuda
def test_trains_on_a_gpu():
    records = fit(Net().cuda(), epochs=20)
    assert records[-1].train_top1 == 1.0
