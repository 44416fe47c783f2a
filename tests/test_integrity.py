"""Checkpoints and states that changed on the disk, and models that diverge."""

import json
import logging
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_train import Clips, Net, settings, weights
from torch import Tensor, nn

from hstlib.config import LoopConfig
from hstlib.data.datasets import load_dataset
from hstlib.training.checkpoint import check_split, load_checkpoint
from hstlib.training.evaluate import average_views
from hstlib.training.experiment import run_experiment
from hstlib.training.loop import TrainingError, train
from hstlib.training.sealed import (
    METADATA,
    NotFiniteError,
    first_not_finite,
    load_sealed,
    save_sealed,
)
from hstlib.training.state import PREVIOUS, STATE


def fit(folder: Path, **changes) -> nn.Module:
    torch.manual_seed(7)
    model = Net()
    train(model, Clips(), settings(**changes), folder=folder)
    return model


def reseal(path: Path, change) -> None:
    """Change the metadata and tensors of a file, and seal them anew."""
    metadata, tensors, _ = load_sealed(path)
    change(metadata, tensors)
    save_sealed(path, tensors, metadata)


def test_every_one_of_200_flipped_bits_is_refused_by_the_name_of_the_file(finished_run, tmp_path):
    fit(tmp_path / "run", epochs=1, ema_decay=0.9)
    state, checkpoint = tmp_path / "run" / STATE, tmp_path / "a.safetensors"
    shutil.copy(finished_run.checkpoint, checkpoint)
    rng = random.Random(0)
    for path, read in ((checkpoint, load_checkpoint), (state, lambda _: resume(tmp_path / "run"))):
        read(path)
        content, header = path.read_bytes(), 8 + int.from_bytes(path.read_bytes()[:8], "little")
        for number in range(100):
            damaged = bytearray(content)  # a third of the bits in the header
            place = rng.randrange(header if number % 3 == 0 else len(content))
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=path.name):
                read(path)
        path.write_bytes(content)
        read(path)


def resume(folder: Path) -> None:
    train(Net(), Clips(), settings(epochs=1, ema_decay=0.9), folder=folder)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "foreign", "longer"])
def test_a_file_that_is_no_checkpoint_is_named(finished_run, tmp_path, damage):
    path, whole = tmp_path / "a.safetensors", finished_run.checkpoint.read_bytes()
    if damage == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    else:
        contents = {"empty": b"", "text": b"no weights", "truncated": whole[:5000]}
        path.write_bytes(contents.get(damage, whole + b"more"))
    with pytest.raises(ValueError, match=r"a\.safetensors: not a checkpoint of hstlib") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_an_earlier_version_is_named(finished_run, tmp_path):
    """Earlier versions stored no SHA-256."""
    path, run = tmp_path / "a.safetensors", finished_run
    metadata = {"config": run.config.model_dump(), "classes": ["left", "right"], "split": ""}
    save_file(load_file(run.checkpoint), path, {METADATA: json.dumps(metadata)})
    message = r"a\.safetensors: .* written by an earlier version of hstlib.*; train again"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)
    with pytest.raises(ValueError, match=message):
        check_split(path, load_dataset("folder", run.config.data_dir))


def largest(tensors: dict[str, Tensor]) -> str:
    return max(tensors, key=lambda name: tensors[name].numel())


def changed(change) -> object:
    """Return a function that changes the largest tensor of a file."""

    def apply(_, tensors) -> None:
        tensors[largest(tensors)] = change(tensors[largest(tensors)])

    return apply


CHANGES = {
    "half": (changed(Tensor.half), r"is float16 \(.*\) instead of float32"),
    "double": (changed(Tensor.double), r"is float64 \(.*\) instead of float32"),
    "flat": (changed(Tensor.flatten), r"is float32 \(\d+,\) instead of float32"),
    "missing": (lambda _, tensors: tensors.pop(largest(tensors)), "is missing"),
    "more": (lambda _, tensors: tensors.update(more=torch.zeros(1)), "more is unexpected"),
    "nan": (changed(lambda value: value * math.nan), "is not finite"),
    "infinite": (changed(lambda value: value / 0), "is not finite"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_or_are_not_finite_are_refused(finished_run, tmp_path, change):
    path = tmp_path / "a.safetensors"
    shutil.copy(finished_run.checkpoint, path)
    apply, reason = CHANGES[change]
    reseal(path, apply)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{reason}"):
        load_checkpoint(path)


def without(name: str) -> object:
    return lambda metadata, tensors: tensors.pop(name)


def with_tensor(**tensor) -> object:
    return lambda metadata, tensors: tensors.update(tensor)


def with_metadata(**fields) -> object:
    return lambda metadata, tensors: metadata.update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("optimiser.1.exp_avg"), "optimiser.1.exp_avg is missing"),
        (without("optimiser.0.step"), "optimiser.0.step is missing"),
        (with_tensor(**{"optimiser.2.step": torch.zeros(())}), "optimiser.2.step is unexpected"),
        (
            with_tensor(**{"optimiser.0.step": torch.zeros((), dtype=torch.int64)}),
            r"optimiser.0.step is int64 \(\) instead of float32 \(\)",
        ),
        (with_tensor(**{"optimiser.1.exp_avg": torch.zeros(3)}), r"\(3,\) instead of float32"),
        (with_tensor(**{"model.layer.bias": torch.full((4,), math.nan)}), "is not finite"),
        (with_tensor(**{"best.layer.bias": torch.zeros(4)}), "best.layer.bias is unexpected"),
        (with_metadata(records=[]), "it has neither a complete epoch nor a step"),
        (with_metadata(progress={"losses": 1}), "progress: Input should be a valid list"),
        (with_metadata(records=[{"epoch": 3}]), r"its epochs are \[3\] and not \[0\]"),
        (with_metadata(more=1), "more: Extra inputs are not permitted"),
    ],
)
def test_a_state_that_is_not_whole_is_refused(tmp_path, change, reason):
    fit(tmp_path, epochs=1)
    reseal(tmp_path / STATE, change)
    message = rf"state\.safetensors: .*{reason}.*remove it to train from the first epoch"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, epochs=2)


@pytest.mark.parametrize("damage", ["truncated", "not finite", "missing"])
def test_the_older_state_is_used_if_the_newer_one_is_not_whole(tmp_path, damage, caplog):
    fit(tmp_path, epochs=3)
    state = tmp_path / STATE
    assert [len(load_sealed(tmp_path / name)[0]["records"]) for name in (STATE, PREVIOUS)] == [3, 2]
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "not finite":
        reseal(state, with_tensor(**{"model.layer.bias": torch.full((4,), math.inf)}))
    else:
        state.unlink()
    with caplog.at_level(logging.INFO, "hstlib"):
        resumed = fit(tmp_path, epochs=5)
    assert "resuming after epoch 2" in caplog.text
    assert torch.equal(weights(resumed), weights(fit(tmp_path / "whole", epochs=5)))
    if damage != "missing":
        assert "resuming from state.previous.safetensors, one save earlier" in caplog.text
    assert [len(load_sealed(tmp_path / name)[0]["records"]) for name in (STATE, PREVIOUS)] == [5, 4]


def test_a_damaged_state_never_takes_the_place_of_the_older_good_one(tmp_path):
    fit(tmp_path, epochs=3)
    (tmp_path / STATE).write_bytes(b"damaged")
    good = (tmp_path / PREVIOUS).read_bytes()
    fit(tmp_path, epochs=3)
    assert (tmp_path / PREVIOUS).read_bytes() == good
    assert len(load_sealed(tmp_path / STATE)[0]["records"]) == 3


def test_two_damaged_states_are_both_named(tmp_path):
    fit(tmp_path, epochs=2)
    for name in (STATE, PREVIOUS):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"state\.safetensors: .*state\.previous\.safetensors: "):
        fit(tmp_path, epochs=2)


class BreaksItsWeights(Net):
    """The last step of the second epoch makes the bias infinite, at a finite loss."""

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        logits = super().forward(clips, flow)
        if len(self.batches) == 4:
            self.layer.bias.data[0] = math.inf
        return logits


def test_weights_that_are_not_finite_end_the_run_at_their_step(tmp_path):
    message = (
        r"model\.layer\.bias is not finite in epoch 2, step 2, at learning rate 0\.01; .*Last good "
        r"checkpoint: .*state\.safetensors, after epoch 1\. The batch: \d\.avi, "
    )
    with pytest.raises(TrainingError, match=message):
        train(BreaksItsWeights(), Clips(), settings(epochs=4), folder=tmp_path)
    metadata, tensors, _ = load_sealed(tmp_path / STATE)
    assert len(metadata["records"]) == 1 and first_not_finite(tensors.items()) is None


def test_large_numbers_are_finite_even_if_their_sum_is_not():
    large = torch.full((4,), 3e38)
    assert large.sum().isinf() and first_not_finite([("large", large)]) is None
    tensors = {"count": torch.tensor(3), "good": torch.ones(2), "bad": torch.tensor([1, math.nan])}
    assert first_not_finite(tensors.items()) == "bad"


def test_scores_that_are_not_finite_are_no_unreadable_video():
    good, bad = np.full((2, 3), 1 / 3), np.array([[0.2, 0.8, 0], [math.nan] * 3])
    with pytest.raises(NotFiniteError, match="scores of video 3 of 3 are not finite: it has div"):
        average_views([good, None, bad], 3)


def test_scores_that_are_not_finite_in_validation_end_the_run(tmp_path):
    def validate(model: nn.Module) -> float:
        return float(average_views([np.full((1, 2), math.nan)], 2).mean())

    with pytest.raises(TrainingError, match="not finite: it has diverged, in the validation after"):
        config = LoopConfig(epochs=2, batch_size=4, device="cpu")
        train(Net(), Clips(), config, folder=tmp_path, validate=validate)
    assert not (tmp_path / STATE).exists()


def test_a_model_whose_test_scores_are_not_finite_is_a_failed_run(
    finished_run, in_its_data_root, tmp_path, monkeypatch
):
    """Finite weights, whose logits overflow in evaluation only."""
    from hstlib.model import R3D

    forward = R3D.forward

    def overflows(self, clips: Tensor, flow: Tensor) -> Tensor:
        logits = forward(self, clips, flow)
        return logits if self.training else logits * 1e38 * 1e38

    monkeypatch.setattr(R3D, "forward", overflows)
    message = (
        r"moves-r3d.*: the model's scores of video 1 of 4 .*, after step 2 \(epoch 1\); choose"
    )
    with pytest.raises(TrainingError, match=message):
        run_experiment(finished_run.config, tmp_path)
    assert not list(tmp_path.glob("*/row.json"))
    assert "TrainingError: moves-r3d" in next(tmp_path.glob("*/log.txt")).read_text()
