"""The runs of a plan, and their cost from measured steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hstlib.config import project_root
from hstlib.plan import (
    H200,
    cost_table,
    describe_cost,
    estimated_hours,
    kept_gigabytes,
    measured_hours,
    planned_runs,
)

RUN = {
    "dataset": "hmdb51",
    "model": "hst",
    "backbone": "resnet21",
    "size": 224,
    "epochs": 100,
    "batch_size": 64,
}
STEPS = 100 * (3570 // 64)
MODEL = {
    "model": "hst",
    "gflop_training": 2000,
    "kept_gigabytes_float32": 4,
    "moved_gigabytes_float32": 50,
    "moved_gigabytes_per_step": 3,
}


def measured(folder: Path, device: str, size: int = 224, model: str = "hst", **row) -> Path:
    first = {"model": model, "variant": "channels last", "clips_per_second": 50}
    content = {
        "device": device,
        "settings": {"backbone": "resnet21", "size": size},
        "models": [MODEL | {"model": model}],
        "training": [first | row],
    }
    (folder / f"train_step_{device}_{size}.json").write_text(json.dumps(content))
    return folder


def test_what_is_said_of_a_corpus_overrides_a_model_and_that_overrides_all():
    plan = {
        "build": "b",
        "splits": [1, 2],
        "seeds": [0, 5],
        "train": {"batch_size": 16, "epochs": 1, "size": 32},
        "models": {"hst": {"epochs": 2, "size": 48}, "mix": {"model": "hst", "reading": "mix"}},
        "corpora": [
            {"dataset": "demo-hmdb51", "backbone": "demo", "size": 64},
            {"dataset": "folder", "data_dir": "x/moves", "backbone": "demo", "splits": [3]},
        ],
    }
    runs = planned_runs(plan)
    assert len(runs) == (2 + 1) * 2 * 2
    assert runs["demo-hmdb51-hst-demo-s2-seed5"] == {
        "dataset": "demo-hmdb51",
        "backbone": "demo",
        "model": "hst",
        "batch_size": 16,
        "epochs": 2,
        "size": 64,
        "learning_rate": 0,
        "split": 2,
        "seed": 5,
        "results_dir": "b/results",
    }
    run = runs["moves-hst-mix-demo-s3-seed0"]
    assert (run["reading"], run["epochs"], run["size"], run["split"]) == ("mix", 1, 32, 3)


def test_measured_hours_by_hand(tmp_path):
    found = measured_hours(RUN, measured(tmp_path, "cuda"))
    assert found == pytest.approx(STEPS * 64 / 50 / 3600)
    assert estimated_hours(RUN, H200, tmp_path) is None


def test_estimated_hours_by_hand(tmp_path):
    found = estimated_hours(RUN, H200, measured(tmp_path, "cpu", times_roofline=1.5))
    arithmetic, traffic = 64 * 2000e9 / 395e12, (64 * 50e9 + 3e9) / 4.3e12
    assert found == pytest.approx(STEPS * 1.5 * (arithmetic + traffic) / 3600)
    assert measured_hours(RUN, tmp_path) is None


@pytest.mark.parametrize(
    "other", [{"size": 112}, {"model": "r3d"}, {"variant": "bfloat16"}, {"error": "out of memory"}]
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_measurements_do_not_count(tmp_path, device, other):
    measured(tmp_path, device, **({"times_roofline": 2} | other))
    assert measured_hours(RUN, tmp_path) is None
    assert estimated_hours(RUN, H200, tmp_path) is None


def test_precision_and_recomputation_choose_the_measurement(tmp_path):
    folder = measured(tmp_path, "cuda", variant="compiled")
    assert measured_hours(RUN, folder) is None
    compiled = RUN | {"precision": "bf16", "compile_model": True}
    assert measured_hours(compiled, folder) is not None
    assert measured_hours(compiled | {"recompute": True}, folder) is None
    assert measured_hours(compiled | {"size": 256, "crop": 224}, folder) is not None
    assert kept_gigabytes(compiled, folder) is None


def test_a_batch_in_parts_keeps_one_part(tmp_path):
    folder = measured(tmp_path, "cpu")
    assert kept_gigabytes(RUN, folder) == 64 * 4
    assert kept_gigabytes(RUN | {"accumulation": 8}, folder) == 8 * 4


def test_cost_is_summed_by_model_and_says_what_is_not_known(tmp_path):
    folder = measured(tmp_path, "cuda")
    runs = [RUN, RUN, RUN | {"model": "r3d"}, RUN | {"dataset": "demo-hmdb51"}]
    table = cost_table(runs, folder)
    assert table["runs"].tolist() == [2, 1, 1]
    hours = table["GPU hours, measured"].tolist()
    assert hours[0] == pytest.approx(2 * measured_hours(RUN, folder))
    assert np.isnan(hours[1:]).all()
    assert table["kept (GB)"].iloc[0] == 256
    text = describe_cost(runs, folder)
    assert text.endswith("4 training runs; 4 GPU hours, measured (2 runs)")
    assert "not known" in text


def test_without_a_measurement_there_are_no_hours(tmp_path):
    text = describe_cost([RUN], tmp_path)
    assert text.endswith("1 training runs; their hours are not known (benchmarks/train_step.py)")


def test_every_run_of_the_papers_plan_has_an_estimate():
    plan = project_root() / "workflow/params/paper.yaml"
    table = cost_table(planned_runs(yaml.safe_load(plan.read_text())).values())
    assert table["runs"].tolist() == [9] * 8  # three splits, three seeds
    assert table[f"GPU hours, estimated for {H200.name}"].notna().all()
    assert table["kept (GB)"].max() < 48  # with its accumulation, common GPUs hold it
