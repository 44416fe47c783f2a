"""Tables 2 and 4 from rows made for the test, and what they leave out."""

import re
import subprocess
from base64 import b64decode

import numpy as np
import pandas as pd
import pytest
from example_rows import PAPER_RUNS, answers, make_row, paper_settings

from hstlib.book import changes
from hstlib.book.paper import ALL_TITLES, PAPER_ROWS
from hstlib.book.selection import OFFICIAL_LISTS, complete_grid
from hstlib.book.statistics import confidence_interval, hits_by_group
from hstlib.book.tables import NOT_RUN, comparison_table, demo_tables, left_out, show_table
from hstlib.config import TrainConfig
from hstlib.data.datasets import load_dataset
from hstlib.training.rows import Row

OURS, SPLITS, MINUS = "accuracy, ours (%)", "by split (%)", "minus R3D (%)"
PARAMETERS = {"c3d": 78_204_723, "r2plus1d": 65_530_956, "r3d": 57_684_595, "hst": 35_544_530}
GROUPS = 8
HITS = {"hst": 6, "r3d": 5, "r2plus1d": 4, "c3d": 3}
"""Correct answers of ten in each group, before the noise of a run."""


def row_of(config: TrainConfig, hits: list[int] | None = None, **changed) -> Row:
    """Return a row of a run on official lists; by default a part of the answers is noise."""
    rng = np.random.default_rng([config.split, config.seed, *config.model.encode()])
    hits = hits or [HITS[config.model] + int(noise) for noise in rng.integers(-2, 3, GROUPS)]
    values = {
        "top1": sum(hits) / (10 * len(hits)),
        "videos": answers(hits),
        "split_id": min(OFFICIAL_LISTS[config.dataset][config.split]),
        "train_top1": 1.0,
    }
    return make_row(**values | config.model_dump() | changed)


@pytest.fixture(scope="module")
def all_rows() -> list[Row]:
    return [row_of(config) for config in PAPER_RUNS]


def cells(table: int, rows: list[Row]) -> dict[str, dict[str, str]]:
    return comparison_table(table, rows, PARAMETERS).set_index("model").T.to_dict()


@pytest.mark.parametrize("table", [2, 4])
def test_without_rows_nothing_was_run(table):
    shown = cells(table, [])
    assert [shown[title][OURS] for title in ("C3D", "R2Plus1D", "R3D", "HST")] == [NOT_RUN] * 4
    assert {shown[title][MINUS] for title in shown} == {""}
    assert left_out([]) == []


def test_table_2_has_the_numbers_of_the_paper_beside_ours():
    frame = comparison_table(2, [], PARAMETERS)
    assert list(frame["params, paper (M)"]) == ["78.20", "65.53", "57.68", "35.54"]
    assert list(frame["params, ours (M)"]) == ["78.20", "65.53", "57.68", "35.54"]
    assert list(frame["accuracy, paper (%)"]) == ["76.54", "80.64", "83.25", "85.53"]


def test_table_4_has_the_numbers_of_the_paper():
    frame = comparison_table(4, [], PARAMETERS)
    assert list(frame["params, paper (M)"]) == ["42.5", "35.8", "26.78", "24.1"]
    assert list(frame["accuracy, paper (%)"]) == ["77.89", "79.3", "82.65", "86.3"]


def test_the_rows_of_the_papers_plan_fill_both_tables(all_rows):
    assert len(all_rows) == 72 and left_out(all_rows) == []
    for paper in PAPER_ROWS:
        of_model = [
            row
            for row in all_rows
            if (row.config.dataset, row.config.model) == (paper.dataset, paper.model)
        ]
        cell = cells(paper.table, all_rows)[paper.title]
        top1 = 100 * np.mean([row.test["top1"] for row in of_model])
        expected = confidence_interval(hits_by_group(of_model))
        assert cell[OURS] == str(expected) and expected.mean == pytest.approx(top1)
        assert expected.low < expected.mean < expected.high
        by_split = {
            split: 100 * np.mean([r.test["top1"] for r in of_model if r.config.split == split])
            for split in (1, 2, 3)
        }
        assert cell[SPLITS] == ", ".join(f"{k}: {value:.1f}" for k, value in by_split.items())
        assert cell["runs"] == "9"


def test_the_difference_from_r3d_is_paired_by_hand():
    """Both vary much over the five sources, but in four of them HST answers one of ten more.

    So the difference is 4 of 50, and its half width is the 97.5 % quantile of Student's t with 4
    degrees of freedom, 2.776, times the standard error of 2 points.
    """
    hits = [2, 4, 6, 8, 9]
    rows = [
        row_of(run, hits if run.model == "r3d" else [3, 5, 7, 9, 9])
        for run in PAPER_RUNS
        if run.model in ("hst", "r3d") and (run.dataset, run.seed, run.split) == ("hmdb51", 0, 1)
    ]
    shown = cells(2, rows)
    assert shown["HST"][MINUS] == f"8.0 [{8 - 2 * 2.776:.1f}, {8 + 2 * 2.776:.1f}]"
    assert shown["R3D"][MINUS] == "" and shown["C3D"][MINUS] == ""
    assert shown["R3D"][OURS].startswith("58.0 [")


def test_the_difference_counts_the_seeds_that_both_models_have(all_rows):
    rows = [r for r in all_rows if r.config.model != "r3d" or r.config.seed != 2]
    wanted = [r for r in rows if r.config.dataset == "hmdb51" and r.config.seed != 2]
    hst, r3d = (
        hits_by_group([r for r in wanted if r.config.model == model]) for model in ("hst", "r3d")
    )
    assert cells(2, rows)["HST"][MINUS] == str(confidence_interval(hst, r3d))
    assert cells(2, rows)["HST"]["runs"] == "9"
    none = [r for r in all_rows if r.config.model != "r3d"]
    assert cells(2, none)["HST"][MINUS] == NOT_RUN


WRONG = {
    "epochs": ({"epochs": 1}, "settings: epochs 1 instead of 100"),
    "batch": (
        {"batch_size": 32},
        "settings: batch_size 32 instead of 64",
    ),
    "rate": ({"learning_rate": 0.1}, "settings: learning_rate 0.1 instead of 0.01"),
    "size": ({"size": 112}, "settings: size 112 instead of 224"),
    "two": (
        {"size": 112, "schedule": "cosine"},
        "settings: schedule 'cosine' instead of 'constant', size 112 instead of 224",
    ),
    "reading": ({"reading": "trunk-alone"}, "reading 'trunk-alone' instead of 'paper'"),
    "backbone": ({"backbone": "demo"}, "settings: backbone 'demo' instead of 'resnet21'"),
    "protocol": (
        {"protocol": "random-by-video"},
        "settings: protocol 'random-by-video' instead of 'official'",
    ),
    "model": ({"model": "r3d-standard"}, "model r3d-standard is not in workflow/params/paper.yaml"),
    "lists": ({"split_id": "44c98343e9d6d88e"}, "lists 44c98343e9d6d88e are not those of official"),
    "other split": (
        {"split_id": min(OFFICIAL_LISTS["hmdb51"][2])},
        "are not those of official split 1",
    ),
    "no lists": ({"split_id": ""}, "lists unknown are not those of official split 1"),
    "missing": ({"missing": 52}, "52 of 5100 videos are missing or unreadable, over 1%"),
    "no answers": ({"videos": ()}, "it does not have the answer for every test video"),
    "twice": ({"seed": 0}, "another row of seed 0 and split 1"),
    "incomplete": ({}, "seed 7 was tested on splits [1], not on [1, 2, 3]"),
}
"""Changes of a right row, and the reason why it is left out then."""


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_row_changes_no_cell_and_is_listed(all_rows, change):
    """Where only the change keeps it out, the seed has such a row at every split."""
    changed, reason = WRONG[change]
    splits = (1,) if change in ("other split", "incomplete") else (1, 2, 3)
    settings = [paper_settings().model_copy(update={"seed": 7, "split": s}) for s in splits]
    wrong = [row_of(config, [10] * GROUPS, **changed) for config in settings]
    for table in (2, 4):
        assert cells(table, [*all_rows, *wrong]) == cells(table, all_rows)
    lines = left_out([*all_rows, *wrong])
    assert [line.partition(": ")[0] for line in lines] == [row.run_id for row in wrong]
    assert reason in lines[0]


def test_a_right_seed_more_changes_its_cell(all_rows):
    settings = [paper_settings().model_copy(update={"seed": 7, "split": s}) for s in (1, 2, 3)]
    more = [*all_rows, *(row_of(config, [10] * GROUPS) for config in settings)]
    assert cells(2, more)["HST"] != cells(2, all_rows)["HST"] and left_out(more) == []


def test_what_does_not_change_a_result_does_not_keep_a_row_out():
    """Another place of the data, other processes, one missing video, one split only."""
    row = row_of(paper_settings(), data_dir="/disk/hmdb51", num_workers=2, device="cuda", missing=1)
    assert left_out([row]) == []
    assert cells(2, [row])["HST"][OURS].startswith(f"{100 * row.test['top1']:.1f} [")
    assert cells(2, [row])["HST"][SPLITS] == f"1: {100 * row.test['top1']:.1f}"


def test_rows_on_other_data_are_no_candidates():
    rows = [make_row(dataset="demo-hmdb51"), make_row(dataset="folder", data_dir="hmdb51")]
    assert left_out(rows) == [] and cells(2, rows) == cells(2, [])


def test_the_official_lists_are_those_that_the_data_sets_publish(real_clips, tmp_path):
    for dataset, by_split in OFFICIAL_LISTS.items():
        for split, ids in by_split.items():
            assert load_dataset(dataset, real_clips / dataset, split).split_id in ids
    lists = "ucfTrainTestlist"
    (tmp_path / lists).symlink_to(real_clips / "ucf101" / lists)
    videos = tmp_path / "UCF-101" / "HandstandPushups"
    videos.mkdir(parents=True)
    for path in load_dataset("ucf101", real_clips / "ucf101").paths:
        if "_HandStandPushups_" in path.name:
            (videos / path.name.replace("HandStand", "Handstand")).touch()
    for split, ids in OFFICIAL_LISTS["ucf101"].items():
        data = load_dataset("ucf101", tmp_path, split)
        assert {data.split_id, load_dataset("ucf101", real_clips / "ucf101", split).split_id} == ids


def test_the_grid_is_the_splits_of_the_seed_with_most():
    rows = [
        make_row(seed=seed, split=split) for seed, split in [(0, 1), (1, 1), (1, 2), (2, 2), (2, 1)]
    ]
    chosen, lines = complete_grid(rows)
    assert [(r.config.seed, r.config.split) for r in chosen] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert lines == ["hmdb51-hst-resnet21-s1-seed0: seed 0 was tested on splits [1], not on [1, 2]"]
    assert complete_grid([]) == ([], [])


def git(folder, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit, in which the tests run."""
    for name in ("__init__.py", "config.py", "model/ops.py", "book/tables.py"):
        (tmp_path / "hstlib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hstlib" / name).touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.chdir(tmp_path)
    changes._since.cache_clear()
    yield tmp_path
    changes._since.cache_clear()


def code_of(folder, **values) -> str:
    row = make_row().model_copy(update={"commit": git(folder, "rev-parse", "HEAD"), **values})
    changes._since.cache_clear()
    return changes.code_since(row)


def test_a_row_says_whether_its_code_has_changed(checkout):
    assert code_of(checkout) == "same"
    (checkout / "hstlib/book/tables.py").write_text("# the book trains nothing")
    assert code_of(checkout) == "same"
    (checkout / "hstlib/model/ops.py").write_text("# another network")
    assert code_of(checkout) == "changed since"
    commit = git(checkout, "rev-parse", "HEAD")
    git(checkout, "commit", "--quiet", "-am", "second")
    assert code_of(checkout, commit=commit) == "changed since" and code_of(checkout) == "same"
    assert code_of(checkout, dirty=True) == "not committed"
    assert code_of(checkout, commit="unknown") == code_of(checkout, commit="1" * 40) == "unknown"


def test_an_unrelated_repository_around_the_project_says_nothing(checkout, monkeypatch):
    (checkout / "project").mkdir()
    (checkout / "hstlib").rename(checkout / "project" / "hstlib")
    monkeypatch.chdir(checkout / "project")
    assert code_of(checkout) == "unknown"


def test_the_tables_have_the_state_of_the_code(checkout, monkeypatch):
    config = paper_settings()  # read from the project's plan, which the checkout of the test lacks
    row = row_of(config).model_copy(update={"commit": git(checkout, "rev-parse", "HEAD")})
    monkeypatch.setattr(
        "hstlib.book.selection._paper_settings", lambda: {("hmdb51", "hst"): config}
    )
    assert cells(2, [row])["HST"]["code"] == "same"
    changes._since.cache_clear()
    (checkout / "hstlib/config.py").write_text("# other defaults")
    assert cells(2, [row])["HST"]["code"] == "changed since"


DRAWN = [(0, 0, 0), (0, 1, 1), (1, 1, 2), (1, 0, 3)]
"""Answers on four drawn videos of as many films: two of four are right."""


def drawn_row(**settings):
    return make_row(0.5, videos=DRAWN, backbone="demo", **settings)


def test_demo_tables_have_a_row_per_model_and_reading():
    rows = [
        drawn_row(dataset=dataset, model=model, reading=reading, seed=seed, train_top1=0.9 + seed)
        for dataset in ("demo-ucf101", "demo-hmdb51")
        for model, reading in (("hst", "trunk-alone"), ("hst", "paper"), ("c3d", "paper"))
        for seed in (0, 1)
    ]
    tables = demo_tables([*rows, make_row(), drawn_row(dataset="demo-hmdb51", limit=2)])
    assert list(tables) == ["demo-hmdb51", "demo-ucf101"]
    for table in tables.values():
        assert list(table["model"]) == ["C3D", "HST", "HST (trunk alone)"]
        assert set(table["runs"]) == {2} and set(table["training (%)"]) == {"90.0"}
        assert all(top1.startswith("50.0 [") for top1 in table["top-1 (%)"])
        assert set(table["motion (%)"]) == {"50.0"} and set(table["appearance (%)"]) == {"75.0"}


def test_models_that_are_not_the_papers_come_last_in_the_demo_table():
    models = ("r3d-flow", "r3d-standard", "hst", "r2plus1d-standard", "c3d")
    rows = [drawn_row(dataset="demo-ucf101", model=model) for model in models]
    others = [ALL_TITLES[model] for model in ("r3d-standard", "r2plus1d-standard", "r3d-flow")]
    assert list(demo_tables(rows)["demo-ucf101"]["model"]) == ["C3D", "HST", *others]


def test_there_is_no_demo_table_without_demo_rows():
    assert demo_tables([make_row()]) == {}


def example(digits: int | None = None):
    frame = pd.DataFrame({"class": ["<b>run</b>", "a_b & c"], "top-1 (%)": [0.5, None]})
    frame["ours"] = ["52.1 [48.0, 56.2]", NOT_RUN]
    return show_table(frame.set_index("class"), "example", digits)


def test_a_table_has_named_columns_text_cells_and_no_index():
    table = example(2)
    assert list(table.frame) == ["class", "top-1 (%)", "ours"]
    assert table.frame.to_numpy().tolist() == [
        ["<b>run</b>", "0.50", "52.1 [48.0, 56.2]"],
        ["a_b & c", "", NOT_RUN],
    ]
    assert table.numeric == {"top-1 (%)", "ours"}


def test_names_of_classes_are_text_and_never_markup():
    html = example()._repr_html_()
    assert "&lt;b&gt;run&lt;/b&gt;" in html and "<b>" not in html
    assert html.count('<th scope="col"') == 3 and html.count('text-align: right">0.5<') == 1


def test_a_narrow_column_breaks_numbers_before_brackets_and_names_after_underscores():
    html = example()._repr_html_()
    assert ">52.1 [48.0,&nbsp;56.2]<" in html and ">not&nbsp;run<" in html
    assert ">a_<wbr>b &amp; c<" in html


def test_the_downloads_hold_the_table():
    links = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', example()._repr_html_())
    files = {name: b64decode(data).decode() for name, data in links}
    assert list(files) == ["example.csv", "example.tex"]
    assert files["example.csv"].splitlines()[1] == '<b>run</b>,0.5,"52.1 [48.0, 56.2]"'
    assert r"a\_b \& c &  & not run \\" in files["example.tex"]


def test_the_same_table_is_the_same_text():
    assert example()._repr_html_() == example()._repr_html_() and repr(example()) == repr(example())


def test_names_of_several_levels_are_joined_and_missing_ones_refused():
    columns = pd.MultiIndex.from_tuples([("top-1", "mean"), ("runs", "")])
    assert list(show_table(pd.DataFrame([[1, 2]], columns=columns), "t").frame) == [
        "top-1, mean",
        "runs",
    ]
    with pytest.raises(ValueError, match="index has no name; use rename_axis"):
        show_table(pd.DataFrame({"a": [1]}, index=["x"]), "t")
    with pytest.raises(ValueError, match="names that are all different"):
        show_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), "t")


def test_truth_values_are_words():
    table = show_table(pd.DataFrame({"fits": [True, False, None]}), "t")
    assert table.frame["fits"].tolist() == ["yes", "no", ""] and table.numeric == frozenset()
