"""Runs that start from other weights, smoke tests, curves, and evaluation on other clips."""

import logging
import shutil
import sys
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hstlib.commands.models import curves, evaluate
from hstlib.config import TrainConfig
from hstlib.data.datasets import load_dataset
from hstlib.data.samples import Sample, VideoSet
from hstlib.model.registry import MODELS, build_model
from hstlib.training import experiment
from hstlib.training.checkpoint import read_checkpoint, save_checkpoint
from hstlib.training.experiment import evaluated_checkpoint, run_experiment
from hstlib.training.identity import RunIdentity
from hstlib.training.limit import limit_videos
from hstlib.training.rows import RECORD, ROW, load_row
from hstlib.training.start import start_from

IDENTITY = RunIdentity(
    class_names=("a", "b", "c"), split_id="aa", train_contents="11", test_contents="22"
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("classes", [("a", "b", "c"), ("b", "a", "c"), ("a", "b", "c", "d")])
def test_all_but_the_last_layer_is_taken_and_that_for_the_same_classes_only(
    model, classes, tmp_path
):
    config = TrainConfig(model=model, backbone="demo")
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, build_model(model, 3, "demo"), config, IDENTITY)
    checkpoint, built = read_checkpoint(path), build_model(model, len(classes), "demo")
    before = {name: value.clone() for name, value in built.state_dict().items()}
    transfer = start_from(built, checkpoint, classes)
    after = built.state_dict()
    for name in transfer.taken:
        assert torch.equal(after[name], checkpoint.tensors[name])
    for name in transfer.made_anew:
        assert torch.equal(after[name], before[name]) and len(after[name]) == len(classes)
    assert set(transfer.made_anew) == set(transfer.not_used) and not (
        set(transfer.taken) & set(transfer.made_anew)
    )
    assert set(transfer.taken) | set(transfer.made_anew) == set(after)
    heads = 2 if model == "r3d-flow" else 1
    assert len(transfer.made_anew) == (0 if classes == ("a", "b", "c") else 2 * heads)


@pytest.fixture
def start(finished_run, in_its_data_root) -> TrainConfig:
    """Settings of a run that starts from the finished one."""
    return finished_run.config.model_copy(update={"from_": str(finished_run.checkpoint)})


def test_the_ancestor_is_sealed_in_record_row_and_checkpoint(start, finished_run, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hstlib"):
        row = run_experiment(start, tmp_path)
    assert row.run_id == f"{finished_run.row.run_id}-finetuned"
    assert (row.ancestor.sha256, row.ancestor.run_id) == (
        finished_run.row.weights,
        finished_run.row.run_id,
    )
    folder, checkpoint = tmp_path / row.run_id, evaluated_checkpoint(start, tmp_path)
    assert row.ancestor.sha256 in (folder / RECORD).read_text()
    assert load_row(folder / ROW).ancestor == read_checkpoint(checkpoint).data.ancestor
    assert "tensors made anew: none" in caplog.text
    assert finished_run.row.ancestor is None
    assert row.epochs[0]["loss"] < finished_run.row.epochs[0]["loss"]


def test_other_first_weights_are_another_run_and_their_place_is_none(
    start, finished_run, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "evaluate_answers", killed)
        run_experiment(start, tmp_path)  # trained, not tested: its state is there
    other_run = finished_run.config.model_copy(update={"seed": 5})
    run_experiment(other_run, tmp_path)
    other = start.model_copy(update={"from_": str(evaluated_checkpoint(other_run, tmp_path))})
    weights = finished_run.row.weights[:16]
    message = rf"another run \(start from weights {weights} of \S+ instead of weights \w{{16}} of"
    with pytest.raises(ValueError, match=message):
        run_experiment(other, tmp_path)
    moved = tmp_path / "moved.safetensors"
    shutil.copy(finished_run.checkpoint, moved)
    row = run_experiment(start.model_copy(update={"from_": str(moved)}), tmp_path)
    assert len(row.test_evaluations) == 2
    with pytest.raises(ValueError, match=message):
        run_experiment(other, tmp_path)
    run_experiment(start, tmp_path / "straight")
    found, expected = (
        load_file(evaluated_checkpoint(start, place)) for place in (tmp_path, tmp_path / "straight")
    )
    assert all(torch.equal(found[name], expected[name]) for name in found | expected)


def test_weights_that_do_not_fit_are_named_before_anything_is_written(start, tmp_path):
    config = start.model_copy(update={"model": "c3d"})
    message = r"last\.safetensors does not fit this run \(model 'r3d' instead of 'c3d'\); set the"
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "results")
    with pytest.raises(ValueError, match=r"none\.safetensors: no such checkpoint"):
        run_experiment(start.model_copy(update={"from_": "none.safetensors"}), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_one_class_alone_is_refused_with_the_remedy(tmp_path):
    for number in range(3):
        path = tmp_path / "alone" / "wave" / f"seq{number}_0.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = TrainConfig(dataset="folder", data_dir=str(tmp_path / "alone"), device="cpu")
    with pytest.raises(ValueError, match="alone has the class 'wave' alone.*add clips of another"):
        run_experiment(config, tmp_path / "results")


def test_a_limit_takes_every_class_and_source_in_turn():
    samples = tuple(
        Sample(Path(f"{label}{group}{clip}.avi"), label, f"{label}{group}")
        for label in range(2) for group in "ab" for clip in range(3)
    )  # fmt: skip
    data = VideoSet("x", ("p", "q"), samples, samples[:1], unused=samples)
    limited = limit_videos(data, 4)
    assert [sample.path.stem for sample in limited.train] == ["0a0", "1a0", "0b0", "1b0"]
    assert limited.test == samples[:1] and limited.unused == ()
    assert limit_videos(data, 99).train != () and limited.split_id != data.split_id


def test_a_limited_run_says_so_and_leaves_the_whole_run_alone(
    finished_run, in_its_data_root, tmp_path
):
    shutil.copytree(finished_run.results, tmp_path, dirs_exist_ok=True)
    config = finished_run.config.model_copy(update={"limit": 4, "class_weights": True})
    row = run_experiment(config, tmp_path)
    assert row.run_id == f"{finished_run.row.run_id}-limit4" and row.config.limit == 4
    assert (row.train_videos, row.test["videos"]) == (4, 4)
    assert run_experiment(finished_run.config, tmp_path) == finished_run.row


def test_curves_are_a_table_and_a_picture_while_a_run_is_training(finished_run, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished_run.results / finished_run.row.run_id / "epochs.jsonl", run)
    curves(run)
    assert capsys.readouterr().out.split() == [f"{run}/curves.csv", f"{run}/curves.png"]
    table = pd.read_csv(run / "curves.csv")
    assert table["epoch"].tolist() == [1]
    assert table["loss"].tolist() == [finished_run.row.epochs[0]["loss"]]
    assert cv2.imread(str(run / "curves.png")).std() > 0
    (run / "epochs.jsonl").unlink()
    with pytest.raises(ValueError, match=r"epochs\.jsonl: no epochs; name the folder of a run"):
        curves(run)


def test_tensorboard_that_is_missing_is_named(finished_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = finished_run.results / finished_run.row.run_id
    with pytest.raises(ValueError, match=r"not installed; run `pip install tensorboard`"):
        curves(run, tmp_path)


def test_tensorboard_gets_every_epoch(finished_run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Path(shutil.copytree(finished_run.results / finished_run.row.run_id, tmp_path / "run"))
    for _ in range(2):
        curves(run, tmp_path / "events")
    events = accumulator.EventAccumulator(str(tmp_path / "events" / "run")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, pytest.approx(finished_run.row.epochs[0]["loss"]))
    ]


def renamed(class_folders: Path, root: Path, names: dict[str, str]) -> Path:
    """Copy class folders under other names, and the videos under other names too."""
    for old, new in names.items():
        for path in sorted((class_folders / old).iterdir()):
            (root / new).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / new / f"clip {path.name}")
    return root


def test_clips_of_another_folder_are_matched_by_class_and_by_content(
    finished_run, in_its_data_root, class_folders, tmp_path, capsys, video_file, moving
):
    root = renamed(class_folders, tmp_path / "mine", {"left": "LEFT", "right": "up"})
    video_file(root / "LEFT" / "new.avi", moving(seed=77))
    evaluate(finished_run.checkpoint, str(root))
    lines = capsys.readouterr().out.splitlines()
    trained = [
        s.path.name
        for s in load_dataset("folder", class_folders).train
        if s.path.parent.name == "left"
    ]
    assert lines[:3] == [
        "mine: 7 clips of 1 of the model's 2 classes",
        "left out, classes that the model does not have: up (6)",
        "classes of the model without clips: right",
    ]
    warning = f"warning: the model was trained on {len(trained)} of these clips: clip {trained[0]}"
    assert lines[3].startswith(warning) and len(trained) == 4
    assert any(line.startswith("without clips it was trained on: top1 ") for line in lines)
    assert lines[-1].startswith("  left: ") and " of 7, " in lines[-1]


def test_its_own_videos_elsewhere_are_its_own_test_set(
    finished_run, in_its_data_root, class_folders, tmp_path, capsys
):
    elsewhere = shutil.copytree(class_folders, tmp_path / "elsewhere")
    evaluate(finished_run.checkpoint, str(elsewhere))
    expected = [f"{name} {value:.4g}" for name, value in finished_run.row.test.items()]
    assert capsys.readouterr().out.splitlines()[: len(expected)] == expected


def test_a_folder_without_any_class_of_the_model_is_refused(
    finished_run, in_its_data_root, class_folders, tmp_path
):
    root = renamed(class_folders, tmp_path / "mine", {"left": "up", "right": "down"})
    with pytest.raises(ValueError, match="the model has none of its classes down, up; those of"):
        evaluate(finished_run.checkpoint, str(root))


def test_a_fine_tuned_checkpoint_knows_the_clips_of_its_ancestor(
    start, finished_run, class_folders, tmp_path
):
    root = tmp_path / "other"
    for number, path in enumerate(sorted(class_folders.rglob("*.avi"))):
        changed = root / path.parent.name / f"seq{number // 2:02d}_{number}.avi"
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_bytes(path.read_bytes() + b"0")
    config = start.model_copy(update={"data_dir": str(root)})
    run_experiment(config, tmp_path)
    known = read_checkpoint(evaluated_checkpoint(config, tmp_path)).trained_on
    inherited = read_checkpoint(finished_run.checkpoint).trained_on
    assert inherited < known and len(inherited) == 8 and len(known) == 16
