"""The benchmark of the training step measures every variant, and its counts are right."""

import json
import sys
from types import ModuleType

import common
import numpy as np
import pytest
import torch
import train_step
from torch import nn

from hstlib.book.architecture import multiply_adds
from hstlib.book.cost import roofline
from hstlib.model import HST


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Function that measures with given options and returns the results."""

    def measure_with(*arguments: str) -> dict:
        file = tmp_path / "results.json"
        sizes = ["--size=16", "--batch=2", "--steps=2", f"--out={file}"]
        monkeypatch.setattr("sys.argv", ["train_step.py", *sizes, *arguments])
        train_step.main()
        return json.loads(file.read_text())

    return measure_with


def names(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["model"], row["variant"]) for row in rows]


def test_every_variant_that_needs_no_compiler_is_measured(measure):
    variants = train_step.VARIANTS
    eager = [name for name, switches in variants.items() if "compile" not in switches]
    result = measure("--models", "hst", "r3d", "--variants", *eager, "--profile")
    both = [name for name in eager if not variants[name] & train_step.HST_ONLY]
    assert names(result["training"]) == [("hst", k) for k in eager] + [("r3d", k) for k in both]
    detailed = [(m, k) for m in ("hst", "r3d") for k in both if k in train_step.DETAILED]
    assert names(result["inference"]) == names(result["profile"]) == detailed
    assert not any("error" in row for row in result["training"])
    for row in result["training"] + result["inference"]:
        assert row["clips_per_second"] == pytest.approx(2000 / row["milliseconds"], rel=1e-3)
        assert 0 < row["share_of_matrix_rate"] < 2  # other programs disturb both measurements
    for row in result["profile"]:
        assert sum(row["classes"].values()) == pytest.approx(1, abs=0.01)
        assert row["classes"]["convolution"] > 0.1 and row["classes"]["optimiser"] > 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler itself
def test_compiled_variants_are_measured(measure):
    result = measure("--models", "hst", "--variants", "compiled", "compiled, fused Adam")
    assert names(result["training"]) == [("hst", "compiled"), ("hst", "compiled, fused Adam")]
    assert not any("error" in row for row in result["training"])


def test_operations_and_kept_memory_are_those_of_the_model(measure):
    (row,) = measure("--models", "hst", "--variants", "float32")["models"]
    forward = 2 * multiply_adds(lambda: HST(51, "demo"), 16) / 1e9
    assert row["gflop_inference"] == pytest.approx(forward, rel=1e-3)
    assert 2.5 < row["gflop_training"] / forward < 3.1  # frames need no gradient


def test_a_step_is_compared_with_arithmetic_and_copies_at_their_best(measure):
    model = {
        "gflop_training": 30,
        "moved_gigabytes_float32": 4,
        "moved_gigabytes_per_step": 2,
    }
    assert roofline(model, 3, gflops=10, gigabytes=7) == 3 * 30 / 10 + (3 * 4 + 2) / 7
    result = measure("--models", "r3d", "--variants", "float32", "bfloat16")
    assert result["device"] == "cpu"
    single, half = result["training"]
    ideal = roofline(
        result["models"][0],
        2,
        1000 * result["matrix_teraflops"]["float32"],
        result["copied_gigabytes_per_second"],
    )
    assert single["times_roofline"] == pytest.approx(
        single["milliseconds"] / ideal / 1000, rel=0.01
    )
    assert single["times_roofline"] > 0.5 and "times_roofline" not in half


def test_every_size_has_a_file_of_its_own(monkeypatch):
    files = []
    monkeypatch.setattr(train_step, "write", lambda path, content: files.append(path))
    for size in ("16", "32"):
        arguments = ["--models=r3d", "--variants=float32", "--batch=2", "--steps=1"]
        monkeypatch.setattr("sys.argv", ["train_step.py", f"--size={size}", *arguments])
        train_step.main()
    assert [path.name for path in files] == [f"train_step_cpu_demo_{n}.json" for n in (16, 32)]
    assert {path.parent for path in files} == {common.RESULTS}


def test_a_variant_that_fails_costs_its_own_rows_only(measure, monkeypatch):
    def fail(step, options):
        raise torch.OutOfMemoryError("too large\nfor this GPU")

    monkeypatch.setattr(train_step, "infer", fail)
    result = measure("--models", "hst", "--variants", "channels last")
    measured, failed = result["training"]
    assert measured["clips_per_second"] > 0
    assert failed == {"model": "hst", "variant": "channels last", "error": "too large"}


def test_ratios_are_taken_within_a_turn(monkeypatch):
    clock = iter(np.cumsum([0, 1, 2, 10, 20]).tolist())
    monkeypatch.setattr(common.time, "process_time", lambda: next(clock))
    calls = []
    works = [lambda: calls.append("a"), lambda: calls.append("b")]
    taken = common.time_in_turns(works, 2)
    assert taken.tolist() == [[1, 10], [2, 20]]
    assert "".join(calls) == "ab" + "abab"  # to warm up, and timed


def test_models_of_torchvision_are_measured_beside_ours(measure, monkeypatch):
    """With a stand-in for torchvision, which this environment need not have."""

    def r3d_18(num_classes: int) -> nn.Module:
        layers = nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.AdaptiveAvgPool3d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(4, num_classes))

    for name in ("torchvision", "torchvision.models", "torchvision.models.video"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["torchvision.models.video"].r3d_18 = r3d_18
    monkeypatch.setattr(train_step, "PEERS", ("r3d_18",))
    result = measure("--models", "r3d_18", "--variants", "plain", "float32", "bfloat16")
    assert names(result["training"]) == [("r3d_18", "float32"), ("r3d_18", "bfloat16")]
    assert result["models"][0]["gflop_inference"] == pytest.approx(
        2 * (3 * 27 * 4 * 14**3 + 4 * 51) / 1e9, rel=1e-3
    )


def test_plain_and_library_steps_start_from_the_same_weights():
    options = type("Options", (), {"backbone": "demo", "size": 16})
    plain, library = (
        train_step.Step("hst", switches, 2, options) for switches in ({"unfolded"}, set())
    )
    assert torch.equal(plain.clips, library.clips)
    logits = []
    for step in (plain, library):
        torch.manual_seed(1)  # the noise
        logits.append(step.forward())
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)


class FakeEvent:
    """Stands in for an event of a GPU: one every 2, 3, 4 ... milliseconds."""

    made = 0

    def __init__(self):
        FakeEvent.made += 1
        self.number = FakeEvent.made

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert end.number == self.number + 1
        return float(end.number)


def test_on_a_gpu_the_time_is_that_between_events(monkeypatch):
    monkeypatch.setattr(common, "CUDA", True)
    monkeypatch.setattr(common, "_now", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    taken = common.time_in_turns([bool], 3)
    np.testing.assert_allclose(taken, [[0.002, 0.003, 0.004]])


@pytest.mark.parametrize(("per_clip", "batch"), [(1, 32), (1.9, 32), (2, 16), (4, 8), (70, 1)])
def test_the_largest_power_of_two_within_the_memory_is_taken(monkeypatch, per_clip, batch):
    monkeypatch.setattr(train_step, "CUDA", True)
    monkeypatch.setattr(train_step, "Step", lambda name, switches, batch, options: batch)
    monkeypatch.setattr(train_step, "peak_gigabytes", lambda step: 1 + per_clip * step)
    options = type("Options", (), {"memory": 64})
    assert train_step.pick_batch("hst", {"bf16"}, options) == batch
    assert batch == 1 or 1 + per_clip * batch <= 64 < 1 + per_clip * 2 * batch
