"""`python -m hstlib compare` on rows made for the test, with differences known by hand."""

import sys

import pytest
from example_rows import answers, make_row

from hstlib.__main__ import main
from hstlib.book.compare import compare_rows
from hstlib.book.paper import ALL_TITLES
from hstlib.book.statistics import confidence_interval, hits_by_group, holm
from hstlib.training.rows import Row, publish_rows, write_row

LISTS = "a" * 16
HITS = {"hst": [9, 8, 9, 7, 9, 8], "r3d": [5, 4, 6, 4, 5, 4], "c3d": [5, 5, 5, 4, 5, 5]}
SETTINGS = {"dataset": "folder", "data_dir": "/videos/moves", "backbone": "demo", "epochs": 20}


def runs_of(model: str, seeds=(0, 1), splits=(1, 2), train_top1=0.99, **changed) -> list[Row]:
    """Return a model's rows; the second seed answers one video of the first group less."""
    rows = []
    for seed in seeds:
        for split in splits:
            hits = [count - (seed == 1 and group == 0) for group, count in enumerate(HITS[model])]
            values = {"videos": answers(hits), "split_id": LISTS, "train_top1": train_top1}
            values["top1"] = sum(hits) / 60
            where = {"model": model, "seed": seed, "split": split}
            rows.append(make_row(**values | SETTINGS | where | changed))
    return rows


def all_models(**changed) -> list[Row]:
    return [row for model in HITS for row in runs_of(model, **changed)]


def hits(rows: list[Row], model: str):
    return hits_by_group([row for row in rows if row.config.model == model])


def test_hst_is_compared_with_every_model_and_the_family_is_corrected_together():
    rows = all_models()
    (comparison,) = compare_rows(rows)
    assert comparison.dataset == "moves" and comparison.left_out == []
    check_differences(comparison.differences, rows, [("hst", "c3d"), ("hst", "r3d")])
    assert set(comparison.differences["verdict"]) == {"differ"}


def test_without_hst_every_pair_is_compared():
    rows = [row for row in all_models() if row.config.model != "hst"]
    (comparison,) = compare_rows(rows)
    check_differences(comparison.differences, rows, [("c3d", "r3d")])
    assert set(comparison.differences["verdict"]) == {"undecided"}


def check_differences(table, rows: list[Row], pairs: list[tuple[str, str]]) -> None:
    expected = {
        " minus ".join(ALL_TITLES[model] for model in pair): confidence_interval(
            *(hits(rows, model) for model in pair)
        )
        for pair in pairs
    }
    assert list(table.index) == list(expected)
    corrected = holm({title: interval.p_value for title, interval in expected.items()})
    for title, interval in expected.items():
        assert table["difference (points)"][title] == str(interval)
        assert table["p"][title] == f"{interval.p_value:.4f}"
        assert table["p, corrected"][title] == f"{corrected[title]:.4f}"
    if "HST minus R3D" in expected:
        assert expected["HST minus R3D"].mean == pytest.approx(100 * (50 - 28) / 60)


def test_every_model_has_its_accuracy_training_accuracy_and_steps():
    rows = [*runs_of("hst", seeds=[0]), *runs_of("hst", seeds=[1], train_top1=0.97)]
    (comparison,) = compare_rows([*rows, *runs_of("r3d")])
    model = comparison.models.loc["HST"]
    assert model["top-1 (%)"] == str(confidence_interval(hits_by_group(rows)))
    assert model["by split (%)"] == "1: 82.5, 2: 82.5"  # 50 and 49 of 60
    assert model["training top-1 (%)"] == "98.0 (97.0 to 99.0)"
    assert model["steps"] == str(20 * (3570 // 64))
    assert (model["runs"], model["seeds"], model["sources"]) == (4, 2, 12)


def test_a_model_that_is_not_fitted_gets_no_verdict_and_costs_no_other():
    fitted = [row for row in all_models() if row.config.model != "c3d"]
    (alone,) = compare_rows(fitted)
    (comparison,) = compare_rows([*fitted, *runs_of("c3d", train_top1=0.94)])
    assert comparison.models[""].to_dict() == {"HST": "", "C3D": "not fitted", "R3D": ""}
    table = comparison.differences
    assert table["verdict"]["HST minus C3D"] == "none: not fitted"
    assert table["p"]["HST minus C3D"] == table["p, corrected"]["HST minus C3D"] == ""
    assert table.loc["HST minus R3D"].to_dict() == alone.differences.loc["HST minus R3D"].to_dict()
    unknown = [row.model_copy(update={"epochs": []}) for row in runs_of("hst")]
    assert compare_rows(unknown)[0].models[""].to_dict() == {"HST": "not fitted"}


def test_other_settings_are_another_model_and_only_they_are_in_its_name():
    rows = [*runs_of("hst"), *runs_of("hst", epochs=1, train_top1=0.2), *runs_of("r3d")]
    (comparison,) = compare_rows(rows)
    assert list(comparison.models.index) == ["HST: epochs 20", "HST: epochs 1", "R3D"]
    pairs = ["HST: epochs 20 minus HST: epochs 1", "HST: epochs 20 minus R3D"]
    assert list(comparison.differences.index) == [*pairs, "HST: epochs 1 minus R3D"]
    assert comparison.models["training top-1 (%)"]["HST: epochs 1"].startswith("20.0")
    reading = runs_of("hst", reading="trunk-alone")
    (comparison,) = compare_rows([*runs_of("hst"), *reading])
    assert list(comparison.models.index) == ["HST", "HST (trunk-alone)"]


def test_the_place_of_the_data_is_no_setting():
    moved = runs_of("hst", seeds=[1], data_dir="/disk/moves")
    (comparison,) = compare_rows([*runs_of("hst", seeds=[0]), *moved])
    assert comparison.models["seeds"].to_dict() == {"HST": 2}


def test_data_sets_and_protocols_are_kept_apart():
    rows = [*runs_of("hst"), *runs_of("hst", protocol="random-by-video"), *runs_of("r3d")]
    rows += runs_of("r3d", dataset="jhmdb", data_dir="")
    assert [c.dataset for c in compare_rows(rows)] == ["jhmdb", "moves", "moves, random-by-video"]


def test_rows_that_cannot_be_compared_are_listed_with_the_reason():
    rows = all_models()
    odd = [
        *runs_of("hst", seeds=[4], splits=[1], split_id="b" * 16),
        *runs_of("hst", seeds=[5], splits=[2], videos=()),
        *runs_of("hst", seeds=[6], splits=[1]),
        rows[0],
    ]
    (comparison,) = compare_rows([*rows, *odd])
    (right,) = compare_rows(rows)
    assert comparison.models.equals(right.models)
    assert comparison.differences.equals(right.differences)
    reasons = [line.partition(": ")[2] for line in comparison.left_out]
    assert sorted(reasons) == [
        "another row of seed 0 and split 1",
        "it does not have the answer for every test video",
        "lists 'bbbbbbbbbbbbbbbb' instead of 'aaaaaaaaaaaaaaaa'",
        "seed 6 was tested on splits [1], not on [1, 2]",
    ]


def test_models_without_a_seed_in_common_are_not_compared():
    rows = [*runs_of("hst", seeds=[0]), *runs_of("r3d", seeds=[1])]
    (comparison,) = compare_rows(rows)
    assert comparison.differences["verdict"].to_dict() == {
        "HST minus R3D": "no seeds, splits and test videos in common"
    }


@pytest.mark.parametrize("published", [False, True])
def test_the_command_prints_both_tables(tmp_path, monkeypatch, capsys, published):
    rows = all_models()
    if published:
        publish_rows(rows, tmp_path / "rows.jsonl")
    for row in rows:
        write_row(row, tmp_path) if not published else None
    monkeypatch.setattr(sys, "argv", ["hstlib", "compare", str(tmp_path)])
    main()
    shown = capsys.readouterr().out
    (comparison,) = compare_rows(rows)
    assert shown.splitlines()[0] == "moves"
    assert comparison.models.to_string() in shown and comparison.differences.to_string() in shown


def test_a_folder_without_rows_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hstlib", "compare", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    reason = "has no result rows; name a folder of finished runs"
    assert ended.value.code == f"error: {tmp_path} {reason}"
