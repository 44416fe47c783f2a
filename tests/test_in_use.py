"""Tables of trained models in use are made of the results of the benchmarks."""

import pytest

from hstlib.book.in_use import (
    COLUMNS,
    DELAY,
    latency_conditions,
    latency_table,
    probe_table,
    read_results,
)
from hstlib.inference.probe import ABOUT

SPEED = {
    "hardware": "a CPU, one thread",
    "load_average": 1.25,
    "settings": {"every": 0.5},
    "rows": [
        {"model": "hst", "backbone": "demo", "size": 48, "latency_milliseconds": 47.21}
        | {"videos_per_second": 1234.5, "stream_shortest_delay_milliseconds": None},
        {"model": "c3d", "backbone": "resnet21", "size": 224, "skipped": "does not fit"},
    ],
}
RUN = {"run_id": "jhmdb-r3d-demo-s2-seed0", "dataset": "jhmdb", "split": 2, "chance": 4.76}
OTHER = RUN | {"run_id": "jhmdb-r3d-flow-demo-s2-seed0"}
ROW = {"run_id": RUN["run_id"], "name": "one frame", "top1": 20.0, "low": 10.0, "high": 30.0}


def test_every_measurement_is_shown_with_three_digits_and_a_reason_where_there_is_none():
    table = latency_table(SPEED)
    assert table["model"].tolist() == ["HST", "C3D"]
    assert table["size"].tolist() == ["demo, 48", "resnet21, 224"]
    assert table[COLUMNS["latency_milliseconds"]].tolist() == ["47.2", "does not fit"]
    assert table[COLUMNS["videos_per_second"]].tolist() == ["1234", ""]
    assert table[COLUMNS["stream_shortest_delay_milliseconds"]].tolist() == ["", ""]
    said = latency_conditions(SPEED)
    assert "1.2 ran" in said and "every 0.5 s" in said and "a CPU, one thread" in said


def test_delays_of_a_busy_machine_are_not_shown():
    busy = SPEED | {"load_average": 9.0}
    assert DELAY in latency_table(SPEED) and DELAY not in latency_table(busy)
    assert "is therefore not shown" in latency_conditions(busy)


def test_every_probe_has_a_row_and_every_run_a_column():
    rows = [ROW, ROW | {"run_id": OTHER["run_id"], "top1": 25.0}, ROW | {"name": "length"}]
    table = probe_table({"runs": [RUN, OTHER], "rows": rows}, ABOUT).set_index("clips")
    assert table.index.tolist() == ["one frame", "length", "chance"]
    titles = ["R3D, J-HMDB split 2 (%)", "R3D with flow, J-HMDB split 2 (%)"]
    assert table.columns.tolist() == ["what", *titles]
    assert table.loc["one frame"].tolist() == [
        "middle frame repeated, flow 0", "20.0 [10.0, 30.0]", "25.0 [10.0, 30.0]",
    ]  # fmt: skip
    assert table.loc["chance", titles[1]] == "4.8"


def test_a_missing_file_is_named_with_the_benchmark(tmp_path):
    with pytest.raises(ValueError, match=r"no .*latency\.json; run benchmarks/latency\.py"):
        read_results(tmp_path / "latency.json")
