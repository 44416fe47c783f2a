import json

import pytest

from hstlib.config import TrainConfig
from hstlib.results import NOT_RUN, Row, comparison_table, demo_table, load_rows, write_row

OURS = "accuracy, ours (%)"
PARAMETERS = {"c3d": 78_204_723, "r2plus1d": 65_530_956, "r3d": 57_675_364, "hst": 35_544_530}
KINDS = {"motion": 0.5, "appearance": 0.75, "direction": 0.625}


def row(top1: float = 0.25, missing: int = 0, **config) -> Row:
    settings = TrainConfig(**config)
    demo = settings.dataset.startswith("demo-")
    return Row(
        run_id=settings.run_id,
        config=settings,
        parameters=35_544_530,
        classes=51,
        train_videos=3570,
        missing=missing,
        problems=missing,
        test={"top1": top1, "top5": 0.5, "videos": 1530, "unreadable": 0},
        kinds=KINDS | {f"{kind}_shuffled": 0.125 for kind in KINDS} if demo else {},
        epochs=[
            {"epoch": 0, "loss": 1.5, "train_top1": 0.1, "learning_rate": 0.01, "seconds": 2.0}
        ],
        seconds=3.5,
        finished="2024-01-01T00:00:00+00:00",
        commit="0" * 40,
        dirty=False,
        environment={"torch": "2"},
    )


def accuracies(table: int, *rows: Row) -> dict[str, str]:
    frame = comparison_table(table, rows, PARAMETERS)
    return dict(zip(frame["model"], frame[OURS], strict=True))


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [row(model="c3d"), row(model="hst", seed=3, clip={"size": 112})]
    paths = [write_row(r, tmp_path / "new") for r in rows]
    assert [p.name for p in paths] == [f"{r.run_id}.json" for r in rows]
    assert load_rows(tmp_path / "new") == rows


def test_writing_leaves_the_row_only_and_replaces_an_older_one(tmp_path):
    write_row(row(0.25), tmp_path)
    path = write_row(row(0.5), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert load_rows(tmp_path)[0].test["top1"] == 0.5


def test_an_empty_folder_has_no_rows(tmp_path):
    assert load_rows(tmp_path) == load_rows(tmp_path / "none") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run_id": "a"}'])
def test_a_file_that_is_no_row_is_named(tmp_path, text):
    write_row(row(), tmp_path)
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: not a results row"):
        load_rows(tmp_path)


@pytest.mark.parametrize("key", ["accuracy", "environment"])
def test_a_row_with_an_unknown_or_without_a_known_key_is_named(tmp_path, key):
    path = write_row(row(), tmp_path)
    content = json.loads(path.read_text())
    if content.pop(key, None) is None:
        content[key] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"(?s){path.name}.*{key}"):
        load_rows(tmp_path)


@pytest.mark.parametrize("table", [2, 4])
def test_without_rows_nothing_was_run(table):
    assert accuracies(table) == dict.fromkeys(["C3D", "R2Plus1D", "R3D", "HST"], NOT_RUN)


def test_table_2_has_the_numbers_of_the_paper_beside_ours():
    frame = comparison_table(2, [], PARAMETERS)
    assert list(frame["params, paper (M)"]) == ["78.20", "65.53", "57.68", "35.54"]
    assert list(frame["params, ours (M)"]) == ["78.20", "65.53", "57.68", "35.54"]
    assert list(frame["accuracy, paper (%)"]) == ["76.54", "80.64", "83.25", "85.53"]
    assert set(frame["data set"]) == {"HMDB51"} and set(frame["backbone"]) == {"ResNet-21"}


def test_table_4_has_the_numbers_of_the_paper():
    frame = comparison_table(4, [], PARAMETERS)
    assert list(frame["params, paper (M)"]) == ["42.5", "35.8", "26.78", "24.1"]
    assert list(frame["accuracy, paper (%)"]) == ["77.89", "79.3", "82.65", "86.3"]
    assert set(frame["data set"]) == {"UCF101"} and set(frame["backbone"]) == {"VGG-13"}


def test_a_complete_row_is_shown_in_its_own_cell():
    found = accuracies(2, row(0.4321))
    assert found["HST"].startswith("43.21")
    assert {found[model] for model in ("C3D", "R2Plus1D", "R3D")} == {NOT_RUN}
    assert set(accuracies(4, row(0.4321)).values()) == {NOT_RUN}


def test_several_rows_are_averaged():
    found = accuracies(4, *(
        row(top1, dataset="ucf101", backbone="vgg13", model="r3d", seed=seed)
        for seed, top1 in enumerate([0.2, 0.3, 0.7])
    ))  # fmt: skip
    assert found["R3D"] == "40.00 (runs: 3; 100 epochs, 224 pixels)"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "demo-hmdb51"},
        {"dataset": "folder", "data_dir": "hmdb51"},
        {"backbone": "demo"},
        {"backbone": "vgg13"},
        {"missing": 1},
    ],
    ids=str,
)
def test_no_other_row_is_shown(other):
    assert accuracies(2, row(**other))["HST"] == NOT_RUN


def test_demo_table_has_a_row_per_corpus_and_model():
    rows = [
        row(top1, dataset=dataset, model=model, seed=seed, backbone="demo")
        for dataset in ("demo-ucf101", "demo-hmdb51")
        for model in ("hst", "c3d")
        for seed, top1 in enumerate([0.25, 0.75])
    ]
    table = demo_table([*rows, row()])
    assert list(table["model"]) == ["C3D", "HST"] * 2
    assert set(table["runs"]) == {2}
    assert set(table["top-1 (%)"]) == {"50.0"}
    assert set(table["motion (%)"]) == {"50.0"} and set(table["appearance (%)"]) == {"75.0"}


def test_demo_table_without_demo_rows_is_empty():
    assert demo_table([row()]).empty
