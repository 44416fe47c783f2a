import copy
import json
import logging
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hstlib.config import LoopConfig, TrainConfig
from hstlib.data.clips import normalise
from hstlib.model import C3D, HST, R3D, R2Plus1D
from hstlib.model.registry import to_channels_last
from hstlib.training.batches import EpochOrder
from hstlib.training.device import make_accelerator, seed_torch
from hstlib.training.epochs import EpochRecord
from hstlib.training.loop import TrainingError, train
from hstlib.training.sealed import load_sealed, save_sealed
from hstlib.training.step import cross_entropy, inverse_frequencies, learning_rate_factor


class Clips:
    """Eight clips of noise in four classes; the data set that ``train`` needs, and no more."""

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

    def model_inputs(self, frames: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        return normalise(frames), flow.float()

    def describe(self, index: int) -> str:
        return f"{index}.avi"


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


def settings(**changes) -> TrainConfig:
    defaults = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "device": "cpu"}
    return TrainConfig(**defaults | changes)


def fit(model: nn.Module, data=None, **changes) -> list[EpochRecord]:
    return train(model, data or Clips(), settings(**changes)).records


def test_the_loop_knows_neither_models_nor_data_sets():
    script = "import sys, hstlib.training.loop; print(*sys.modules)"
    run = [sys.executable, "-c", script]
    modules = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert "hstlib.training.loop" in modules
    assert not [name for name in modules if name.startswith(("hstlib.model", "hstlib.data"))]


class Points:
    """Another kind of data: one item beside the label, and a model of one input."""

    epoch = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([1.0, -1.0]) * (-1) ** index, index % 2

    def model_inputs(self, points: Tensor) -> tuple[Tensor]:
        return (points,)

    def describe(self, index: int) -> str:
        return f"point {index}"


def test_any_data_set_with_the_protocol_can_be_trained_on():
    config = LoopConfig(epochs=30, batch_size=4, learning_rate=0.1, device="cpu")
    records = train(nn.Linear(2, 2), Points(), config).records
    assert records[-1].train_top1 == 1.0


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
    factors = [learning_rate_factor("cosine", step, 4) for step in range(4)]
    assert factors == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)
    assert [learning_rate_factor("constant", step, 4) for step in range(4)] == [1] * 4


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


def test_a_long_epoch_says_how_far_it_is(caplog, monkeypatch):
    monkeypatch.setattr("hstlib.training.loop.SECONDS_PER_LINE", 0)
    with caplog.at_level(logging.INFO, "hstlib"):
        fit(Net(), epochs=1)
    messages = [r.getMessage() for r in caplog.records]
    assert messages[:2] == ["epoch 1: step 1 of 2", "epoch 1: step 2 of 2"]


def test_make_accelerator_takes_the_device():
    assert make_accelerator(LoopConfig(device="cpu")).device.type == "cpu"
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    assert make_accelerator(LoopConfig()).device.type == automatic


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device 'cuda': no GPU can be used here"):
        make_accelerator(LoopConfig(device="cuda"))


@pytest.mark.cuda
def test_trains_on_a_gpu():
    records = fit(Net(), epochs=20, device="cuda")
    assert records[-1].train_top1 == 1.0


def test_the_error_names_the_batch_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"Last good checkpoint: none\.") as error:
        fit(NetThatFails(), epochs=5)
    batch = list(EpochOrder(8, 4, seed=0))  # of epoch 0: the names belong to the epoch that failed
    order = EpochOrder(8, 4, seed=0)
    order.epoch = 2
    names = str(error.value).split("The batch: ")[1].split(", ")
    assert names == [f"{i}.avi" for i in list(order)[:4]] != [f"{i}.avi" for i in batch[:4]]
    with pytest.raises(TrainingError, match=r"state\.safetensors, after epoch 2\."):
        train(NetThatFails(), Clips(), settings(epochs=5), folder=tmp_path)
    metadata, _, _ = load_sealed(tmp_path / "state.safetensors")
    assert [record["epoch"] for record in metadata["records"]] == [0, 1]


def test_a_loss_that_explodes_stops():
    class Explodes(Net):
        def forward(self, clips, flow):
            return super().forward(clips, flow) * 1e7

    with pytest.raises(TrainingError, match=r"loss is \d.* in epoch 1, step 1, .* lower it"):
        fit(Explodes())


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(seed: int = 0, data=None, **changes) -> Tensor:
    torch.manual_seed(7)
    model = Net()
    fit(model, data, seed=seed, **changes)
    return weights(model)


def test_a_batch_in_parts_is_the_same_step():
    torch.testing.assert_close(trained(), trained(accumulation_steps=2))
    message = "batch_size 4 cannot be divided into 3 accumulation_steps"
    with pytest.raises(ValueError, match=message):
        settings(accumulation_steps=3)


def test_gradients_are_clipped_to_their_length():
    model, grown = Net(), []
    real = torch.optim.Adam.step

    def step(self, *arguments):
        grown.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        fit(model, max_grad_norm=0.01)
    assert len(grown) == 4 and grown == pytest.approx([0.01] * 4, rel=1e-3)


def test_warm_up_raises_the_rate_step_by_step():
    rates = []
    real = torch.optim.Adam.step

    def step(self, *arguments):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        fit(Net(), epochs=3, learning_rate=0.4, warmup_epochs=2)
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_the_average_of_the_weights_takes_their_place():
    """With a decay of 0.5, by hand from the weights of every step."""
    model, steps = Net(), []
    real = torch.optim.Adam.step

    def step(self, *arguments):
        real(self, *arguments)
        steps.append(weights(model).clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        fit(model, ema_decay=0.5)
    average = steps[0]
    for later in steps[1:]:
        average = 0.5 * average + 0.5 * later
    torch.testing.assert_close(weights(model), average)


def test_smoothed_labels_raise_the_smallest_loss():
    sharp, smooth = (fit(Net(), epochs=20, label_smoothing=s) for s in (0, 0.2))
    assert smooth[-1].loss > 0.3 > 0.05 > sharp[-1].loss
    assert smooth[-1].train_top1 == 1.0


def test_without_deterministic_algorithms_the_weights_are_the_same():
    torch.testing.assert_close(trained(deterministic=False), trained())


@pytest.mark.parametrize("kind", [HST, C3D, R2Plus1D, R3D])
def test_training_keeps_the_weights_of_every_model_channels_last(kind):
    torch.manual_seed(0)
    model = kind(4, "demo")
    to_channels_last(model)
    fit(model, Clips(count=4, size=16, frames=16), epochs=1)
    for parameter in model.parameters():
        if parameter.ndim in (4, 5):
            assert parameter.movedim(1, -1).is_contiguous()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch uses it
def test_a_compiled_model_learns_the_same():
    torch.testing.assert_close(trained(compile=True), trained())


def test_bf16_is_near_float32():
    exact, rounded = trained(), trained(precision="bf16")
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.04 < (exact - trained(seed=1)).abs().max()


def test_a_run_of_one_precision_can_follow_one_of_another():
    assert make_accelerator(LoopConfig(device="cpu", precision="bf16")).mixed_precision == "bf16"
    assert make_accelerator(LoopConfig(device="cpu")).mixed_precision == "no"


def test_the_best_epoch_by_validation_is_kept():
    seen = []

    def validate(model: nn.Module) -> float:
        seen.append(weights(model).clone())
        return [0.2, 0.6, 0.6, 0.4][len(seen) - 1]

    model = Net()
    done = train(model, Clips(), settings(epochs=4), validate=validate)
    assert [r.validation_top1 for r in done.records] == [0.2, 0.6, 0.6, 0.4]
    assert torch.equal(weights(model), seen[3])
    model.load_state_dict(done.best)
    assert torch.equal(weights(model), seen[1])  # the first of equals


class Stop(Exception):
    pass


def fit_with(model: nn.Module, folder: Path | None = None, **changes) -> list[EpochRecord]:
    """Train 4 epochs at most, with what the settings need: weights of classes, validation."""
    config = settings(epochs=4, **changes)
    class_weights = inverse_frequencies([0, 1, 1, 2, 3, 3, 3, 3], 4)
    return train(
        model, Clips(), config, folder=folder,
        validate=(lambda model: 0.5) if config.validation else None,
        class_weights=class_weights if config.class_weights else None,
    ).records  # fmt: skip


def interrupted(folder: Path, at: int, **changes) -> tuple[Tensor, list[EpochRecord]]:
    """Train, breaking off at the given step, and go on in a new model."""

    class Breaks(Net):
        def forward(self, clips, flow):
            if len(self.batches) == at:
                raise Stop
            return super().forward(clips, flow)

    torch.manual_seed(7)
    with pytest.raises(Stop):
        fit_with(Breaks(), folder, **changes)
    torch.manual_seed(8)  # neither other first weights nor another state of the generator matter
    model = Net()
    if at < 2:  # nothing was kept, so that the first weights do matter
        torch.manual_seed(7)
        model = Net()
    records = fit_with(model, folder, **changes)
    return weights(model), records


@pytest.mark.parametrize(
    "loop",
    [
        {},
        {"ema_decay": 0.9},
        {"precision": "bf16"},
        {"max_grad_norm": 0.1},
        {"class_weights": True},
        {"validation": True, "patience": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, at, loop):
    found, records = interrupted(tmp_path, at, **loop)
    torch.manual_seed(7)
    whole = Net()
    fit_with(whole, **loop)
    assert torch.equal(found, weights(whole))
    epochs = [0, 1, 2] if "patience" in loop else [0, 1, 2, 3]  # every epoch scores the same
    assert [r.epoch for r in records] == epochs
    lines = (tmp_path / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == epochs


def test_early_stopping_counts_the_epochs_since_the_best():
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    config = settings(epochs=9, patience=2, validation=True)
    records = train(Net(), Clips(), config, validate=lambda model: next(scores)).records
    assert [r.validation_top1 for r in records] == [0.1, 0.3, 0.2, 0.3]
    with pytest.raises(ValueError, match="patience 2 needs validation videos; set validation"):
        settings(patience=2)


def test_class_weights_are_those_of_a_plain_weighted_loss():
    weights_of_classes = inverse_frequencies([0, 0, 0, 1], 3)
    assert weights_of_classes.tolist() == pytest.approx([2 / 3, 2, 0])
    logits, labels = torch.randn(4, 3), torch.tensor([0, 0, 0, 1])
    found = cross_entropy(logits, labels, 0.0, weights_of_classes)
    chosen = logits.log_softmax(1)[range(4), labels]
    assert found.item() == pytest.approx(-((chosen[:3].sum() * 2 / 3 + chosen[3] * 2) / 4).item())
    assert cross_entropy(logits, labels, 0.1, None) == functional.cross_entropy(
        logits, labels, label_smoothing=0.1
    )


def test_a_state_of_before_a_setting_had_its_default(tmp_path):
    """States of earlier versions lack the settings that came since, and can be resumed."""
    train(Net(), Clips(), settings(epochs=1), folder=tmp_path)
    metadata, tensors, _ = load_sealed(tmp_path / "state.safetensors")
    for name in ("from_", "patience", "class_weights", "limit"):
        del metadata["config"][name]
    save_sealed(tmp_path / "state.safetensors", tensors, metadata)
    assert len(train(Net(), Clips(), settings(epochs=2), folder=tmp_path).records) == 2
    changed = settings(epochs=3, validation=True, patience=1)
    with pytest.raises(ValueError, match="patience 0 instead of 1"):
        train(Net(), Clips(), changed, folder=tmp_path)


def test_loader_processes_do_not_change_the_weights():
    assert torch.equal(trained(), trained(num_workers=2))


def test_the_share_of_waiting_is_measured():
    class Slow(Clips):
        def __getitem__(self, index):
            time.sleep(0.01)
            return super().__getitem__(index)

    (record,) = fit(Net(), Slow(), epochs=1)
    assert 0.5 < record.wait_share < 1
    assert record.clips_per_second == pytest.approx(8 / record.seconds)


TWO_PROCESSES = """
import sys
import torch
sys.path.insert(0, {tests!r})
from test_train import Clips, Net, settings, weights
from hstlib.model import HST
from hstlib.training.device import make_accelerator
from hstlib.training.loop import train

torch.manual_seed(7)
model, config = Net(), settings(batch_size=8, epochs=3)
accelerator = make_accelerator(config)
assert accelerator.num_processes == 2
records = train(model, Clips(count=24), config, accelerator).records
if accelerator.is_main_process:
    torch.save((weights(model), records[-1].loss, records[-1].train_top1), {out!r})
"""


def test_two_processes_train_as_one_does(tmp_path):
    script, out = tmp_path / "two.py", tmp_path / "weights.pt"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), out=str(out)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += [str(script)]
    subprocess.run(launch, check=True, capture_output=True, text=True, timeout=120)
    found, loss, top1 = torch.load(out, weights_only=True)
    torch.manual_seed(7)
    model = Net()
    (*_, last) = fit(model, Clips(count=24), batch_size=8, epochs=3)
    torch.testing.assert_close(found, weights(model), rtol=1e-6, atol=1e-6)
    assert loss == pytest.approx(last.loss, rel=1e-5) and top1 == last.train_top1
