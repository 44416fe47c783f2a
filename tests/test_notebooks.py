"""Structure and parameters of the notebooks, and the training notebook through papermill."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from hstlib.book.plots import Prediction, prediction_figure
from hstlib.config import TrainConfig
from hstlib.data.clips import cut_clips
from hstlib.inference.predictor import Predictor
from hstlib.training.checkpoint import load_checkpoint
from hstlib.training.rows import load_rows

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_structure(path):
    notebook = read(path)
    cells = code_cells(notebook)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "parameters" in tags(cells[0])
    assert sum("parameters" in tags(cell) for cell in cells) == 1
    assert len(notebook["cells"]) <= 60
    assert sum("nbval-ignore-output" in tags(cell) for cell in cells) <= 2
    for statement in ast.parse("".join(cells[0]["source"])).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_clean(path):
    cells = code_cells(read(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not [folder for folder in (Path.home(), ROOT) if str(folder) in path.read_text()]
    assert path.stat().st_size < 1_000_000


def test_every_notebook_is_in_the_book():
    toc = (ROOT / "_toc.yml").read_text()
    assert [path.stem for path in NOTEBOOKS if f"notebooks/{path.stem}\n" not in toc] == []


def test_ids_of_cells_are_unique_in_the_book():
    ids = [cell["id"] for path in NOTEBOOKS for cell in read(path)["cells"]]
    assert len(set(ids)) == len(ids)


def parameters_of(path: Path) -> dict[str, Any]:
    """The parameters of a notebook and their defaults."""
    statements = ast.parse("".join(code_cells(read(path))[0]["source"])).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def run_first_cells(path: Path, **parameters: Any) -> dict[str, Any]:
    """Run what comes before the first section, with parameters set by papermill.

    The cells run here, without a kernel, which takes seconds to start.
    """
    notebook = parameterize_notebook(load_notebook_node(str(path)), parameters)
    defaults, injected, setup = [c.source for c in notebook.cells if c.cell_type == "code"][:3]
    namespace: dict[str, Any] = {"In": ["", defaults, injected, setup]}
    for source in namespace["In"]:
        exec(source, namespace)
    return namespace


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_misspelt_parameter_is_refused(path):
    name, default = next(iter(parameters_of(path).items()))
    misspelt = f"{name}x"
    with pytest.raises(ValueError, match=f"no parameter '{misspelt}'; did you mean '{name}'"):
        run_first_cells(path, **{misspelt: default})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_value_of_the_wrong_type_is_refused(path):
    name = next(iter(parameters_of(path)))
    with pytest.raises(ValueError, match=rf"\b{name}\b is {{'no': 'such value'}}"):
        run_first_cells(path, **{name: {"no": "such value"}})


@pytest.mark.parametrize(
    ("stem", "parameters", "message"),
    [
        ("07_train", {"model": "i3d"}, "model is 'i3d'.*'hst', 'c3d', 'r2plus1d'"),
        ("07_train", {"size": 50}, "H and W divisible by 8"),
        ("07_train", {"reading": "papr"}, "'papr'"),
        ("07_train", {"num_processes": 0}, "num_processes is 0.*greater than or equal to 1"),
        ("08_splits", {"film_shown": 21}, "film_shown is 21.*less than or equal to 20"),
        ("08_splits", {"class_shown": "jump"}, "class_shown is 'jump'.*'slide_right'"),
        ("09_results", {"results_dir": "result/typo"}, f"no folder {ROOT / 'result/typo'}"),
        ("10_figures", {"checkpoints": ["no.safetensors"]}, f"{ROOT / 'no.safetensors'}: no such"),
        ("10_figures", {"checkpoints": ["a", "b", "c"]}, "checkpoints is .*at most 2 items"),
        ("10_figures", {"checkpoints": "['a']"}, "papermill's -p passes a string"),
        ("11_real_video", {"results_dir": "results/published"}, "has no run on J-HMDB"),
        ("12_data_engine", {"num_videos": 561}, "num_videos is 561.*less than or equal to 560"),
        ("13_flow", {"size": 100}, "size is 100.*multiple of 16"),
        ("13_flow", {"margin": 50}, "margin is 50; with size 112, use 1 to 48"),
        ("14_speed", {"measurements_dir": "bench"}, f"no folder {ROOT / 'bench'}"),
    ],
)
def test_value_outside_the_range_is_refused(stem, parameters, message):
    with pytest.raises(ValueError, match=message):
        run_first_cells(ROOT / f"notebooks/{stem}.ipynb", **parameters)


@pytest.mark.parametrize("folder", ["results/published", str(ROOT / "results/published")])
def test_paths_mean_the_same_from_any_working_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = run_first_cells(ROOT / "notebooks/09_results.ipynb", results_dir=folder)["rows"]
    assert rows == load_rows(ROOT / "results/published") != []


def test_training_notebook_has_every_setting_under_its_name():
    names = parameters_of(ROOT / "notebooks/07_train.ipynb").keys()
    assert names == TrainConfig.model_fields.keys() | {"num_processes", "results_dir"}


def test_papermill_stops_at_a_misspelt_setting(tmp_path):
    with pytest.raises(PapermillExecutionError, match="no parameter 'epoch'") as error:
        papermill.execute_notebook(
            ROOT / "notebooks/07_train.ipynb",
            tmp_path / "out.ipynb",
            parameters={"epoch": 3},
            kernel_name="python3",
            progress_bar=False,
            cwd=ROOT,
        )
    assert error.value.exec_count == 3  # parameters, papermill's own cell, then the second


def test_training_notebook_trains_in_several_processes(class_folders, tmp_path):
    papermill.execute_notebook(
        ROOT / "notebooks/07_train.ipynb",
        tmp_path / "out.ipynb",
        parameters={
            "dataset": "folder",
            "data_dir": str(class_folders),
            "model": "r3d",
            "size": 16,
            "batch_size": 4,
            "num_processes": 2,
            "device": "cpu",
            "results_dir": str(tmp_path / "results"),
        },
        kernel_name="python3",
        progress_bar=False,
        cwd=ROOT,
    )
    (row,) = load_rows(tmp_path / "results")
    outputs = "".join(str(cell["outputs"]) for cell in code_cells(read(tmp_path / "out.ipynb")))
    assert "Launching training on 2" in outputs
    assert len(row.epochs) == 1 and (row.train_videos, row.test["videos"]) == (8, 4)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """Train on real video, as a user would: papermill, a folder of class folders."""
    clips = real_clips_folder()
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HST_DATA", str(folder / "data"))
        papermill.execute_notebook(
            ROOT / "notebooks/07_train.ipynb",
            folder / "out.ipynb",
            parameters={
                "dataset": "folder",
                "data_dir": str(clips / "ut_interaction/videos"),
                "size": 32,
                "fit": "letterbox",
                "sampling": "uniform",
                "clips_per_video": 1,
                "batch_size": 9,
                "epochs": 2,
                "results_dir": str(folder / "results"),
            },
            kernel_name="python3",
            progress_bar=False,
            cwd=ROOT,
        )
    return folder


def real_clips_folder() -> Path:
    folder = Path(os.environ.get("HST_REAL_CLIPS", ROOT.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}")
    return folder


def test_training_notebook_trains_on_real_video(real_run):
    (row,) = load_rows(real_run / "results")
    assert row.classes == 6
    assert row.train_videos + row.test["videos"] == 60
    assert row.problems == row.missing == row.test["unreadable"] == 0
    assert row.epochs[-1]["loss"] < row.epochs[0]["loss"]


def test_figure_of_real_clips_by_a_trained_model(real_run):
    (checkpoint,) = (real_run / "results").glob("*/last.safetensors")
    model, config, classes = load_checkpoint(checkpoint)
    clips = real_clips_folder()
    for data_set in ("hmdb51/hmdb51_org", "ucf101/UCF-101"):
        videos = sorted((clips / data_set).rglob("*.avi"))
        predictions = []
        for path in videos:
            prediction = Predictor(model, config, classes)(path, top=len(classes))
            assert sum(p for _, p in prediction.top) == pytest.approx(1, abs=1e-5)
            (frames,) = cut_clips(path, config.clip.model_copy(update={"size": 112})).frames
            assert frames.shape == (16, 112, 112, 3)
            predictions.append(Prediction(frames, *prediction.best))
        figure = prediction_figure(predictions)
        labels = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert len(labels) == 4 * len(videos) > 0
        assert all(label.split()[0] in classes for label in labels)
        figure.savefig(real_run / f"{data_set.partition('/')[0]}.png")
