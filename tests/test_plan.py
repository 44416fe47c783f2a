"""The runs of a plan, and what a plan's file may not say."""

import copy
from typing import Any

import pytest

from hstlib.config import TrainConfig
from hstlib.training.plan import parse_plan, planned_runs

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
