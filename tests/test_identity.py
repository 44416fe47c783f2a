"""A run is its settings, its lists and the contents of its videos, and nothing else."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import Clips, Net, settings, weights

from hstlib.config import TrainConfig
from hstlib.data.datasets import load_dataset
from hstlib.training import experiment
from hstlib.training.checkpoint import check_split
from hstlib.training.experiment import evaluated_checkpoint, run_experiment
from hstlib.training.identity import (
    Ancestor,
    RunIdentity,
    differing_data,
    differing_settings,
)
from hstlib.training.loop import TrainingResult, train
from hstlib.training.provenance import identify_data
from hstlib.training.rows import ROW, load_row
from hstlib.training.sealed import load_sealed
from hstlib.training.state import PREVIOUS, STATE

DATA = RunIdentity(class_names=("a", "b"), split_id="aa", train_contents="11", test_contents="22")


def fit(folder: Path, data: RunIdentity = DATA, **changes) -> tuple[Net, TrainingResult]:
    torch.manual_seed(7)
    model = Net()
    return model, train(model, Clips(), settings(**changes), folder=folder, identity=data)


@pytest.mark.parametrize(
    ("changes", "data", "difference"),
    [
        ({"size": 112}, {}, "size 224 instead of 112"),
        ({"precision": "bf16"}, {}, "precision 'fp32' instead of 'bf16'"),
        ({"channels_last": False}, {}, "channels_last True instead of False"),
        ({}, {"class_names": ("b", "a")}, "class 0 'a' instead of 'b'"),
        ({}, {"class_names": ("a", "b", "c")}, "2 classes instead of 3"),
        (
            {},
            {"ancestor": Ancestor(sha256="c" * 64, run_id="first")},
            "start from random weights instead of weights cccccccccccccccc of first",
        ),
        ({}, {"split_id": "bb"}, "lists aa instead of bb"),
        ({}, {"train_contents": "33"}, "contents of the training videos 11 instead of 33"),
        (
            {"size": 112},
            {"test_contents": "33"},
            "size 224 instead of 112, contents of the test videos 22 instead of 33",
        ),
    ],
)
def test_the_state_of_another_run_is_refused_with_both_values(tmp_path, changes, data, difference):
    fit(tmp_path, epochs=1)
    before = (tmp_path / STATE).read_bytes()
    message = rf"state\.safetensors belongs to another run \({difference}\); move it away"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, DATA.model_copy(update=data), epochs=2, **changes)
    assert (tmp_path / STATE).read_bytes() == before


def test_place_processes_device_and_memory_are_no_identity(tmp_path):
    fit(tmp_path, epochs=1)
    resumed, _ = fit(
        tmp_path, epochs=2, num_workers=1, data_dir="/elsewhere", activation_checkpointing=True
    )
    straight, _ = fit(tmp_path / "straight", epochs=2)
    assert torch.equal(weights(resumed), weights(straight))
    stored = settings().model_dump()
    assert differing_settings(stored, stored | {"device": "cuda"}) == ""
    assert differing_settings(stored, stored | {"seed": 1}) == "seed 0 instead of 1"


def test_a_run_that_is_trained_longer_ends_as_if_it_had_been_planned_so(tmp_path, caplog):
    fit(tmp_path, epochs=2)
    with caplog.at_level(logging.INFO, "hstlib"):
        longer, result = fit(tmp_path, epochs=4)
    straight, planned = fit(tmp_path / "straight", epochs=4)
    assert torch.equal(weights(longer), weights(straight))
    assert [r.loss for r in result.records] == [r.loss for r in planned.records]
    assert (result.replanned, planned.replanned) == ([2], [])
    assert "epochs is 4 instead of 2 from here on" in caplog.text
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


def test_a_cosine_schedule_says_what_training_longer_means(tmp_path, caplog):
    fit(tmp_path, epochs=2, schedule="cosine", learning_rate=0.1)
    _, result = fit(tmp_path, epochs=4, schedule="cosine", learning_rate=0.1)
    rates = [record.learning_rate for record in result.records]
    assert rates == pytest.approx([0.1, 0.05, 0.05, 0.0146], abs=1e-4)
    assert (
        "schedule cosine: the learning rate of the first 2 epochs fell as for 2 epochs, and now "
        "continues at 0.05 as for 4; the result differs from a run of 4 epochs"
    ) in caplog.text
    _, again = fit(tmp_path, epochs=5, schedule="cosine", learning_rate=0.1)
    assert again.replanned == [2, 4]


def test_a_run_is_not_trained_shorter(tmp_path):
    fit(tmp_path, epochs=3)
    with pytest.raises(ValueError, match=r"is trained for 3 epochs, more than the 2 asked for"):
        fit(tmp_path, epochs=2)


def test_unknown_data_are_not_compared():
    assert differing_data(None, DATA) == differing_data(DATA, None) == ""


@pytest.fixture
def videos(class_folders, tmp_path) -> Path:
    """A copy of the class folders that a test may change."""
    return Path(shutil.copytree(class_folders, tmp_path / "videos" / "moves"))


@pytest.fixture
def config(videos, inline_pool) -> TrainConfig:
    return TrainConfig(
        dataset="folder", data_dir=str(videos), model="r3d", backbone="demo", epochs=1,
        batch_size=4, device="cpu", size=16,
    )  # fmt: skip


def killed(*_) -> None:
    raise KeyboardInterrupt


def interrupted(config: TrainConfig, results: Path) -> None:
    """Start a run and kill it in its test."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "evaluate_answers", killed)
        run_experiment(config, results)


@pytest.mark.parametrize("finished", [False, True])
def test_neither_added_files_nor_changed_contents_go_unnoticed(config, videos, tmp_path, finished):
    results = tmp_path / "results"
    (run_experiment if finished else interrupted)(config, results)
    holds = "holds another run" if finished else "belongs to another run"
    record = (results / config.run_id / "run.json").read_bytes()
    data = load_dataset("folder", config.data_dir)
    train, test = data.train[0].path, data.test[0].path
    before = train.read_bytes()
    train.write_bytes(test.read_bytes())
    message = rf"{holds} \(contents of the training videos \w{{16}} instead of \w{{16}}\)"
    with pytest.raises(ValueError, match=message):
        run_experiment(config, results)
    train.write_bytes(before)
    shutil.copy(test, videos / "left" / "another_1.avi")
    with pytest.raises(ValueError, match=rf"{holds} \(lists \w{{16}} instead of \w{{16}}, content"):
        run_experiment(config, results)
    assert (results / config.run_id / "run.json").read_bytes() == record
    (videos / "left" / "another_1.avi").unlink()
    row = run_experiment(config, results)
    assert len(row.test_evaluations) == (1 if finished else 2)


def test_the_identity_is_sealed_in_state_checkpoint_and_row(config, tmp_path):
    row = run_experiment(config, tmp_path / "results")
    data = load_dataset("folder", config.data_dir)
    identity = identify_data(data, config.clip)
    assert row.data == identity and identity.class_names == ("left", "right")
    folder = tmp_path / "results" / row.run_id
    assert load_row(folder / ROW).data == identity
    for name in (STATE, "last.safetensors"):
        metadata, _, _ = load_sealed(folder / name)
        assert RunIdentity(**metadata["data"]) == RunIdentity(**dict(identity))
        assert metadata["config"] == config.model_dump()
    assert row.weights == load_sealed(folder / "last.safetensors")[2]
    assert row.version and not (folder / PREVIOUS).exists()


def test_contents_are_those_of_the_files_with_or_without_a_store(config, videos):
    data = load_dataset("folder", config.data_dir)
    alone = identify_data(data, config.clip)
    experiment.open_store(data, config.clip)
    assert identify_data(data, config.clip) == alone
    assert alone.train_contents != alone.test_contents
    with (videos / "right" / "seq01_0.avi").open("ab") as file:  # split 1 tests seq00 and seq03
        file.write(b"0")
    changed = identify_data(data, config.clip)
    assert {alone.train_contents == changed.train_contents} | {
        alone.test_contents == changed.test_contents
    } == {True, False}


def test_a_finished_run_is_found_from_moved_data_and_trained_longer(config, videos, tmp_path):
    results, elsewhere = tmp_path / "results", tmp_path / "elsewhere" / "moves"
    first = run_experiment(config, results)
    shutil.copytree(videos, elsewhere)
    shutil.rmtree(videos)
    moved = config.model_copy(update={"data_dir": str(elsewhere), "num_workers": 0})
    assert run_experiment(moved, results) == first
    longer = moved.model_copy(update={"epochs": 3})
    row = run_experiment(longer, results)
    assert (len(row.epochs), row.replanned, len(row.test_evaluations)) == (3, [1], 2)
    straight = run_experiment(longer, tmp_path / "straight")
    assert [e["loss"] for e in row.epochs] == [e["loss"] for e in straight.epochs]
    assert row.test == straight.test
    found, expected = (
        load_file(evaluated_checkpoint(longer, place)) for place in (results, tmp_path / "straight")
    )
    assert all(torch.equal(found[name], expected[name]) for name in found | expected)
    assert load_row(results / row.run_id / "row-1-epochs.json") == first
    with pytest.raises(ValueError, match="is trained for 3 epochs, more than the 1 asked for"):
        run_experiment(moved, results)


def test_without_its_state_a_finished_run_cannot_be_trained_longer(config, tmp_path):
    row = run_experiment(config, tmp_path)
    (tmp_path / row.run_id / STATE).unlink()
    assert run_experiment(config, tmp_path) == row
    with pytest.raises(ValueError, match="is finished after 1 epochs, and without its state it"):
        run_experiment(config.model_copy(update={"epochs": 2}), tmp_path)


def test_a_row_belongs_to_the_weights_beside_it(config, tmp_path, caplog):
    row = run_experiment(config, tmp_path)
    checkpoint = evaluated_checkpoint(config, tmp_path)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-1])
    again = run_experiment(config, tmp_path)  # the state gives them again
    assert checkpoint.read_bytes() == whole and again.test == row.test
    assert "they are written again from the state" in caplog.text
    checkpoint.unlink()
    (tmp_path / row.run_id / STATE).unlink()
    with pytest.raises(ValueError, match=r"last\.safetensors: no such checkpoint.*; restore"):
        run_experiment(config, tmp_path)


def test_a_row_without_the_identity_of_its_data_is_of_an_earlier_version(config, tmp_path):
    row = run_experiment(config, tmp_path)
    path = tmp_path / row.run_id / ROW
    path.write_text(row.model_copy(update={"class_names": ()}).model_dump_json())
    with pytest.raises(ValueError, match=r"row\.json was written by an earlier version of hstlib"):
        run_experiment(config, tmp_path)


def test_a_checkpoint_is_tested_on_its_own_videos_wherever_they_are(config, videos, tmp_path):
    row = run_experiment(config, tmp_path / "results")
    checkpoint = evaluated_checkpoint(config, tmp_path / "results")
    data = load_dataset("folder", config.data_dir)
    elsewhere = Path(shutil.copytree(videos, tmp_path / "elsewhere" / "moves"))
    for sample in data.train:  # they are not needed
        (elsewhere / sample.path.relative_to(videos)).write_bytes(b"")
    check_split(checkpoint, load_dataset("folder", elsewhere))
    tested = data.test[0].path.relative_to(videos)
    (elsewhere / tested).write_bytes(data.train[0].path.read_bytes())
    message = rf"contents of the test videos {row.test_contents} instead of \w{{16}}\); test it on"
    with pytest.raises(ValueError, match=message):
        check_split(checkpoint, load_dataset("folder", elsewhere))


def test_wrong_values_are_named_before_anything_is_decoded_or_written(config, tmp_path):
    results, stores = tmp_path / "results", tmp_path / "data-root" / "store"
    with pytest.raises(ValueError, match="8 training videos do not fill a batch of 9; lower"):
        run_experiment(config.model_copy(update={"batch_size": 9}), results)
    assert not stores.exists()
    shutil.rmtree(results)
    outside = {"model": "hst", "reading": "../../outside"}
    with pytest.raises(ValueError, match="outside"):
        run_experiment(config.model_copy(update=outside), results)
    assert not results.exists() and not list(tmp_path.glob("*outside*"))
