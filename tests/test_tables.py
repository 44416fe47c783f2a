import pytest
from example_rows import make_row

from hstlib.book.tables import NOT_RUN, comparison_table, demo_table
from hstlib.training.rows import Row

OURS = "accuracy, ours (%)"
PARAMETERS = {"c3d": 78_204_723, "r2plus1d": 65_530_956, "r3d": 57_684_595, "hst": 35_544_530}


def accuracies(table: int, *rows: Row) -> dict[str, str]:
    frame = comparison_table(table, rows, PARAMETERS)
    return dict(zip(frame["model"], frame[OURS], strict=True))


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
    cells = accuracies(2, make_row(0.4321))
    assert cells["HST"].startswith("43.21")
    assert {cells[model] for model in ("C3D", "R2Plus1D", "R3D")} == {NOT_RUN}
    assert set(accuracies(4, make_row(0.4321)).values()) == {NOT_RUN}


def test_several_rows_are_averaged():
    cells = accuracies(4, *(
        make_row(top1, dataset="ucf101", backbone="vgg13", model="r3d", seed=seed)
        for seed, top1 in enumerate([0.2, 0.3, 0.7])
    ))  # fmt: skip
    assert cells["R3D"] == "40.00 (runs: 3; 100 epochs, 224 pixels)"


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "demo-hmdb51"},
        {"dataset": "folder", "data_dir": "hmdb51"},
        {"backbone": "demo"},
        {"backbone": "vgg13"},
        {"missing": 1},
    ],
    ids=str,
)
def test_no_other_row_is_shown(change):
    assert accuracies(2, make_row(**change))["HST"] == NOT_RUN


def test_another_reading_never_stands_in_the_papers_tables():
    other = [make_row(0.9, reading="trunk-alone"), make_row(0.9, protocol="random-by-video")]
    assert accuracies(2, *other, make_row(0.25))["HST"].startswith("25.00")


def test_demo_table_has_a_row_per_corpus_and_model():
    rows = [
        make_row(top1, dataset=dataset, model=model, seed=seed, backbone="demo")
        for dataset in ("demo-ucf101", "demo-hmdb51")
        for model in ("hst", "c3d")
        for seed, top1 in enumerate([0.25, 0.75])
    ]
    table = demo_table([*rows, make_row()])
    assert list(table["model"]) == ["C3D", "HST"] * 2
    assert set(table["runs"]) == {2}
    assert set(table["top-1 (%)"]) == {"50.0"}
    assert set(table["motion (%)"]) == {"50.0"} and set(table["appearance (%)"]) == {"75.0"}


def test_models_that_are_not_the_papers_come_last_in_the_demo_table():
    models = ("r3d-flow", "r3d-standard", "hst", "r2plus1d-standard", "c3d")
    rows = [make_row(dataset="demo-ucf101", model=model, backbone="demo") for model in models]
    others = ["R3D, standard", "R(2+1)D, standard", "R3D with flow"]
    assert list(demo_table(rows)["model"]) == ["C3D", "HST", *others]


def test_demo_table_without_demo_rows_is_empty():
    assert demo_table([make_row()]).empty
