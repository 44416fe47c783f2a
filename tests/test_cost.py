"""The cost of runs from measured steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hstlib.book.cost import H200, Measurements, cost_table, describe_cost
from hstlib.config import TrainConfig, project_root
from hstlib.training.plan import planned_runs

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


def run(**settings) -> TrainConfig:
    return TrainConfig(**RUN | settings)


def measured(folder: Path, device: str, size: int = 224, model: str = "hst", **row) -> Measurements:
    """Return what the benchmark would have measured, from a file as it writes them."""
    times = {"model": model, "variant": "channels last", "clips_per_second": 50}
    content = {
        "device": device,
        "settings": {"backbone": "resnet21", "size": size},
        "models": [MODEL | {"model": model}],
        "training": [times | row],
    }
    (folder / f"train_step_{device}_{size}.json").write_text(json.dumps(content))
    return Measurements.load(folder)


def test_measured_hours_by_hand(tmp_path):
    measurements = measured(tmp_path, "cuda")
    assert measurements.measured_hours(run()) == pytest.approx(STEPS * 64 / 50 / 3600)
    assert measurements.estimated_hours(run(), H200) is None


def test_estimated_hours_by_hand(tmp_path):
    measurements = measured(tmp_path, "cpu", times_roofline=1.5)
    arithmetic, traffic = 64 * 2000e9 / 395e12, (64 * 50e9 + 3e9) / 4.3e12
    hours = STEPS * 1.5 * (arithmetic + traffic) / 3600
    assert measurements.estimated_hours(run(), H200) == pytest.approx(hours)
    assert measurements.measured_hours(run()) is None


@pytest.mark.parametrize(
    "other", [{"size": 112}, {"model": "r3d"}, {"variant": "bfloat16"}, {"error": "out of memory"}]
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_measurements_do_not_count(tmp_path, device, other):
    measurements = measured(tmp_path, device, **({"times_roofline": 2} | other))
    assert measurements.measured_hours(run()) is None
    assert measurements.estimated_hours(run(), H200) is None


def test_precision_and_checkpointing_choose_the_measurement(tmp_path):
    measurements = measured(tmp_path, "cuda", variant="compiled")
    assert measurements.measured_hours(run()) is None
    compiled = {"precision": "bf16", "compile": True}
    assert measurements.measured_hours(run(**compiled)) is not None
    assert measurements.measured_hours(run(**compiled, activation_checkpointing=True)) is None
    assert (
        measurements.measured_hours(run(**compiled | {"size": 256, "crop_size": 224})) is not None
    )
    assert measurements.kept_gigabytes(run(**compiled)) is None


def test_a_batch_in_parts_keeps_one_part(tmp_path):
    measurements = measured(tmp_path, "cpu")
    assert measurements.kept_gigabytes(run()) == 64 * 4
    assert measurements.kept_gigabytes(run(accumulation_steps=8)) == 8 * 4


def test_cost_is_summed_by_model_and_says_what_is_not_known(tmp_path):
    measurements = measured(tmp_path, "cuda")
    runs = [run(), run(), run(model="r3d"), run(dataset="demo-hmdb51")]
    table = cost_table(runs, measurements)
    assert table["runs"].tolist() == [2, 1, 1]
    hours = table["GPU hours, measured"].tolist()
    assert hours[0] == pytest.approx(2 * measurements.measured_hours(run()))
    assert np.isnan(hours[1:]).all()
    assert table["kept (GB)"].iloc[0] == 256
    text = describe_cost(runs, measurements)
    assert text.endswith("4 training runs; 4 GPU hours, measured (2 runs)")
    assert "not known" in text


def test_without_a_measurement_there_are_no_hours(tmp_path):
    text = describe_cost([run()], Measurements.load(tmp_path))
    assert text.endswith("1 training runs; their hours are not known (benchmarks/train_step.py)")


def test_every_run_of_the_papers_plan_has_an_estimate():
    plan = project_root() / "workflow/params/paper.yaml"
    runs = planned_runs(yaml.safe_load(plan.read_text())).values()
    table = cost_table(runs, Measurements.load(project_root() / "benchmarks/results"))
    assert table["runs"].tolist() == [9] * 8  # three splits, three seeds
    assert table[f"GPU hours, estimated for {H200.name}"].notna().all()
    assert table["kept (GB)"].max() < 48  # with its accumulation, common GPUs hold it
