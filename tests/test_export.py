import json
import logging
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession

import hstlib
from hstlib.__main__ import main
from hstlib.config import TrainConfig
from hstlib.data.clips import normalise
from hstlib.inference.export import export_onnx
from hstlib.model.registry import build_model
from hstlib.training.checkpoint import load_checkpoint

SIZE = 48
CLASSES = ["clap", "wave", "прыжок"]


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
def exported(request, tmp_path_factory) -> SimpleNamespace:
    """A model, the settings it is written with, and the ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    config = TrainConfig(
        model=request.param, backbone="demo", size=64, fit="letterbox", crop_size=SIZE
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config.model, len(CLASSES), config.backbone)
        run_torch(model, batch(4))  # sets the running statistics
    export_onnx(path, model, config, CLASSES)
    return SimpleNamespace(path=path, model=model, config=config)


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
    numbers = json.loads(metadata["normalisation"])
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
    assert (out, err) == (f"{tmp_path / 'run-s1.onnx'}\n", "")
    assert not caplog.records and not logging.root.manager.disable
    model, _, classes = load_checkpoint(checkpoint)
    session = InferenceSession(tmp_path / "run-s1.onnx")
    inputs = {name: values[..., :16, :16] for name, values in batch(2).items()}
    np.testing.assert_allclose(session.run(None, inputs)[0], run_torch(model, inputs), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == classes


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setattr("hstlib.inference.export.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'hstlib\[export\]'"):
        export_onnx(tmp_path / "a.onnx", build_model("r3d", 2, "demo"), TrainConfig(), ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused_so_that_no_checkpoint_is_replaced(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(ValueError, match=r"run\.safetensors: suffix '\.safetensors' is not \.onnx"):
        export_onnx(path, build_model("r3d", 2, "demo"), TrainConfig(), ["a", "b"])
