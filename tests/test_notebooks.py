"""Structure of the notebooks, and the training notebook on real video through papermill."""

import ast
import json
import os
from pathlib import Path

import papermill
import pytest

from hstlib.checkpoint import load_checkpoint
from hstlib.evaluate import predict_video
from hstlib.plots import Prediction, prediction_figure
from hstlib.results import load_rows
from hstlib.store import cut_clips

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
    assert str(Path.home()) not in path.read_text()
    assert path.stat().st_size < 1_000_000


def test_every_notebook_is_in_the_book():
    toc = (ROOT / "_toc.yml").read_text()
    assert [path.stem for path in NOTEBOOKS if f"notebooks/{path.stem}\n" not in toc] == []


def test_training_notebook_trains_in_several_processes(class_folders, tmp_path):
    papermill.execute_notebook(
        ROOT / "notebooks/06_train.ipynb",
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
            ROOT / "notebooks/06_train.ipynb",
            folder / "out.ipynb",
            parameters={
                "dataset": "folder",
                "data_dir": str(clips / "ut_interaction/videos"),
                "size": 32,
                "fit": "letterbox",
                "sampling": "uniform",
                "num_windows": 1,
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
            scores = predict_video(model, path, config)
            assert scores.sum() == pytest.approx(1, abs=1e-5)
            (frames,) = cut_clips(path, config.clip.model_copy(update={"size": 112})).frames
            assert frames.shape == (16, 112, 112, 3)
            predictions.append(Prediction(frames, classes[scores.argmax()], scores.max()))
        figure = prediction_figure(predictions)
        labels = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert len(labels) == 4 * len(videos) > 0
        assert all(label.split()[0] in classes for label in labels)
        figure.savefig(real_run / f"{data_set.partition('/')[0]}.png")
