"""SIGTERM and SIGINT within an epoch: the run is saved after the step and loses nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from test_train import Clips, Net, settings, weights
from torch import Tensor, nn

from hstlib.model import C3D
from hstlib.training import interruption
from hstlib.training.epochs import EpochRecord
from hstlib.training.interruption import Stopped, stop_on_signals
from hstlib.training.loop import TrainingError, train
from hstlib.training.sealed import load_sealed
from hstlib.training.state import PREVIOUS, STATE, describe_place

PARTS = 4
"""Batches of four of the sixteen clips in an epoch."""


class Dropping(Net):
    """Every step depends on the state of the random generator."""

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(clips, 0.5, self.training), flow)


def build(kind: type[nn.Module]) -> tuple[nn.Module, Clips]:
    torch.manual_seed(7)
    if kind is C3D:
        return C3D(4, "demo"), Clips(16, size=16, frames=16)
    return kind(), Clips(16)


def fit(
    folder: Path, kind: type[nn.Module] = Dropping, at: int = 0, number: int = signal.SIGTERM,
    times: int = 1, **changes,
) -> tuple[Tensor, list[EpochRecord]]:  # fmt: skip
    """Train for three epochs; at a forward pass in training, counted from 1, send a signal."""
    model, data = build(kind)
    config, calls = settings(epochs=3, **changes), []

    def send(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(model.training)
        if model.training and sum(calls) == at:
            for _ in range(times):
                os.kill(os.getpid(), number)

    hook = model.register_forward_pre_hook(send)
    validate = None
    if config.validation:
        validate = lambda model: 1 / float(weights(model).norm())  # noqa: E731
    with stop_on_signals():
        records = train(model, data, config, folder=folder, validate=validate).records
    hook.remove()
    return weights(model), records


def measured(records: list[EpochRecord]) -> list[tuple]:
    return [(r.epoch, r.loss, r.train_top1, r.learning_rate, r.validation_top1) for r in records]


def assert_same_run(folder: Path, at: list[int], **changes) -> None:
    """Stop a run at each of some forward passes, each counted from the start of its process."""
    expected, whole = fit(folder / "whole", **changes)
    for number in at:
        with pytest.raises(Stopped) as stopped:
            fit(folder / "broken", at=number, **changes)
        assert stopped.value.code == 143
        assert describe_place(folder / "broken").startswith("in epoch ")
    resumed, records = fit(folder / "broken", **changes)
    assert torch.equal(resumed, expected)
    assert measured(records) == measured(whole)
    lines = (folder / "broken" / "epochs.jsonl").read_text().splitlines()
    assert measured([EpochRecord(**json.loads(line)) for line in lines]) == measured(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation_steps": 2},
        {"ema_decay": 0.9},
        {"ema_decay": 0.9, "accumulation_steps": 2, "max_grad_norm": 0.1},
        {"validation": True},
        {"warmup_epochs": 2, "schedule": "cosine"},
        {"precision": "bf16"},
        {"num_workers": 2},
        {"kind": C3D},
        {"kind": C3D, "ema_decay": 0.9, "accumulation_steps": 2, "validation": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [[1], [2], [6, 1], [9, 2]], ids=str)
def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_weights(tmp_path, at, changes):
    assert_same_run(tmp_path, at, **changes)


def test_a_run_that_is_stopped_after_every_step_ends_with_the_same_weights(tmp_path):
    assert_same_run(tmp_path, [1] * (3 * PARTS), ema_decay=0.9, validation=True)


def test_the_last_step_of_an_epoch_is_not_lost(tmp_path):
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, at=PARTS, number=signal.SIGINT)
    assert stopped.value.code == 130
    assert describe_place(tmp_path) == f"in epoch 1, after step {PARTS}"
    metadata, _, _ = load_sealed(tmp_path / STATE)
    assert metadata["records"] == [] and len(metadata["progress"]["losses"]) == PARTS
    assert not (tmp_path / "epochs.jsonl").exists()


def test_a_state_within_an_epoch_is_a_generation_like_others(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path, at=2 * PARTS + 1)
    assert load_sealed(tmp_path / STATE)[0]["progress"]
    assert load_sealed(tmp_path / PREVIOUS)[0]["progress"] is None
    (tmp_path / STATE).write_bytes(b"damaged")
    resumed, _ = fit(tmp_path)
    assert torch.equal(resumed, fit(tmp_path / "whole")[0])


def test_fewer_epochs_than_the_state_has_begun_are_refused(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path, at=PARTS + 1)
    message = "is trained for 1 epochs and a part, more than the 1 asked for"
    with pytest.raises(ValueError, match=message):
        train(Dropping(), Clips(16), settings(epochs=1), folder=tmp_path)


def assert_stops_at_once(folder: Path, **changes) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(folder, **changes)
    assert stopped.value.code == 143 and describe_place(folder) == "after epoch 0"


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch):
    fit_state = {"at": 2, "times": 2}
    with pytest.raises(Stopped):  # two in a moment are one: `timeout` sends them
        fit(tmp_path / "moment", **fit_state)
    assert describe_place(tmp_path / "moment") == "in epoch 1, after step 2"
    monkeypatch.setattr(interruption, "SAME_SIGNAL", -1.0)
    assert_stops_at_once(tmp_path, **fit_state)


def test_several_processes_stop_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    assert_stops_at_once(tmp_path, at=2)


def test_without_a_folder_a_run_stops_at_once():
    class Signalling(Net):
        def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
            os.kill(os.getpid(), signal.SIGTERM)
            return pytest.fail("it went on")

    with pytest.raises(Stopped), stop_on_signals():
        train(Signalling(), Clips(), settings())


def test_before_the_first_step_a_run_stops_at_once(tmp_path):
    class Signalling(Clips):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    model = Net()
    with pytest.raises(Stopped) as stopped, stop_on_signals():
        train(model, Signalling(), settings(), folder=tmp_path)
    assert stopped.value.code == 143 and not model.batches and not (tmp_path / STATE).exists()


class Dies(Clips):
    """The loader process gets the signal of its parent before it can ignore any."""

    def __init__(self, signals_parent: bool):
        super().__init__()
        self.signals_parent = signals_parent

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        if self.signals_parent:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.5)
        return os.kill(os.getpid(), signal.SIGKILL)


def test_a_loader_process_that_dies_of_the_same_signal_does_not_matter(tmp_path):
    config = settings(num_workers=1)
    with pytest.raises(Stopped) as stopped, stop_on_signals():
        train(Net(), Dies(signals_parent=True), config, folder=tmp_path)
    assert stopped.value.code == 143
    with pytest.raises(RuntimeError, match="DataLoader worker"), stop_on_signals():
        train(Net(), Dies(signals_parent=False), config, folder=tmp_path)


def test_validation_stops_at_once_and_costs_its_epoch(tmp_path):
    def validate(model: nn.Module) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return pytest.fail("it went on")

    with pytest.raises(Stopped) as stopped, stop_on_signals():
        train(Net(), Clips(), settings(validation=True), folder=tmp_path, validate=validate)
    assert stopped.value.code == 143 and not (tmp_path / STATE).exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    class Breaks(Net):
        def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
            logits = super().forward(clips, flow)
            self.layer.bias.data[0] = torch.inf
            os.kill(os.getpid(), signal.SIGTERM)
            return logits

    message = "bias is not finite in epoch 1, step 1, .*The batch: "
    with pytest.raises(TrainingError, match=message), stop_on_signals():
        train(Breaks(), Clips(16), settings(), folder=tmp_path)
    assert not (tmp_path / STATE).exists()


class Diverges(Dropping):
    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        return super().forward(clips, flow) * torch.nan


def test_a_state_within_an_epoch_is_named_as_the_last_good_one(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path, at=2)
    message = r"step 3, .*Last good checkpoint: .*state\.safetensors, in epoch 1, after step 2\. "
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path, Diverges)


def test_the_state_that_was_resumed_is_named_where_the_last_one_is_damaged(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path, at=PARTS + 2)
    assert (tmp_path / PREVIOUS).exists()
    content = bytearray((tmp_path / STATE).read_bytes())
    content[-1] ^= 1
    (tmp_path / STATE).write_bytes(content)
    message = r"Last good checkpoint: .*state\.previous\.safetensors, after epoch 1\. "
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path, Diverges)


@pytest.mark.cuda
def test_on_a_gpu_its_random_numbers_continue_too(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path / "broken", at=PARTS + 2, device="cuda")
    (resumed, records), (whole, expected) = (
        fit(tmp_path / name, device="cuda") for name in ("broken", "whole")
    )
    torch.testing.assert_close(resumed, whole)
    assert [r.loss for r in records] == pytest.approx([r.loss for r in expected])
