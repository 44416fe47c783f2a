"""A setting has one name, on the command line, in a plan, in a papermill file and in a row."""

import json
import sys
from pathlib import Path

import pytest

from hstlib.__main__ import main
from hstlib.book.parameters import check_parameters
from hstlib.config import TrainConfig
from hstlib.training.plan import planned_runs
from hstlib.training.rows import load_row, write_row

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "07_train.ipynb"
VALUES = {
    "dataset": "ucf101", "data_dir": "/videos/clips", "split": 2, "protocol": "random-by-video",
    "model": "r3d", "backbone": "vgg13", "reading": "trunk-alone",
    "activation_checkpointing": True, "channels_last": False,
    "epochs": 3, "batch_size": 8, "learning_rate": 0.25, "schedule": "cosine", "warmup_epochs": 2,
    "max_grad_norm": 1.5, "label_smoothing": 0.1, "ema_decay": 0.9, "accumulation_steps": 2,
    "precision": "bf16", "compile": True, "deterministic": False, "seed": 7, "num_workers": 3,
    "device": "cpu",
    "num_frames": 8, "fps": 12.5, "size": 96, "fit": "letterbox", "sampling": "uniform",
    "flow": "farneback", "clips_per_video": 4,
    "crop_size": 48, "flip": True, "colour_jitter": 0.2,
    "validation": True, "num_crops": 3, "variant": "rate0.25", "limit": 5, "class_weights": True,
    "patience": 4, "from_": "/weights/last.safetensors",
}  # fmt: skip
"""Another value than the default for each setting."""


def test_every_setting_is_tried_with_another_value_than_its_default():
    assert VALUES.keys() == TrainConfig.model_fields.keys()
    default = TrainConfig()
    assert not [name for name, value in VALUES.items() if getattr(default, name) == value]


class Stop(Exception):
    pass


NEEDS = {"patience": {"validation": True}}
"""What a setting needs beside it."""


def settings_with(name: str) -> dict[str, object]:
    return {name: VALUES[name]} | NEEDS.get(name, {})


def options(name: str, value: object) -> list[str]:
    option = name.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def plan_with(name: str, value: object) -> dict:
    plan = {"build": "build/x", "seeds": [0], "splits": [1], "train": {}}
    plan |= {"corpora": [{"dataset": "hmdb51"}], "models": {"hst": {}}}
    if name in ("seed", "split"):
        plan[f"{name}s"] = [value]
    elif name == "model":
        plan["models"] = {value: {}}
    elif name == "dataset":
        plan["corpora"] = [{"dataset": value}]
    else:
        plan["train"] = {name: value}
    return plan


@pytest.mark.parametrize(("name", "value"), VALUES.items(), ids=VALUES)
def test_the_command_line_has_every_setting(name, value, monkeypatch):
    configs = []

    def run_experiment(config, results):
        configs.append(config)
        raise Stop

    words = [word for pair in settings_with(name).items() for word in options(*pair)]
    monkeypatch.setattr("hstlib.training.experiment.run_experiment", run_experiment)
    monkeypatch.setattr(sys, "argv", ["hstlib", "train", *words])
    with pytest.raises(Stop):
        main()
    assert configs == [TrainConfig(**settings_with(name))] and getattr(configs[0], name) == value


@pytest.mark.parametrize(("name", "value"), VALUES.items(), ids=VALUES)
def test_a_plan_has_every_setting(name, value):
    plan = plan_with(name, value)
    plan["train"] |= NEEDS.get(name, {})
    (config,) = planned_runs(plan).values()
    assert config == TrainConfig(**settings_with(name)) and getattr(config, name) == value


def parameters_cell() -> str:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"])
    raise ValueError(f"{NOTEBOOK} has no parameters")


def test_the_training_notebook_has_every_setting_and_its_defaults_are_settings():
    parameters: dict[str, object] = {}
    exec(parameters_cell(), parameters)
    del parameters["__builtins__"]
    assert parameters.keys() == VALUES.keys() | {"num_processes", "results_dir"}
    settings = {name: value for name, value in parameters.items() if name in VALUES}
    assert TrainConfig.from_flat(settings).model_dump() == settings


def test_a_row_has_every_setting(finished_run, tmp_path):
    for name, value in VALUES.items():
        config = TrainConfig(**settings_with(name))
        row = finished_run.row.model_copy(update={"config": config})
        path = write_row(row, tmp_path / name)
        assert json.loads(path.read_text())["config"][name] == value
        assert load_row(path).config == config


def test_a_typing_error_is_named_everywhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hstlib", "train", "--epoch", "3"])
    with pytest.raises(SystemExit):
        main()
    assert "'epoch'; did you mean 'epochs'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'epoch'; did you mean 'epochs'?"):
        planned_runs(plan_with("epoch", 3))
    with pytest.raises(ValueError, match="'epoch'; did you mean 'epochs'?"):
        check_parameters(["", parameters_cell(), "# Parameters\nepoch = 3\n"])
