"""The runs of a plan, and what a plan's file may not say."""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_rows import make_row

from hstlib.__main__ import main
from hstlib.config import TrainConfig
from hstlib.training.plan import SOURCES, parse_plan, planned_runs, read_plan
from hstlib.training.plan_progress import finished_runs, run_state
from hstlib.training.rows import RunRecord, load_record, load_row, write_record, write_row

ROOT = Path(__file__).resolve().parents[1]
PLAN = {
    "build": "b",
    "splits": [1, 2],
    "seeds": [0, 5],
    "train": {"batch_size": 16, "epochs": 1, "size": 32},
    "models": {
        "hst": {"epochs": 2, "size": 48},
        "trunk": {"model": "hst", "reading": "trunk-alone"},
    },
    "corpora": [
        {"dataset": "demo-hmdb51", "backbone": "demo", "size": 64},
        {"dataset": "folder", "data_dir": "x/moves", "backbone": "demo", "splits": [3]},
    ],
}


def changed(**keys: Any) -> dict[str, Any]:
    """Return the plan with other values for these keys; dots in a key are written as ``__``."""
    plan = copy.deepcopy(PLAN)
    for key, value in keys.items():
        *parents, name = [int(part) if part.isdigit() else part for part in key.split("__")]
        place = plan
        for parent in parents:
            place = place[parent]
        place[name] = value
    return plan


def test_settings_of_a_corpus_override_those_of_a_model_which_override_those_of_all_runs():
    runs = planned_runs(PLAN)
    assert len(runs) == (2 + 1) * 2 * 2
    assert runs["demo-hmdb51-hst-demo-s2-seed5"] == TrainConfig(
        dataset="demo-hmdb51",
        backbone="demo",
        model="hst",
        batch_size=16,
        epochs=2,
        size=64,
        split=2,
        seed=5,
    )
    run = runs["moves-hst-trunk-alone-demo-s3-seed0"]
    assert (run.reading, run.epochs, run.size, run.split) == ("trunk-alone", 1, 32, 3)
    assert list(runs) == [config.run_id for config in runs.values()]


def test_a_corpus_trains_its_own_models_where_it_names_them():
    plan = PLAN | {
        "corpora": [{"dataset": "demo-hmdb51"}, {"dataset": "demo-ucf101", "models": ["c3d"]}],
        "models": {"hst": {}, "c3d": {}},
    }

    def trained(**overrides):
        return {(run.dataset, run.model) for run in planned_runs(plan, overrides).values()}

    both = {("demo-hmdb51", "hst"), ("demo-hmdb51", "c3d")}
    assert trained() == both | {("demo-ucf101", "c3d")}
    assert trained(model="hst") == {("demo-hmdb51", "hst")}
    assert trained(dataset="demo-ucf101", split=2) == {("demo-ucf101", "c3d")}
    with pytest.raises(ValueError, match="the plan trains none of these models"):
        trained(model="hst", dataset="demo-ucf101")
    wrong = plan | {"corpora": [{"dataset": "demo-ucf101", "models": ["i3d"]}]}
    with pytest.raises(ValueError, match=r"corpora\[0\]\.models: model 'i3d' is not in the plan"):
        planned_runs(wrong)


def test_an_excluded_model_is_trained_only_where_a_call_names_it():
    plan = changed(models={"hst": {}, "c3d": {}}, excluded={"c3d": "its loss is not finite"})
    assert {run.model for run in planned_runs(plan).values()} == {"hst"}
    assert {run.model for run in planned_runs(plan, {"model": "c3d"}).values()} == {"c3d"}
    with pytest.raises(ValueError, match="^excluded: model 'i3d' is not in the plan; use one of"):
        planned_runs(plan | {"excluded": {"i3d": ""}})


def test_a_run_without_a_learning_rate_has_the_papers():
    assert {config.learning_rate for config in planned_runs(PLAN).values()} == {0.01}
    plan = changed(models={"c3d": {}, "r3d": {"learning_rate": 0.5}})
    assert {config.learning_rate for config in planned_runs(plan).values()} == {0.0001, 0.5}


def test_learning_rates_of_a_plan_train_every_model_with_each_and_with_the_papers():
    plan = changed(
        splits=[1], seeds=[0], learning_rates=[0.01, 0.003], models={"hst": {}, "c3d": {}}
    )
    rates = {run_id: run.learning_rate for run_id, run in planned_runs(plan).items()}
    assert rates == {
        f"{corpus}-{model}-demo-s{split}-seed0-rate{rate}": rate
        for corpus, split in (("demo-hmdb51", 1), ("moves", 3))
        for model, tried in {"hst": (0.003, 0.01), "c3d": (0.0001, 0.003, 0.01)}.items()
        for rate in tried
    }


def test_a_run_takes_one_core_and_no_gpu_unless_the_plan_says_so():
    assert (parse_plan(PLAN).resources.gpus, parse_plan(PLAN).resources.cpus) == (0, 1)
    assert parse_plan(changed(resources={"gpus": 2})).resources.gpus == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, "^unknown setting 'seed'; did you mean 'seeds'?"),
        ({"resources": {"gpu": 1}}, "^resources: unknown setting 'gpu'; did you mean 'gpus'?"),
        ({"train__epoch": 3}, "^train: unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"train__results_dir": "x"}, "^train: unknown setting 'results_dir'; use one of"),
        ({"models__hst__learning_rte": 1}, r"^models\.hst: .* did you mean 'learning_rate'?"),
        ({"corpora__1__spilts": [1]}, r"^corpora\[1\]: unknown setting 'spilts'"),
        ({"corpora__0__backbon": "demo"}, r"^corpora\[0\]: .* did you mean 'backbone'?"),
    ],
    ids=str,
)
def test_an_unknown_name_is_refused_with_its_key_and_the_right_word(change, message):
    with pytest.raises(ValueError, match=message):
        planned_runs(changed(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 3}, "^seeds is 3; it must be a valid list$"),
        ({"seeds": []}, r"^seeds is \[\]"),
        ({"splits": [1, "x"]}, r"^splits\[1\] is 'x'"),
        ({"corpora__1__splits": 3}, r"^corpora\[1\]\.splits is 3"),
        ({"corpora__1__splits": [4]}, r"^corpora\[1\] with models\.hst: split is 4"),
        ({"corpora__0__dataset": "hmdb"}, r"^corpora\[0\] with models\.hst: dataset is 'hmdb'"),
        ({"models__hst": None}, r"^models\.hst is None"),
        ({"models__hts": {}}, r"models\.hts: model is 'hts'; it must be 'hst', 'c3d'"),
        ({"models__hst__learning_rate": 0}, "learning_rate is 0; it must be greater than 0"),
        ({"models__trunk__reading": "trunk"}, r"models\.trunk: reading 'trunk' is unknown"),
        ({"models__r3d": {"reading": "trunk-alone"}}, r"models\.r3d: reading 'trunk-alone'"),
        ({"resources": {"gpus": -1}}, r"^resources\.gpus is -1"),
        ({"build": 3}, "^build is 3"),
        ({"build": ""}, "^build is ''; it must be a folder in the project"),
        ({"build": "."}, "^build is '.'; it must be a folder in the project"),
        ({"build": "/tmp/x"}, "^build is '/tmp/x'; it must be a folder in the project"),
        ({"build": "build/../../x"}, "^build is 'build/../../x'; it must be a folder"),
        ({"build": "build/$(touch x)"}, r"^build is 'build/\$\(touch x\)'; it must be a folder"),
        ({"build": "notebooks"}, "^build is 'notebooks'; .* that is none of its own"),
        ({"build": "book/x"}, "^build is 'book/x'; .* that is none of its own"),
        ({"study": "../x"}, "^study is '../x'; it must be the name of a notebook"),
        ({"corpora__1__data_dir": "x/a{b}"}, r"the run's name 'a\{b\}-hst.*' has braces"),
        ({"corpora__1__data_dir": "x/a\033b"}, "has braces or control characters; rename"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        planned_runs(changed(**change))


@pytest.mark.parametrize("key", ["build", "seeds", "splits", "models", "corpora"])
def test_a_missing_key_is_named(key):
    plan = changed()
    del plan[key]
    with pytest.raises(ValueError, match=f"^{key} is missing$"):
        planned_runs(plan)


def test_a_corpus_without_a_data_set_is_named():
    with pytest.raises(ValueError, match=r"^corpora\[0\]\.dataset is missing$"):
        planned_runs(changed(corpora=[{"backbone": "demo"}]))


@pytest.mark.parametrize(
    "change",
    [
        {"train__seed": 3},
        {"train__model": "hst"},
        {"models__hst__split": 1},
        {"corpora__0__model": "r3d"},
        {"corpora__0__split": 1},
        {"learning_rates": [0.1], "train__learning_rate": 0.1},
        {"learning_rates": [0.1], "models__hst__variant": "fast"},
    ],
    ids=str,
)
def test_a_setting_that_a_list_of_the_plan_would_override_is_refused(change):
    with pytest.raises(ValueError, match=r": remove '\w+'; runs take it from the plan's '\w+s'"):
        planned_runs(changed(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [0, 0]},
        {"models__wide": {"model": "hst", "size": 64}},
        {"corpora__1": {"dataset": "demo-hmdb51", "backbone": "demo", "size": 48}},
    ],
    ids=str,
)
def test_two_runs_of_one_id_are_refused(change):
    with pytest.raises(ValueError, match="the plan already has a run demo-hmdb51-hst-demo-s1-se"):
        planned_runs(changed(**change))


def test_no_folder_of_the_project_can_be_a_plans():
    if not (ROOT / ".git").is_dir():
        pytest.skip("not a checkout")
    made = {"build", "hstlib.egg-info"}  # by make and pip
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))}
    assert folders - made == SOURCES


def test_a_plan_may_write_to_a_folder_with_a_space():
    assert parse_plan(changed(build="build/my plan-1.0")).build == "build/my plan-1.0"


@pytest.mark.parametrize(
    ("overrides", "run_ids"),
    [
        (
            {"model": "trunk", "split": 2, "seed": 7},
            ["demo-hmdb51-hst-trunk-alone-demo-s2-seed7", "moves-hst-trunk-alone-demo-s2-seed7"],
        ),
        (
            {"dataset": "moves", "model": ["hst"]},
            ["moves-hst-demo-s3-seed0", "moves-hst-demo-s3-seed5"],
        ),
        (
            {"dataset": ["demo-hmdb51"], "model": "hst", "split": ["1", "3"], "seed": "5"},
            ["demo-hmdb51-hst-demo-s1-seed5", "demo-hmdb51-hst-demo-s3-seed5"],
        ),
    ],
    ids=str,
)
def test_data_set_model_split_and_seed_can_be_chosen_for_one_call(overrides, run_ids):
    assert list(planned_runs(PLAN, overrides)) == run_ids


def test_an_override_of_a_setting_holds_for_every_run_whatever_the_plan_says():
    runs = planned_runs(PLAN, {"epochs": "3", "size": 96, "learning_rate": "1e-5", "flip": "true"})
    assert runs.keys() == planned_runs(PLAN).keys()
    values = {(run.epochs, run.size, run.learning_rate, run.flip) for run in runs.values()}
    assert values == {(3, 96, 1e-5, True)}
    assert {run.batch_size for run in runs.values()} == {16}


def test_the_folder_can_be_overridden_and_the_plan_stays_as_it_is():
    before = copy.deepcopy(PLAN)
    assert parse_plan(PLAN, {"build": "build/other", "epochs": 1}).build == "build/other"
    assert before == PLAN and parse_plan(PLAN).build == "b"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"modle": "hst"}, "^unknown setting 'modle'; did you mean 'model'?"),
        ({"seeds": [1]}, "^unknown setting 'seeds'; did you mean 'seed'?"),
        ({"train": {"epochs": 1}}, "^unknown setting 'train'"),
        ({"resources": {"gpus": 1}}, "^unknown setting 'resources'"),
        ({"model": "c3d"}, "^model 'c3d' is not in the plan; use one of hst, trunk$"),
        ({"dataset": "x"}, "^dataset 'x' is not in the plan; use one of demo-hmdb51, moves$"),
        ({"epochs": "many"}, "epochs is 'many'; it must be a valid integer"),
        ({"epochs": 0}, "epochs is 0; it must be greater than or equal to 1"),
        ({"split": 4}, "split is 4"),
        ({"seed": "x"}, r"^seeds\[0\] is 'x'"),
        ({"build": "hstlib"}, "^build is 'hstlib'"),
        ({"batch_size": None}, "batch_size is None"),
    ],
    ids=str,
)
def test_an_override_that_is_unknown_or_wrong_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        planned_runs(PLAN, overrides)


def test_a_learning_rate_cannot_override_a_list_of_them():
    plan = changed(learning_rates=[0.1])
    with pytest.raises(ValueError, match="remove 'learning_rate'; runs take it from the plan's"):
        planned_runs(plan, {"learning_rate": 0.2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "a plan is a mapping of keys, not \\['a'\\]"),
        (b"a: [", "no YAML: while parsing"),
        (b"\xff\xfe\x00", "no YAML"),
    ],
    ids=str,
)
def test_a_file_that_is_no_plan_is_named(tmp_path, content, message):
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        read_plan(path)
    with pytest.raises(ValueError, match="no such plan"):
        read_plan(tmp_path / "other.yaml")


@pytest.fixture
def results(tmp_path) -> Path:
    return tmp_path / "results"


CONFIG = TrainConfig(dataset="folder", data_dir="x/moves", backbone="demo", epochs=20)


def test_a_run_is_finished_by_its_row_alone(results):
    assert run_state(CONFIG, results) == "not begun"
    row = make_row(**CONFIG.model_dump())
    write_record(row, results / CONFIG.run_id)
    assert run_state(CONFIG, results) == "begun"
    path = write_row(row, results)
    os.utime(path, (0, 0))
    same = CONFIG.model_copy(update={"num_workers": 4, "device": "cpu"})
    assert run_state(CONFIG, results) == run_state(same, results) == "finished"
    other = CONFIG.model_copy(update={"seed": 1})
    assert finished_runs([CONFIG, same, other], results) == {CONFIG.run_id}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"epochs": 40}, "finished with epochs 20 instead of 40"),
        ({"data_dir": "y/moves"}, "finished with data_dir 'x/moves' instead of 'y/moves'"),
    ],
    ids=str,
)
def test_the_run_itself_judges_other_epochs_and_another_place_of_the_data(results, change, state):
    write_row(make_row(**CONFIG.model_dump()), results)
    config = CONFIG.model_copy(update=change)
    assert run_state(config, results) == state and finished_runs([config], results) == set()


def test_a_row_with_other_settings_or_none_is_no_finished_run(results):
    path = write_row(make_row(**CONFIG.model_dump()), results)
    config = CONFIG.model_copy(update={"batch_size": 8, "size": 48})
    message = r"other settings \(batch_size 64 instead of 8, size 224 instead of 48\)"
    with pytest.raises(ValueError, match=message):
        run_state(config, results)
    assert finished_runs([config], results) == set()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{path}: not a results row"):
        run_state(CONFIG, results)
    assert finished_runs([CONFIG], results) == set()


@pytest.fixture
def checkout(tmp_path, class_folders, monkeypatch) -> Path:
    """A checkout with a plan for two tiny runs; returns the plan."""
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    plan = {
        "build": "build/tiny",
        "seeds": [0],
        "splits": [1],
        "corpora": [{"dataset": "folder", "data_dir": str(class_folders), "backbone": "demo"}],
        "train": {"batch_size": 4, "size": 16, "clips_per_video": 2, "epochs": 1},
        "models": {"hst": {}, "r3d": {}},
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command line; returns its standard output as lines, and its exit status."""

    def call(*arguments) -> tuple[list[str], object]:
        monkeypatch.setattr(sys, "argv", ["hstlib", "plan", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        return capsys.readouterr().out.splitlines(), status

    return call


def test_check_says_what_a_plan_costs(cli, checkout):
    lines, status = cli("check", checkout)
    assert status == 0 and lines[-1] == "no problem found"
    assert f"runs in {checkout.parent}/build/tiny/results: 0 finished, 0 begun, 2 in all" in lines
    assert "clips of moves: 0.0 GB, 12 videos (size 16, 2 per video)" in lines
    assert not (checkout.parent / "build").exists()


def test_check_of_the_papers_plan_knows_its_disk_before_any_video_is_here(cli, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("hstlib.commands.plans._free_gigabytes", lambda folder: 300.0)
    lines, status = cli("check", "workflow/params/paper.yaml")
    assert status == 1
    assert "clips of hmdb51: 152.1 GB, 6766 videos (size 224, 4 per video)" in lines
    assert "clips of ucf101: 299.4 GB, 13320 videos (size 224, 4 per video)" in lines
    totals = [line for line in lines if line.startswith("training runs: 72; ")]
    assert len(totals) == 1 and "135 GPU hours, estimated for H200 (runs: 72)" in totals[0]
    problems = [line for line in lines if line.startswith("problem: ")]
    assert len(problems) == 3 and "the clips need 452 GB, 300 GB are free" in problems[2]
    assert all("unpack the official split lists" in line for line in problems[:2])


def test_check_looks_at_the_disk_that_the_clips_are_written_to(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HST_CACHE", str(tmp_path / "cache"))
    lines, _ = cli("check", "workflow/params/paper.yaml")
    assert any(f"free for {tmp_path / 'cache/store'}, which has 0 GB" in line for line in lines)


def test_check_has_a_line_for_each_problem(cli, checkout):
    results = checkout.parent / "build/tiny/results"
    (config, other) = planned_runs(read_plan(checkout)).values()
    write_row(make_row(**config.model_dump() | {"size": 32}), results)
    write_row(make_row(**other.model_dump()), results).write_text("{")
    lines, status = cli("check", checkout, "batch_size=10")
    assert status == 1
    problems = [line for line in lines if line.startswith("problem: ")]
    assert len(problems) == 3
    assert "(size 32 instead of 16, batch_size 4 instead of 10)" in problems[0] or (
        "(batch_size 4 instead of 10, size 32 instead of 16)" in problems[0]
    )
    assert "row.json: not a results row" in problems[1]
    assert "batch_size 10 is larger than the 8 training videos of split 1" in problems[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("modle=hst", "error: unknown setting 'modle'; did you mean 'model'?"),
        ("epochs", "error: 'epochs' is not name=value, such as epochs=3"),
        ("num_frames=8", "expected (B, 3, 16, H, W)"),
        ("data_dir=nowhere", "problem: nowhere: "),
    ],
)
def test_a_wrong_change_ends_with_1(cli, checkout, change, message):
    lines, status = cli("check", checkout, change)
    assert message in "\n".join([*lines, str(status)]) and status not in (0, None)


def test_list_shows_every_run_and_the_state_of_its_code(cli, checkout):
    config, other = planned_runs(read_plan(checkout)).values()
    results = checkout.parent / "build/tiny/results"
    write_row(make_row(0.75, **config.model_dump()), results)
    assert cli("list", checkout)[0] == [
        "moves-hst-demo-s1-seed0  finished  top-1 0.7500  code: unknown",
        "moves-r3d-demo-s1-seed0  not begun",
    ]
    assert cli("list", checkout, "model=r3d")[0] == ["moves-r3d-demo-s1-seed0  not begun"]
    assert (
        f"{results / config.run_id} holds a run with other settings"
        in (cli("list", checkout, "size=48")[0][0])
    )


def test_rerun_keeps_finished_runs_under_another_name(cli, checkout):
    results = checkout.parent / "build/tiny/results"
    config, other = planned_runs(read_plan(checkout)).values()
    rows = []
    for top1 in (0.25, 0.5):
        times = [*(rows[-1].test_evaluations if rows else []), f"time {top1}"]
        row = make_row(top1, **config.model_dump())
        rows.append(row.model_copy(update={"test_evaluations": times}))
        path = write_row(rows[-1], results)
        (path.parent / "last.safetensors").write_text(str(top1))
        record = {name: getattr(rows[-1], name) for name in RunRecord.model_fields}
        write_record(RunRecord(**record), path.parent)
        lines, status = cli("rerun", checkout, "model=[hst, r3d]")
        assert status == 0 and lines[1] == f"{other.run_id}  not finished"
        assert run_state(config, results) == "begun"
        assert load_record(path.parent).test_evaluations == times
        assert [file.name for file in path.parent.iterdir()] == ["run.json"]
    for number, row in enumerate(rows, start=1):
        kept = results / "earlier" / f"{config.run_id}-{number}"
        assert load_row(kept / "row.json") == row
        assert (kept / "last.safetensors").read_text() == str(row.test["top1"])
    assert lines[0] == f"{config.run_id}  kept in {kept}"
