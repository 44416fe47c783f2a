import json
import logging
import subprocess
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scores import score_videos
from torch.utils.checkpoint import checkpoint

from hstlib.config import TrainConfig
from hstlib.data import demo
from hstlib.data.datasets import Sample, hold_out_validation, load_dataset
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training import experiment
from hstlib.training.answers import kind_accuracy
from hstlib.training.checkpoint import check_split, load_checkpoint, save_checkpoint
from hstlib.training.evaluate import summarise
from hstlib.training.experiment import (
    evaluated_checkpoint,
    open_store,
    run_experiment,
)
from hstlib.training.metrics import count_parameters
from hstlib.training.provenance import checkout_commit, environment, identify_data
from hstlib.training.rows import load_row, load_rows, write_row


def test_a_run_writes_its_row(finished_run):
    assert load_rows(finished_run.results) == [finished_run.row]


def test_a_finished_run_leaves_its_record_and_its_weights_only(finished_run):
    files = {p.name for p in (finished_run.results / "moves-r3d-demo-s1-seed0").iterdir()}
    kept = {"run.json", "row.json", "epochs.jsonl", "log.txt", "last.safetensors"}
    assert files == kept | {"state.safetensors"}


def test_the_row_says_what_was_run(finished_run):
    row = finished_run.row
    assert (row.run_id, row.config) == ("moves-r3d-demo-s1-seed0", finished_run.config)
    assert (row.classes, row.train_videos, row.missing, row.problems) == (2, 8, 0, 0)
    assert row.parameters == count_parameters(build_model("r3d", 2, "demo"))
    assert row.test.keys() >= {"top1", "top5", "mean_class", "clip_top1", "ece", "videos"}
    assert len(row.videos) == len(row.confidences) == 4 and row.tags == {}
    assert len(row.test_evaluations) == 1 and row.manifest is None
    assert (row.test["videos"], row.test["unreadable"], row.test["top5"]) == (4, 0, 1.0)
    assert [e["epoch"] for e in row.epochs] == [0] and np.isfinite(row.epochs[0]["loss"])
    assert row.kinds == {}
    assert row.environment == environment()


def test_the_log_holds_a_line_per_epoch(finished_run):
    log = (finished_run.results / finished_run.row.run_id / "log.txt").read_text()
    assert (
        "epoch 1/1 loss" in log and "evaluates the test set, time 1" in log and "test top-1" in log
    )


def test_the_same_settings_give_the_same_losses_and_scores(
    finished_run, in_its_data_root, tmp_path
):
    row = run_experiment(finished_run.config, tmp_path / "again")
    assert row.epochs[0]["loss"] == finished_run.row.epochs[0]["loss"]
    assert row.test == finished_run.row.test
    again = evaluated_checkpoint(finished_run.config, tmp_path / "again")
    assert again.read_bytes() == finished_run.checkpoint.read_bytes()


def test_a_checkpoint_gives_the_rows_accuracy(finished_run, in_its_data_root):
    model, config, classes = load_checkpoint(finished_run.checkpoint)
    assert config == finished_run.config and classes == ["left", "right"]
    data = load_dataset(config.dataset, config.data_dir, config.split)
    scores = score_videos(model, data.test, open_store(data, config.clip))
    found = summarise(scores, [s.label for s in data.test])
    assert found == {name: finished_run.row.test[name] for name in found}


@pytest.mark.parametrize("name", ["hst", "c3d", "r2plus1d", "r3d"])
def test_a_checkpoint_gives_identical_predictions(name, class_folders, tmp_path):
    model = build_model(name, 2, "demo")
    to_channels_last(model)  # as in training
    clips, flow = torch.randn(2, 3, 16, 16, 16), torch.randn(2, 2, 16, 16, 16)
    model(clips, flow)  # moves the running statistics
    path = tmp_path / "new" / "a.safetensors"
    config = TrainConfig(model=name, backbone="demo")
    data = identify_data(load_dataset("folder", class_folders), config.clip)
    save_checkpoint(path, model, config, data)
    loaded, _, _ = load_checkpoint(path)
    assert not loaded.training
    assert torch.equal(loaded(clips, flow), model.eval()(clips, flow))
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors: no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


EARLIER = {"model": "r3d", "backbone": "demo", "clip": {"size": 16}, "loop": {"ema": 0.0}}


def test_a_row_of_an_earlier_version_is_named(finished_run, tmp_path):
    path = write_row(finished_run.row, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": EARLIER}))
    with pytest.raises(ValueError, match=r"row\.json was written by an earlier version of hstlib"):
        load_row(path)
    with pytest.raises(ValueError, match=r"row\.json was written by an earlier version of hstlib"):
        run_experiment(finished_run.config, tmp_path)


def test_a_data_set_that_is_not_there_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match="unpack the official split lists"):
        run_experiment(TrainConfig(), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_training_videos_that_cannot_be_read_stop_the_run(tmp_path, inline_pool):
    for name in ("a/seq0_0", "a/seq1_0", "a/seq2_0", "b/seq0_1", "b/seq1_1", "b/seq2_1"):
        path = tmp_path / "broken" / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = TrainConfig(
        dataset="folder", data_dir=str(tmp_path / "broken"), size=16, batch_size=2, backbone="demo"
    )
    with pytest.raises(ValueError, match=r"none of the 4 training videos.*seq1_0\.avi: empty"):
        run_experiment(config, tmp_path / "results")


def test_an_unreadable_video_is_left_out_of_training_and_wrong_in_the_test(
    class_folders, tmp_path, inline_pool, caplog
):
    root = tmp_path / "moves"
    for path in class_folders.rglob("*.avi"):
        copy = root / path.relative_to(class_folders)
        copy.parent.mkdir(parents=True, exist_ok=True)
        damaged = path.name[:5] in ("seq00", "seq01")  # the first is tested in split 1
        copy.write_bytes(b"" if damaged else path.read_bytes())
    config = TrainConfig(
        dataset="folder", data_dir=str(root), model="c3d", backbone="demo", epochs=1,
        batch_size=6, device="cpu", size=16,
    )  # fmt: skip
    row = run_experiment(config, tmp_path / "results")
    assert (row.train_videos, row.problems, row.missing) == (8, 4, 0)
    assert (row.test["videos"], row.test["unreadable"]) == (4, 2)
    assert row.test["top1"] <= 0.5
    ending = caplog.records[-4:]
    assert all(r.levelno == logging.WARNING and "left out: " in r.getMessage() for r in ending)


def test_a_run_on_a_drawn_corpus_judges_by_kind(drawn_corpus, tmp_path):
    config = TrainConfig(
        dataset=drawn_corpus, model="hst", backbone="demo", epochs=1, batch_size=4, device="cpu",
        size=16,
    )  # fmt: skip
    row = run_experiment(config, tmp_path / "results")
    kinds = {"motion", "appearance", "direction"}
    assert row.kinds.keys() == kinds | {f"{kind}_shuffled" for kind in kinds}
    assert all(0 <= share <= 1 for share in row.kinds.values())
    assert row.missing == row.problems > 0


def test_kind_accuracy_by_hand(tmp_path):
    classes = tuple(sorted(demo.class_kinds("demo-hmdb51")))
    left, right, disc = (classes.index(name) for name in ("slide_left", "slide_right", "disc"))
    scores = np.zeros((5, 8))
    scores[0, [left, right]] = 0.6, 0.4  # right
    scores[1, [left, right, disc]] = 0.3, 0.2, 0.5  # wrong, but the right direction
    scores[2, [left, right]] = 0.6, 0.4  # wrong direction
    scores[3, disc] = 1  # right
    scores[4] = np.nan  # unreadable
    labels = [left, left, right, disc, disc]
    samples = tuple(Sample(tmp_path, label, "") for label in labels)
    assert kind_accuracy("demo-hmdb51", classes, scores, samples) == pytest.approx(
        {"motion": 1 / 3, "appearance": 1 / 2, "direction": 2 / 3}
    )


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_own_checkout(tmp_path, monkeypatch):
    """Not of a repository around an installed package, nor of one that the environment names."""
    for name in ("own", "around"):
        package = tmp_path / name / ("" if name == "own" else "env") / "hstlib"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (tmp_path / name / "file").touch()
        git(tmp_path / name, "init", "-q")
        git(tmp_path / name, "add", "hstlib/__init__.py" if name == "own" else "file")
        git(tmp_path / name, "commit", "-qm", "first")
    commit = git(tmp_path / "own", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "around" / ".git"))
    assert checkout_commit(tmp_path / "own") == (commit, False)
    (tmp_path / "own" / "hstlib" / "__init__.py").write_text("changed")
    assert checkout_commit(tmp_path / "own") == (commit, True)
    assert checkout_commit(tmp_path / "around" / "env") == ("unknown", True)
    assert checkout_commit(tmp_path) == ("unknown", True)


def test_environment_is_text():
    found = environment()
    assert found.keys() >= {"python", "torch", "cuda", "cudnn", "accelerate", "opencv", "device"}
    assert all(isinstance(value, str) for value in found.values())
    assert found["torch"] == torch.__version__


def test_activation_checkpointing_gives_the_same_weights(finished_run, in_its_data_root, tmp_path):
    weights = []
    for on in (False, True):
        changes = {"model": "hst", "activation_checkpointing": on}
        config = finished_run.config.model_copy(update=changes)
        with patch("hstlib.model.reformer.checkpoint", wraps=checkpoint) as checkpointed:
            run_experiment(config, tmp_path / str(on))
        assert checkpointed.called == on
        weights.append(load_file(evaluated_checkpoint(config, tmp_path / str(on))))
    stored, recomputed = weights
    assert all(torch.equal(stored[name], recomputed[name]) for name in stored | recomputed)


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_are_trained_in_the_memory_format_of_the_settings(
    finished_run, in_its_data_root, tmp_path, channels_last, monkeypatch
):
    formats = []

    def train(model, *arguments):
        result = experiment_train(model, *arguments)
        weights = [p for p in model.parameters() if p.ndim in (4, 5)]
        formats.append(all(p.movedim(1, -1).is_contiguous() for p in weights))
        return result

    experiment_train = experiment.train
    monkeypatch.setattr(experiment, "train", train)
    config = finished_run.config.model_copy(update={"channels_last": channels_last})
    row = run_experiment(config, tmp_path)
    assert formats == [channels_last]
    assert row.epochs[0]["loss"] == pytest.approx(finished_run.row.epochs[0]["loss"], rel=1e-4)


def test_a_row_with_other_settings_is_not_replaced(finished_run, in_its_data_root, tmp_path):
    write_row(finished_run.row, tmp_path)
    other = finished_run.config.model_copy(update={"label_smoothing": 0.5})
    with pytest.raises(
        ValueError, match=r"holds another run \(label_smoothing 0\.0 instead of 0\.5\)"
    ):
        run_experiment(other, tmp_path)
    assert load_rows(tmp_path) == [finished_run.row]


def test_a_size_the_model_cannot_take_fails_before_decoding(
    finished_run, in_its_data_root, tmp_path
):
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 40, 40\)"):
        run_experiment(finished_run.config.model_copy(update={"size": 40}), tmp_path)


def test_a_finished_run_is_not_run_again(finished_run, in_its_data_root, caplog):
    before = finished_run.checkpoint.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "hstlib"):
        assert run_experiment(finished_run.config, finished_run.results) == finished_run.row
    assert "is finished" in caplog.text and "test set" not in caplog.text
    assert finished_run.checkpoint.stat().st_mtime_ns == before


def test_with_validation_the_best_epoch_is_evaluated(finished_run, in_its_data_root, tmp_path):
    config = finished_run.config.model_copy(update={"validation": True, "epochs": 3})
    row = run_experiment(config, tmp_path)
    folder = tmp_path / config.run_id
    assert (folder / "last.safetensors").is_file()
    assert evaluated_checkpoint(config, tmp_path) == folder / "best.safetensors"
    shares = [epoch["validation_top1"] for epoch in row.epochs]
    assert all(0 <= share <= 1 for share in shares)
    data = load_dataset("folder", config.data_dir, config.split)
    model, _, _ = load_checkpoint(folder / "best.safetensors")
    store = open_store(data, config.clip)
    _, validation = hold_out_validation(data)
    labels = [sample.label for sample in validation]
    assert summarise(score_videos(model, validation, store), labels)["top1"] == max(shares)
    assert row.train_videos + len(validation) == len(data.train)


def test_a_run_killed_in_the_test_reads_it_twice_and_says_so(
    finished_run, in_its_data_root, tmp_path, monkeypatch
):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "evaluate_answers", killed)
        run_experiment(finished_run.config, tmp_path)
    row = run_experiment(finished_run.config, tmp_path)
    assert len(row.test_evaluations) == 2
    assert (row.test, row.videos) == (finished_run.row.test, finished_run.row.videos)
    again = evaluated_checkpoint(finished_run.config, tmp_path)
    assert again.read_bytes() == finished_run.checkpoint.read_bytes()


def test_a_checkpoint_is_not_tested_on_another_split_or_order(finished_run):
    data, other = (load_dataset("folder", finished_run.config.data_dir, n) for n in (1, 2))
    check_split(finished_run.checkpoint, data)
    with pytest.raises(ValueError, match="was trained on split 1 .*test it on the lists it was"):
        check_split(
            finished_run.checkpoint, load_dataset("folder", finished_run.config.data_dir, 2)
        )
    with pytest.raises(ValueError, match=r"trained on classes \['left', 'right'\], not \['right'"):
        check_split(finished_run.checkpoint, replace(data, classes=("right", "left")))
