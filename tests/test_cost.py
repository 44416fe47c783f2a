"""The cost of runs from measured steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hstlib.book.cost import (
    GPU,
    H200,
    P100,
    Measurements,
    arithmetic_table,
    cost_table,
    describe_cost,
    hours_at_share,
    memory_table,
    store_gigabytes,
)
from hstlib.config import ClipConfig, TrainConfig, project_root
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
    assert text.endswith("training runs: 4; 4 GPU hours, measured (runs: 2)")
    assert "not known" in text


def test_without_a_measurement_there_are_no_hours(tmp_path):
    text = describe_cost([run()], Measurements.load(tmp_path))
    assert text.endswith("training runs: 1; their hours are not known (benchmarks/train_step.py)")


def test_operations_and_hours_at_a_share_by_hand(tmp_path):
    measurements = measured(tmp_path, "cpu", times_roofline=1.5)
    flop = measurements.training_flop(run())
    assert flop == STEPS * 64 * 2000e9
    assert measurements.training_flop(run(model="r3d")) is None
    assert measurements.training_flop(run(dataset="demo-hmdb51")) is None
    gpu = GPU("slow", 2, 1, 8)
    assert hours_at_share(flop, gpu, 0.25) == pytest.approx(flop / 0.5e12 / 3600)


def test_the_estimate_implies_a_share_of_the_peak(tmp_path):
    """Without traffic, 1.5 times the roofline is two thirds of the peak."""
    measurements = measured(tmp_path, "cpu", times_roofline=1.5)
    gpu = GPU("unlimited traffic", 2, 1e9, 8)
    runs = [run(), run(), run(model="r3d")]
    table = arithmetic_table(runs, measurements, [gpu, P100])
    known, unknown = table.loc["hmdb51", "hst", "resnet21"], table.loc["hmdb51", "r3d", "resnet21"]
    assert known["share of peak, unlimited traffic"] == pytest.approx(2 / 3)
    assert known["share of peak, P100"] < 2 / 3
    assert known["operations"] == 2 * measurements.training_flop(run())
    assert unknown.isna().all()


def test_a_batch_over_gpus_keeps_its_part_on_each(tmp_path):
    measurements = measured(tmp_path, "cpu")
    runs = [run(accumulation_steps=8), run(model="r3d")]
    table = memory_table(runs, measurements, GPU("large", 1, 1, 65), 4)
    assert table.columns.tolist() == ["clips per GPU", "kept per GPU (GB)", "less than 65 GB"]
    assert table.loc["hmdb51", "hst", "resnet21"].tolist() == [16, 64, True]
    assert table.loc["hmdb51", "r3d", "resnet21"].isna().tolist() == [False, True, True]
    assert not memory_table(runs[:1], measurements, P100, 4)["less than 16 GB"].any()


def runs_of_the_paper() -> list[TrainConfig]:
    plan = project_root() / "workflow/params/paper.yaml"
    return list(planned_runs(yaml.safe_load(plan.read_text())).values())


def test_the_papers_plan_in_operations_and_memory():
    measurements = Measurements.load(project_root() / "benchmarks/results")
    runs = runs_of_the_paper()
    table = arithmetic_table(runs, measurements, [H200, P100])
    total = table["operations"].sum()
    assert total == pytest.approx(7.2e19, rel=0.01)
    hours = [hours_at_share(total, H200, share) for share in (0.15, 0.25, 0.4)]
    assert hours == pytest.approx([336, 202, 126], rel=0.01)
    shares = table[["share of peak, H200", "share of peak, P100"]].max().tolist()
    assert shares == pytest.approx([0.83, 1.13], abs=0.01)  # C3D; no GPU exceeds its peak
    memory = memory_table(runs, measurements, P100, 4)
    fits = memory["less than 16 GB"].xs("resnet21", level="backbone")
    assert fits.droplevel("corpus").to_dict() == {
        "hst": False, "c3d": True, "r2plus1d": False, "r3d": True
    }  # fmt: skip


def test_every_run_of_the_papers_plan_has_an_estimate():
    runs = runs_of_the_paper()
    table = cost_table(runs, Measurements.load(project_root() / "benchmarks/results"))
    assert table["runs"].tolist() == [9] * 8  # three splits, three seeds
    assert table[f"GPU hours, estimated for {H200.name}"].notna().all()
    assert table["kept (GB)"].max() < 48  # with its accumulation, common GPUs hold it


def test_the_size_of_a_store_is_that_of_its_arrays(tmp_path):
    clip = ClipConfig(size=16, clips_per_video=3, num_frames=4)
    frames = np.zeros((5, 3, 4, 16, 16, 3), np.uint8)
    flow = np.zeros((5, 3, 2, 4, 16, 16), np.float16)
    assert store_gigabytes(clip, 5) == (frames.nbytes + flow.nbytes) / 1e9
