import pytest
from pydantic import ValidationError

from hstlib.config import ClipConfig, TrainConfig, data_root, project_root


def test_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.batch_size, config.epochs, config.model) == (64, 100, "hst")
    assert (config.clip.num_frames, config.clip.fps, config.clip.size) == (16, 16, 224)


@pytest.mark.parametrize(
    ("model", "rate"), [("hst", 1e-2), ("r2plus1d", 1e-3), ("r3d", 1e-3), ("c3d", 1e-4)]
)
def test_rate_is_the_papers_unless_another_is_given(model, rate):
    assert TrainConfig(model=model).rate == rate
    assert TrainConfig(model=model, learning_rate=0.5).rate == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"modle": "hst"},
        {"model": "i3d"},
        {"split": 0},
        {"split": 4},
        {"epochs": 0},
        {"learning_rate": 0},
        {"clip": {"num_frames": 15}},
        {"clip": {"sizes": 112}},
        {"model": "c3d", "loop": {"recompute": True}},
    ],
    ids=str,
)
def test_wrong_names_and_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrainConfig(**wrong)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        ClipConfig().size = 112


def test_settings_survive_json():
    config = TrainConfig(model="c3d", clip={"size": 112, "fit": "letterbox"})
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


def test_project_root_outside_a_checkout_is_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path
