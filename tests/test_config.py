import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from hstlib.config import (
    AugmentConfig,
    ClipConfig,
    TrainConfig,
    data_root,
    project_path,
    project_root,
)
from hstlib.training.rows import parse_settings

CHECKOUT = Path(__file__).resolve().parents[1]


def test_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.batch_size, config.epochs, config.model) == (64, 100, "hst")
    assert (config.num_frames, config.fps, config.size) == (16, 16, 224)


@pytest.mark.parametrize(
    ("model", "rate"), [("hst", 1e-2), ("r2plus1d", 1e-3), ("r3d", 1e-3), ("c3d", 1e-4)]
)
def test_rate_is_the_papers_unless_another_is_given(model, rate):
    assert TrainConfig(model=model).learning_rate == rate
    assert TrainConfig(model=model, learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"modle": "hst"},
        {"model": "i3d"},
        {"split": 0},
        {"split": 4},
        {"epochs": 0},
        {"learning_rate": 0},
        {"num_frames": 15},
        {"sizes": 112},
        {"model": "c3d", "activation_checkpointing": True},
    ],
    ids=str,
)
def test_wrong_names_and_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrainConfig(**wrong)


MODELS = "'hst', 'c3d', 'r2plus1d', 'r3d', 'r3d-standard', 'r2plus1d-standard' or 'r3d-flow'"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"epochs": 0}, "epochs is 0; it must be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs is 'many'; it must be a valid integer"),
        ({"model": "i3d"}, f"model is 'i3d'; it must be {MODELS}"),
        ({"model": ["hst"]}, f"model is ['hst']; it must be {MODELS}"),
        ({"fps": None}, "fps is None; it must be a valid number"),
        ({"crop_size": 64, "size": 48}, "crop_size 64 is larger than size 48"),
        (
            {"model": "c3d", "activation_checkpointing": True},
            "activation_checkpointing works with model 'hst' only, not with 'c3d'",
        ),
        (
            {"split": 9, "flip": "maybe"},
            "split is 9; it must be less than or equal to 3; "
            "flip is 'maybe'; it must be a valid boolean",
        ),
    ],
    ids=str,
)
def test_errors_are_one_line_in_plain_words(wrong, message):
    with pytest.raises(ValueError) as error:
        TrainConfig.from_flat(wrong)
    assert str(error.value) == message


ABSURD = {
    "num_frames": [10**6, -2, 0, True, "1e3", 1.5],
    "size": [10**5, -1, True],
    "crop_size": [10**5, -1],
    "batch_size": [10**7, -4, 1, True, "1e3"],
    "epochs": [10**9, -1, True, "1e3", 2.5],
    "warmup_epochs": [10**9, -1],
    "patience": [10**9, -1],
    "accumulation_steps": [10**7, 0],
    "num_workers": [10**4, -1, True],
    "clips_per_video": [10**6, 0],
    "limit": [10**12, -1],
    "seed": [2**63, -1, True, "x"],
    "split": [True, 0],
    "learning_rate": [1e9, -1, math.nan, math.inf, "nan", "inf", True],
    "fps": [1e9, -1, math.nan, math.inf, True],
    "max_grad_norm": [-1, math.nan, math.inf],
    "label_smoothing": [1, math.nan],
    "ema_decay": [1, math.nan],
    "colour_jitter": [1, -math.inf],
    "variant": ["x" * 65, "a/b", True],
    "data_dir": [True],
    "num_crops": [True],
}


@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_value_is_one_line_at_once(name):
    for value in ABSURD[name]:
        with pytest.raises(ValueError) as error:
            TrainConfig.from_flat({name: value})
        assert str(error.value).startswith(f"{name} is {value!r}; it must "), value
        assert "\n" not in str(error.value) and "Input" not in str(error.value)


def test_the_largest_values_are_allowed():
    TrainConfig(num_frames=512, size=2048, batch_size=65_536, epochs=100_000, num_workers=256)
    TrainConfig(seed=2**63 - 1, learning_rate=1000, fps=1000, clips_per_video=1000)


def test_an_unknown_name_like_no_other_lists_the_known_ones():
    with pytest.raises(ValueError, match="'xyz'; use one of clips_per_video, fit, ") as error:
        ClipConfig.from_flat({"xyz": 1})
    assert all(name in str(error.value) for name in ClipConfig.model_fields)


def test_a_flat_mapping_gives_the_settings_it_names():
    assert TrainConfig.from_flat({}) == TrainConfig()
    text = {"epochs": "3", "learning_rate": "1e-3", "flip": "true", "model": "r3d"}
    expected = TrainConfig(epochs=3, learning_rate=0.001, flip=True, model="r3d")
    assert TrainConfig.from_flat(text) == expected
    assert TrainConfig.from_flat(expected.model_dump()) == expected


def test_every_setting_is_described():
    for name, field in TrainConfig.model_fields.items():
        assert field.description, name


def test_clip_and_augmentation_settings_are_parts_of_the_whole():
    config = TrainConfig(size=64, crop_size=48, flip=True)
    assert config.clip == ClipConfig(size=64)
    assert config.augment == AugmentConfig(crop_size=48, flip=True)


def test_settings_of_an_earlier_version_are_refused_by_file():
    """Earlier versions stored settings in groups."""
    with pytest.raises(
        ValueError, match=r"old/row\.json was written by an earlier version .* train again"
    ):
        parse_settings({"model": "hst", "clip": {"size": 48}}, Path("old/row.json"))
    with pytest.raises(ValueError, match=r"old/row\.json: unknown setting 'epoch'; did you mean"):
        parse_settings({"epoch": 1}, Path("old/row.json"))


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        ClipConfig().size = 112


def test_settings_survive_json():
    config = TrainConfig(model="c3d", size=112, fit="letterbox")
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_run_id_names_data_model_backbone_split_and_seed():
    assert TrainConfig(split=2, seed=7).run_id == "hmdb51-hst-resnet21-s2-seed7"
    folder = TrainConfig(dataset="folder", data_dir="some/where/clips", backbone="demo")
    assert folder.run_id == "clips-hst-demo-s1-seed0"


def test_data_root_is_the_environments_or_the_projects(monkeypatch, tmp_path):
    assert data_root() == tmp_path / "data-root"
    monkeypatch.delenv("HST_DATA")
    (tmp_path / "checkout" / "hstlib").mkdir(parents=True)
    (tmp_path / "checkout" / "hstlib" / "__init__.py").touch()
    (tmp_path / "checkout" / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "checkout" / "notebooks")
    assert project_root() == tmp_path / "checkout"
    assert data_root() == tmp_path / "checkout" / "data"


def test_project_root_outside_a_checkout_is_the_one_of_the_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert project_root() == CHECKOUT


def test_project_root_without_a_checkout_is_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hstlib.config.__file__", str(tmp_path / "site" / "hstlib" / "config.py"))
    assert project_root() == tmp_path


def test_relative_paths_start_at_the_project_root(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for working in (CHECKOUT, CHECKOUT / "notebooks", tmp_path):
        monkeypatch.chdir(working)
        assert project_path("data/clips") == CHECKOUT / "data" / "clips"
        assert project_path("~/clips") == tmp_path / "home" / "clips"
        assert project_path(tmp_path / "clips") == tmp_path / "clips"
