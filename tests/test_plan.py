"""The time of a plan, from measured steps."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "workflow"))
import plan

RUN = {"dataset": "hmdb51", "model": "hst", "backbone": "resnet21", "size": 224, "epochs": 100}


def measured(folder: Path, device: str, size: int = 224, **row) -> Path:
    content = {
        "settings": {"backbone": "resnet21", "size": size},
        "training": [{"model": "hst", "variant": "channels last", "clips_per_second": 50} | row],
    }
    (folder / f"train_step_{device}.json").write_text(json.dumps(content))
    return folder


def test_hours_by_hand(tmp_path):
    found = plan.hours(RUN, measured(tmp_path, "gpu"))
    assert found == pytest.approx(100 * 3570 / 50 / 3600)
    assert plan.summary([RUN, RUN], tmp_path) == "2 training runs, about 4 GPU hours for 2 of them"


@pytest.mark.parametrize("row", [{"size": 112}, {"model": "r3d"}, {"variant": "bfloat16"}])
def test_other_measurements_do_not_count(tmp_path, row):
    assert plan.hours(RUN, measured(tmp_path, "gpu", **row)) is None


def test_without_a_gpu_there_are_no_hours(tmp_path):
    assert plan.hours(RUN, measured(tmp_path, "cpu")) is None
    text = plan.summary([RUN], tmp_path)
    assert text.startswith("1 training runs; of 1 no training step was measured on a GPU")


def test_precision_chooses_the_measurement(tmp_path):
    folder = measured(tmp_path, "gpu", variant="compiled")
    assert plan.hours(RUN, folder) is None
    assert plan.hours(RUN | {"precision": "bf16", "compile_model": True}, folder) is not None
