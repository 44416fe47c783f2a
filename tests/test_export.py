import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession

import hstlib
from hstlib.__main__ import main
from hstlib.config import TrainConfig
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.flow import flow_parameters
from hstlib.inference.export import export_onnx
from hstlib.inference.predictor import Predictor
from hstlib.inference.preprocessing import describe_preprocessing
from hstlib.model.registry import build_model
from hstlib.training.checkpoint import load_checkpoint

SIZE = 48
CLASSES = ["clap", "wave", "прыжок"]
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "onnx_predict.py"
UTF8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}


def batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(size)
    return {
        "clips": rng.standard_normal((size, 3, 16, SIZE, SIZE), np.float32),
        "flow": rng.standard_normal((size, 2, 16, SIZE, SIZE), np.float32),
    }


def run_torch(model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return model(*map(torch.from_numpy, inputs.values())).numpy()


@pytest.fixture(
    scope="module",
    params=[
        "hst",
        "c3d",
        "r3d",
        "r3d-flow",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("r2plus1d", "r3d-standard", "r2plus1d-standard")
        ),
    ],
)
def exported(request, tmp_path_factory, video_file, moving) -> SimpleNamespace:
    """A model, the settings it is written with, and the ONNX file.

    Two clips and three crops per video. HST is scaled until its answer depends on every input.
    """
    folder = tmp_path_factory.mktemp("onnx")
    config = TrainConfig(
        model=request.param, backbone="demo", size=64, crop_size=SIZE, num_crops=3,
        clips_per_video=2,
    )  # fmt: skip
    videos = [video_file(folder / f"{seed}.avi", moving(seed)) for seed in range(4)]
    clips = [cut_clips(video, config.clip) for video in videos]
    frames, flow = (np.concatenate(arrays) for arrays in list(zip(*clips, strict=True))[:2])
    inputs = normalise(torch.from_numpy(frames)), torch.from_numpy(flow).float()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(config.model, len(CLASSES), config.backbone)
        for _ in range(20):
            model(*inputs)  # sets the running statistics
        model.eval()
        if config.model == "hst":
            logits, last = model(*inputs), model.head[-1]
            gain = 3 / logits.std(0)
            last.weight *= gain[:, None]
            last.bias.copy_((last.bias - logits.mean(0)) * gain)
    export_onnx(folder / "model.onnx", model, config, CLASSES)
    return SimpleNamespace(path=folder / "model.onnx", model=model, config=config)


only_hst = pytest.mark.parametrize("exported", ["hst"], indirect=True)


@pytest.mark.parametrize("size", [1, 3])
def test_the_file_gives_the_models_logits_for_any_batch(exported, size):
    inputs = batch(size)
    (logits,) = InferenceSession(exported.path).run(None, inputs)
    assert logits.shape == (size, len(CLASSES))
    np.testing.assert_allclose(logits, run_torch(exported.model, inputs), rtol=0, atol=1e-5)


def test_all_models_have_the_same_inputs_and_output(exported):
    session = InferenceSession(exported.path)
    assert {value.type for value in session.get_inputs()} == {"tensor(float)"}
    assert {value.name: value.shape for value in session.get_inputs()} == {
        "clips": ["batch", 3, 16, SIZE, SIZE],
        "flow": ["batch", 2, 16, SIZE, SIZE],
    }
    (logits,) = session.get_outputs()
    assert (logits.name, logits.shape) == ("logits", ["batch", len(CLASSES)])


def test_the_file_says_whether_the_flow_counts(exported):
    inputs = batch(2)
    session = InferenceSession(exported.path)
    (before,) = session.run(None, inputs)
    (after,) = session.run(None, inputs | {"flow": 0 * inputs["flow"]})
    ignored = onnx.load(exported.path).graph.input[1].doc_string.startswith("Ignored")
    assert np.array_equal(before, after) == ignored


def test_classes_and_settings_can_be_read_back(exported):
    metadata = InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert TrainConfig.model_validate_json(metadata["config"]) == exported.config


def test_frames_can_be_normalised_by_what_the_file_says(exported):
    metadata = InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    numbers = json.loads(metadata["preprocessing"])["normalisation"]
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 8, 8, 3), np.uint8)
    clips = (frames / numbers["divide_by"] - numbers["mean"]) / numbers["std"]
    expected = normalise(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(np.moveaxis(clips, -1, 1), expected, atol=1e-6)


def test_the_file_is_valid_and_names_no_path_of_this_machine(exported):
    onnx.checker.check_model(onnx.load(exported.path), full_check=True)
    content = exported.path.read_bytes()
    for package in (hstlib, torch):
        assert package.__path__[0].encode() not in content


def test_the_verb_writes_beside_the_checkpoint_and_nothing_to_the_terminal_but_the_path(
    finished_run, tmp_path, monkeypatch, capfd, caplog
):
    checkpoint = tmp_path / "run-s1.safetensors"
    checkpoint.write_bytes(finished_run.checkpoint.read_bytes())
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "argv", ["hstlib", "export", str(checkpoint)])
    main()
    out, err = capfd.readouterr()
    files = [tmp_path / "run-s1.onnx", tmp_path / "run-s1.golden.npz"]
    assert (out.splitlines(), err) == ([str(file) for file in files], "")
    assert all(file.is_file() for file in files)
    assert not caplog.records and not logging.root.manager.disable
    model, _, classes = load_checkpoint(checkpoint)
    session = InferenceSession(tmp_path / "run-s1.onnx")
    inputs = {name: values[..., :16, :16] for name, values in batch(2).items()}
    np.testing.assert_allclose(session.run(None, inputs)[0], run_torch(model, inputs), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == classes


def test_the_golden_clip_has_the_models_answer(exported):
    golden = np.load(exported.path.with_suffix(".golden.npz"))
    assert golden["frames"].shape == (6, 16, SIZE, SIZE, 3) and golden["frames"].any()
    assert golden["flow"].dtype == np.float16 and abs(golden["flow"]).max() > 1
    clips = normalise(torch.from_numpy(golden["frames"])).numpy()
    inputs = {"clips": clips, "flow": golden["flow"].astype(np.float32)}
    (logits,) = InferenceSession(exported.path).run(None, inputs)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-5)  # HST's are large
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(scores.mean(0), golden["probabilities"], atol=1e-4)


def test_the_golden_video_is_predicted_as_the_file_says(exported, tmp_path):
    golden = np.load(exported.path.with_suffix(".golden.npz"))
    video = tmp_path / "golden.mkv"
    golden["video"].tofile(video)
    prediction = Predictor(exported.model, exported.config, CLASSES)(video)
    expected = golden["probabilities"]
    assert [guess.label for guess in prediction.top] == [CLASSES[i] for i in np.argsort(-expected)]
    assert prediction.best.probability == pytest.approx(expected.max(), abs=1e-6)


RUN_AND_LIST_MODULES = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit(f"imported: {loaded}" if (loaded := {"torch", "hstlib"} & sys.modules.keys()) else 0)
"""


def run_example(onnx: Path, video: Path, folder: Path) -> dict[str, float]:
    """Run the example in a process of its own that must import neither torch nor hstlib."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, EXAMPLE, onnx, video]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=UTF8)
    assert ran.returncode == 0, ran.stderr
    lines = (line.split("\t") for line in ran.stdout.splitlines())
    return {name: float(probability) for name, probability in lines}


@only_hst
def test_the_example_without_torch_gives_the_predictors_probabilities(
    exported, tmp_path, video_file, moving
):
    video = video_file(tmp_path / "drawn.avi", moving(seed=3, count=40, height=90, width=120))
    found = run_example(exported.path, video, tmp_path)
    prediction = Predictor(exported.model, exported.config, CLASSES)(video)
    assert found == pytest.approx({g.label: g.probability for g in prediction.top}, abs=1e-4)


@only_hst
def test_the_example_agrees_on_a_real_clip(exported, tmp_path, real_clips):
    video = next((real_clips / "kinetics").glob("*.mp4"))
    found = run_example(exported.path, video, tmp_path)
    prediction = Predictor(exported.model, exported.config, CLASSES)(video)
    assert found == pytest.approx({g.label: g.probability for g in prediction.top}, abs=1e-4)


@only_hst
def test_a_guess_at_the_preprocessing_does_not_agree(exported, tmp_path, video_file, moving):
    """The tests above would see another flow preset: probabilities depend on it."""
    video = video_file(tmp_path / "drawn.avi", moving(seed=3, count=40, height=90, width=120))
    other = exported.config.model_copy(update={"flow": "dis-medium"})
    ours, theirs = (
        dict(Predictor(exported.model, config, CLASSES)(video).top)
        for config in (exported.config, other)
    )
    assert max(abs(ours[name] - theirs[name]) for name in CLASSES) > 1e-2


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("sampling", ["consecutive", "uniform"])
@pytest.mark.parametrize("flow", ["dis", "dis-ultrafast", "farneback", "difference"])
def test_the_preprocessing_is_described_for_every_setting(fit, sampling, flow):
    config = TrainConfig(fit=fit, sampling=sampling, flow=flow, size=64, crop_size=48, num_crops=3)
    described = describe_preprocessing(config)
    assert json.loads(json.dumps(described))["crops"] == {
        "size": 48, "top_left": [[8, 0], [8, 8], [8, 16]],
    }  # fmt: skip
    assert described["flow"]["parameters"] == flow_parameters(flow)
    assert "next frame" in described["flow"]["rule"] or sampling == "uniform"
    assert (described["frames"]["rate"], described["clips"]["frames"]) == (16, 16)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setattr("hstlib.inference.export.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'hstlib\[export\]'"):
        export_onnx(tmp_path / "a.onnx", build_model("r3d", 2, "demo"), TrainConfig(), ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused_so_that_no_checkpoint_is_replaced(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(ValueError, match=r"run\.safetensors: suffix '\.safetensors' is not \.onnx"):
        export_onnx(path, build_model("r3d", 2, "demo"), TrainConfig(), ["a", "b"])
