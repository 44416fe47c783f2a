import json
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

import hstlib
from hstlib.config import TrainConfig
from hstlib.data.augment import evaluation_views
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.container import VideoError
from hstlib.inference.predictor import Predictor
from hstlib.model.registry import build_model
from hstlib.training.experiment import open_dataset
from hstlib.training.sealed import NotFiniteError

CLASSES = ["clap", "wave", "прыжок"]
CONFIG = TrainConfig(
    model="hst", backbone="demo", size=48, crop_size=32, num_crops=3, clips_per_video=2
)


class Spy(torch.nn.Module):
    """The model, and the sizes of the batches that it was given."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.batches = model, []

    def forward(self, clips, flow):
        self.batches.append(len(clips))
        return self.model(clips, flow)


@pytest.fixture
def predictor() -> Predictor:
    model = build_model("hst", len(CLASSES), "demo")
    model(torch.randn(4, 3, 16, 32, 32), torch.randn(4, 2, 16, 32, 32))  # running statistics
    return Predictor(Spy(model.train()), CONFIG, CLASSES)


@pytest.fixture
def folder(tmp_path, video_file, moving):
    """Four videos below a folder, two of which cannot be used, and a file that is no video."""
    for number in (1, 3):
        video_file(tmp_path / "clips" / "deep" / f"{number}.avi", moving(seed=number))
    (tmp_path / "clips" / "0.avi").touch()
    whole = (tmp_path / "clips" / "deep" / "1.avi").read_bytes()
    (tmp_path / "clips" / "deep" / "2.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "clips" / "notes.txt").write_text("notes")
    return tmp_path / "clips"


def probabilities_step_by_step(predictor: Predictor, path) -> np.ndarray:
    frames, flow, *_ = cut_clips(path, CONFIG.clip)
    views = evaluation_views(frames, flow, CONFIG.crop_size, CONFIG.num_crops)
    scores = []
    for one_frames, one_flow in zip(
        *map(torch.from_numpy, map(np.ascontiguousarray, views)), strict=True
    ):
        with torch.inference_mode():
            logits = predictor.model.model(normalise(one_frames)[None], one_flow[None].float())
        scores.append(logits.softmax(-1)[0].numpy())
    return np.mean(scores, axis=0)


def test_a_video_gets_the_mean_over_its_clips_and_crops(predictor, folder):
    video = folder / "deep" / "1.avi"
    prediction = predictor(str(video), top=3)
    expected = probabilities_step_by_step(predictor, video)
    assert [guess.label for guess in prediction.top] == [CLASSES[i] for i in np.argsort(-expected)]
    for guess in prediction.top:
        assert guess.probability == pytest.approx(expected[CLASSES.index(guess.label)], abs=1e-6)
    assert prediction.video == video and prediction.error is None
    assert prediction.best == prediction.top[0]
    assert len(predictor(video, top=2).top) == 2
    with pytest.raises(FrozenInstanceError):
        prediction.top = ()


def test_a_damaged_file_in_a_folder_does_not_lose_the_others(predictor, folder):
    predictions = list(predictor.each(folder))
    names = [str(prediction.video.relative_to(folder)) for prediction in predictions]
    assert names == ["0.avi", "deep/1.avi", "deep/2.avi", "deep/3.avi"]
    kinds = [prediction.error and prediction.error.kind for prediction in predictions]
    assert kinds == ["not a video", None, "cut off", None]
    assert predictor.model.batches == [12]  # two videos, two clips, three crops: one batch
    for prediction in predictions:
        if prediction.error:
            assert prediction.top == ()
            with pytest.raises(VideoError):
                predictor(prediction.video)
            with pytest.raises(VideoError):
                _ = prediction.best
        else:
            alone = predictor(prediction.video)
            assert [guess.label for guess in alone.top] == [g.label for g in prediction.top]
            ours, theirs = ([g.probability for g in p.top] for p in (alone, prediction))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_files_and_folders_in_any_order_are_scored_in_full_batches(predictor, folder):
    good = folder / "deep" / "3.avi"
    predictions = list(predictor.each([good, folder, *[good] * 6]))
    assert [p.video for p in predictions if not p.error].count(good) == 8
    assert sum(predictor.model.batches) == 9 * 6 and max(predictor.model.batches) == 16


def test_a_folder_is_classified_while_it_is_read(predictor, folder):
    good = folder / "deep" / "3.avi"
    predictions = predictor.each([good] * 8 + [folder / "0.avi"] * 1000)
    assert next(predictions).video == good
    assert sum(predictor.model.batches) == 8 * 6


def test_a_folder_without_videos_is_refused(predictor, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no videos; their names end in .*\.mp4"):
        list(predictor.each(tmp_path / "empty"))


def test_a_model_that_has_diverged_is_named_with_the_video(predictor, folder):
    with torch.no_grad():
        predictor.model.model.head[-1].bias[0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"scores of .*1\.avi are not finite"):
        predictor(folder / "deep" / "1.avi")


def test_load_gives_the_model_its_classes_and_its_preprocessing(finished_run, class_folders):
    predictor = hstlib.load(finished_run.checkpoint)
    assert predictor.classes == ("left", "right")
    assert predictor.config == finished_run.config
    video = next(class_folders.rglob("*.avi"))
    assert hstlib.load(str(finished_run.checkpoint), device="cpu")(video) == predictor(video)


def test_files_get_the_answers_that_the_run_recorded_from_its_store(finished_run):
    files = [sample.path for sample in open_dataset(finished_run.config).test]
    best = [prediction.best for prediction in hstlib.load(finished_run.checkpoint).each(files)]
    predicted = [finished_run.row.class_names[p] for _, p, _ in finished_run.row.videos]
    assert [guess.label for guess in best] == predicted
    confidences = finished_run.row.confidences
    assert [guess.probability for guess in best] == pytest.approx(confidences, rel=1e-5)


@pytest.mark.parametrize("device", ["gpu", "cuda:1"])
def test_a_device_that_does_not_exist_is_refused(finished_run, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
        hstlib.load(finished_run.checkpoint, device)


def test_importing_the_package_loads_no_large_library():
    code = "import hstlib, sys; sys.exit(bool({'torch', 'cv2', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_prints_a_json_object_per_video(cli, finished_run, folder, capsys):
    with pytest.raises(SystemExit, match="2 of 4 files cannot be used"):
        cli("predict", folder, "--checkpoint", finished_run.checkpoint, "--json", "--top", 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["video"] for line in lines] == [str(p) for p in sorted(folder.rglob("*.avi"))]
    assert [line.get("error") for line in lines] == ["not a video", None, "cut off", None]
    assert lines[0]["reason"] == "empty, 0 bytes; fetch the file again"
    ((label, probability),) = lines[1]["top"]
    best = hstlib.load(finished_run.checkpoint)(lines[1]["video"]).best
    assert (label, probability) == (best.label, pytest.approx(best.probability, abs=1e-6))


def test_an_address_is_for_the_other_command(cli, finished_run):
    with pytest.raises(SystemExit, match="is an address; use `python -m hstlib stream`"):
        cli("predict", "rtsp://127.0.0.1/live", "--checkpoint", finished_run.checkpoint)


@pytest.mark.parametrize("top", [0, -1])
def test_no_class_at_all_cannot_be_asked_for(predictor, folder, top):
    with pytest.raises(ValueError, match=f"top is {top}; use 1 or more"):
        predictor(folder / "deep" / "1.avi", top=top)
