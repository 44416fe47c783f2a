import json
from pathlib import Path

import pytest
import yaml
from example_rows import make_row

from hstlib.training.identity import differing_settings
from hstlib.training.plan import planned_runs
from hstlib.training.rows import load_rows, publish_rows, write_row

ROOT = Path(__file__).resolve().parents[1]


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [make_row(model="c3d"), make_row(model="hst", seed=3, size=112)]
    paths = [write_row(row, tmp_path / "new") for row in rows]
    assert [path.parent.name for path in paths] == [row.run_id for row in rows]
    assert load_rows(tmp_path / "new") == rows


def test_writing_leaves_the_row_only_and_replaces_an_older_one(tmp_path):
    write_row(make_row(0.25), tmp_path)
    path = write_row(make_row(0.5), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert load_rows(tmp_path)[0].test["top1"] == 0.5


def test_an_empty_folder_has_no_rows(tmp_path):
    assert load_rows(tmp_path) == []


def test_a_folder_that_does_not_exist_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path / 'none'}"):
        load_rows(Path("none"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run_id": "a"}'])
def test_a_file_that_is_not_a_row_is_named(tmp_path, text):
    path = write_row(make_row(), tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"row\.json: not a results row"):
        load_rows(tmp_path)


@pytest.mark.parametrize("key", ["accuracy", "environment"])
def test_a_row_with_an_unknown_or_without_a_known_key_is_named(tmp_path, key):
    path = write_row(make_row(), tmp_path)
    content = json.loads(path.read_text())
    if content.pop(key, None) is None:
        content[key] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"(?s){path.name}.*{key}"):
        load_rows(tmp_path)


def test_a_row_with_an_unknown_setting_is_named(tmp_path):
    path = write_row(make_row(), tmp_path)
    content = json.loads(path.read_text())
    content["config"]["epoch"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"row\.json: not a results row: config: epoch: "):
        load_rows(tmp_path)


def test_a_row_with_nested_settings_was_written_by_an_earlier_version(tmp_path):
    path = write_row(make_row(), tmp_path)
    content = json.loads(path.read_text())
    content["config"]["loop"] = {"epochs": content["config"].pop("epochs")}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"row\.json was written by an earlier version of hstlib"):
        load_rows(tmp_path)


def test_published_rows_keep_all_of_the_last_epoch_alone(tmp_path):
    rows = [make_row(videos=[(0, 1, 0)], seed=seed) for seed in (0, 1)]
    first = {
        "epoch": 0,
        "loss": 2.0001,
        "train_top1": 0.25,
        "validation_top1": None,
        "seconds": 3.0,
    }
    last = {"epoch": 1, "loss": 1.0001, "train_top1": 0.5, "validation_top1": None, "seconds": 3.5}
    long = rows[1].model_copy(update={"epochs": [first, last]})
    publish_rows([rows[0], long], tmp_path / "some" / "rows.jsonl")
    write_row(make_row(model="c3d"), tmp_path / "some")
    other, second, third = load_rows(tmp_path / "some")
    assert (other.config.model, second) == ("c3d", rows[0])
    assert third == long.model_copy(update={"epochs": [last]})
    publish_rows([long], tmp_path / "curves" / "rows.jsonl", curves=True)
    (kept,) = load_rows(tmp_path / "curves")
    assert kept.epochs == [{"epoch": 0, "loss": 2.0, "train_top1": 0.25}, last]


@pytest.mark.parametrize("change", [{"dirty": True}, {"commit": "unknown", "dirty": True}])
def test_rows_of_code_that_is_in_no_commit_are_not_published(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    rows = [make_row(), make_row(model="c3d").model_copy(update=change)]
    with pytest.raises(ValueError, match="c3d.* cannot be published.*commit, and train it again"):
        publish_rows(rows, path)
    assert not path.exists()


def test_the_published_readings_are_runs_of_their_plan():
    planned = planned_runs(yaml.safe_load((ROOT / "workflow/params/readings.yaml").read_text()))
    rows = load_rows(ROOT / "results/published/readings")
    for row in rows:
        assert not differing_settings(planned[row.run_id].model_dump(), row.config.model_dump())
        assert not (row.dirty or row.problems or row.missing)
        assert not row.config.data_dir.startswith("/")


@pytest.mark.parametrize("folder", ["", "readings", "ut-interaction", "rates", "study"])
def test_published_rows_load(folder):
    assert load_rows(ROOT / "results/published" / folder)
