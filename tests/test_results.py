import json
from pathlib import Path

import numpy as np
import pytest

from hstlib.ablation import READINGS
from hstlib.config import TrainConfig
from hstlib.results import (
    NOT_RUN,
    Row,
    bootstrap,
    compare_readings,
    comparison_table,
    demo_table,
    hits_by_group,
    load_rows,
    publish_rows,
    write_row,
)

ROOT = Path(__file__).resolve().parents[1]
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
    assert [p.parent.name for p in paths] == [r.run_id for r in rows]
    assert load_rows(tmp_path / "new") == rows


def test_writing_leaves_the_row_only_and_replaces_an_older_one(tmp_path):
    write_row(row(0.25), tmp_path)
    path = write_row(row(0.5), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert load_rows(tmp_path)[0].test["top1"] == 0.5


def test_an_empty_folder_has_no_rows(tmp_path):
    assert load_rows(tmp_path) == load_rows(tmp_path / "none") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run_id": "a"}'])
def test_a_file_that_is_no_row_is_named(tmp_path, text):
    path = write_row(row(), tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"row\.json: not a results row"):
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


def run_on(videos: list[tuple[int, int, int]], **config) -> Row:
    settings = TrainConfig(**config)
    return row(**config).model_copy(update={"videos": videos, "run_id": settings.run_id})


def test_published_rows_keep_all_but_the_learning_curve(tmp_path):
    rows = [run_on([(0, 1, 0)], seed=seed) for seed in (0, 1)]
    long = rows[1].model_copy(update={"epochs": [{"epoch": 0}, {"epoch": 1}]})
    publish_rows([rows[0], long], tmp_path / "some" / "rows.jsonl")
    write_row(row(model="c3d"), tmp_path / "some")
    first, second, third = load_rows(tmp_path / "some")
    assert (first.config.model, second) == ("c3d", rows[0])
    assert third == long.model_copy(update={"epochs": [{"epoch": 1}]})
    publish_rows([long], tmp_path / "whole" / "rows.jsonl", curves=True)
    assert load_rows(tmp_path / "whole") == [long]


def test_hits_are_counted_by_seed_fold_and_group():
    rows = [
        run_on([(0, 0, 0), (1, 0, 0), (1, 1, 1)], split=1, seed=0),
        run_on([(2, 2, 0)], split=2, seed=0),
        run_on([(0, 0, 0), (1, 1, 0), (1, -1, 1)], split=1, seed=1),
        run_on([(2, 1, 0)], split=2, seed=1),
    ]
    hits = hits_by_group(rows)
    assert hits.tolist() == [[[1, 2], [1, 1], [1, 1]], [[2, 2], [0, 1], [0, 1]]]
    only = hits_by_group(rows, {1})
    assert only.tolist() == [[[0, 1], [1, 1]], [[1, 1], [0, 1]]]


def test_seeds_on_other_videos_are_refused():
    rows = [run_on([(0, 0, 0)], seed=0), run_on([(0, 0, 0), (1, 1, 0)], seed=1)]
    with pytest.raises(ValueError, match="seeds were not tested on the same videos"):
        hits_by_group(rows)


def test_bootstrap_of_equal_groups_has_no_width_and_of_others_is_near_the_normal():
    same = np.tile([3, 4], (3, 10, 1))
    assert str(bootstrap(same)) == "75.0 [75.0, 75.0]"
    rng = np.random.default_rng(1)
    hits = np.stack([rng.binomial(1, 0.6, (1, 400)), np.ones((1, 400), int)], -1)
    found = bootstrap(hits)
    half = 1.96 * 100 * np.sqrt(0.24 / 400)
    assert found.mean == pytest.approx(100 * hits[..., 0].mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.15)
    assert found.mean - found.low == pytest.approx(half, rel=0.15)


def test_a_difference_is_drawn_pair_by_pair():
    rng = np.random.default_rng(2)
    right = rng.binomial(5, 0.5, (3, 20))
    videos = np.full((3, 20), 6)
    worse, better = np.stack([right, videos], -1), np.stack([right + 1, videos], -1)
    found = bootstrap(better, worse)
    assert (found.low, found.mean, found.high) == pytest.approx((100 / 6,) * 3)
    assert bootstrap(better).high - bootstrap(better).low > 5


def test_readings_are_compared_with_hst_as_built():
    def runs(right: int, **config) -> list[Row]:
        videos = [(0, 0 if i < right else 1, i) for i in range(4)]
        return [run_on(videos, seed=seed, **config) for seed in (0, 1)]

    rows = [
        *runs(2, dataset="demo-ucf101", reading="mean-over-time"),
        *runs(4, dataset="demo-ucf101", model="r3d"),
        *runs(3, dataset="demo-ucf101"),
        *runs(1, dataset="demo-hmdb51", reading="trunk-alone"),
    ]
    columns = {"ucf": ("demo-ucf101", None), "hmdb": ("demo-hmdb51", {0})}
    found = compare_readings(rows, columns)
    assert [(c.name, c.column) for c in found] == [
        ("HST", "ucf"), ("R3D", "ucf"), ("trunk alone", "hmdb"), ("mean over time", "ucf")
    ]  # fmt: skip
    assert [c.accuracy.mean for c in found] == [75, 100, 25, 50]
    assert found[0].difference is None and found[2].difference is None
    assert (found[1].difference.mean, found[3].difference.mean) == (25, -25)
    with pytest.raises(ValueError, match="R3D and HST were not tested on the same ucf videos"):
        compare_readings(
            [
                *runs(3, dataset="demo-ucf101"),
                run_on([(0, 0, 0)], dataset="demo-ucf101", model="r3d"),
            ],
            columns,
        )


def test_another_reading_never_stands_in_the_papers_tables():
    rows = [row(0.9, reading="trunk-alone"), row(0.25), row(0.9, protocol="random-by-video")]
    assert accuracies(2, *rows)["HST"].startswith("25.00")


def test_the_published_ablation_is_complete_and_names_no_machine():
    rows = load_rows(ROOT / "results/published/ablation")
    found = {
        (r.config.model, r.config.reading, r.config.dataset, r.config.split, r.config.seed)
        for r in rows
    }
    tests = [("demo-hmdb51", 1), ("demo-ucf101", 1), *(("folder", split) for split in (1, 2, 3))]
    models = [("hst", "paper"), ("r3d", "paper"), *(("hst", reading) for reading in READINGS)]
    assert found == {(*m, *t, seed) for m in models for t in tests for seed in (0, 1, 2)}
    for dataset in ("demo-hmdb51", "demo-ucf101", "folder"):
        same = [r.config for r in rows if r.config.dataset == dataset]
        budget = {(c.epochs, c.batch_size, c.clip, c.augment, c.schedule) for c in same}
        assert len(budget) == 1
        assert not any(c.data_dir.startswith("/") for c in same)
    assert not any(r.dirty or r.problems or r.missing for r in rows)
