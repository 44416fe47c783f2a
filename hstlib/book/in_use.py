"""Tables of trained models in use: how fast they are, and what their accuracy is made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hstlib.book.paper import ALL_TITLES, DATASET_TITLES

LATENCY = "benchmarks/results/latency.json"
PROBED = "benchmarks/results/probe.json"

COLUMNS = {
    "latency_milliseconds": "one video (ms)",
    "reading_milliseconds": "of which reading and flow (ms)",
    "model_milliseconds": "of which network (ms)",
    "videos_per_second": "videos per second, in batches",
    "stream_work_milliseconds": "a window of a stream (ms)",
    "stream_shortest_delay_milliseconds": "its delay, at least (ms)",
}
"""Columns of :func:`latency_table`, by the name of the measurement."""
DELAY = COLUMNS["stream_shortest_delay_milliseconds"]
BUSY = 2.0
"""Load average of a machine on which a delay says more about other programs than about a model."""


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file of the benchmarks.

    Raises:
        ValueError: If there is no such file; the message names it and the benchmark.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}; run benchmarks/{path.stem}.py")
    return json.loads(path.read_text())


def latency_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the speed of every model at every size; one that was not measured says why.

    Delays are left out if the machine was :data:`BUSY`.

    Args:
        measured: Content of :data:`LATENCY`.
    """
    lines = []
    for row in measured["rows"]:
        name = {"model": ALL_TITLES[row["model"]], "size": f"{row['backbone']}, {row['size']}"}
        values = {title: _digits(row.get(key)) for key, title in COLUMNS.items()}
        if "skipped" in row:
            values[COLUMNS["latency_milliseconds"]] = row["skipped"]
        lines.append(name | values)
    table = pd.DataFrame(lines)
    return table.drop(columns=DELAY) if measured["load_average"] > BUSY else table


def _digits(value: float | None) -> str:
    """Write a measurement with three digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def latency_conditions(measured: dict[str, Any]) -> str:
    """Say how the speed was measured, and how busy the machine was."""
    load, settings = measured["load_average"], measured["settings"]
    delay = "A delay is a time on the clock."
    if load > BUSY:
        delay = "They would lengthen the delay of a stream, which is therefore not shown."
    return (
        f"Processor time on one core ({measured['hardware']}), which does not count waiting for "
        f"other programs, of which {load:.1f} ran on average. {delay} Videos are one second long; "
        f"a stream gives a window every {settings['every']:g} s."
    )


def probe_table(measured: dict[str, Any], about: Mapping[str, str]) -> pd.DataFrame:
    """Tabulate top-1 of every probed model under every probe, then what needs no network.

    Args:
        measured: Content of :data:`PROBED`.
        about: What each probe and reference is, by name.

    Returns:
        One row per probe or reference: its name, what it is, and for each run the accuracy in
        percent with its interval.
    """
    titles = {run["run_id"]: _run_title(run) for run in measured["runs"]}
    table: dict[str, dict[str, str]] = {}
    for row in measured["rows"]:
        line = table.setdefault(row["name"], {"what": about[row["name"]]})
        line[titles[row["run_id"]]] = f"{row['top1']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
    table["chance"] = {"what": "1 / classes"} | {
        titles[run["run_id"]]: f"{run['chance']:.1f}" for run in measured["runs"]
    }
    return pd.DataFrame.from_dict(table, "index").rename_axis("clips").reset_index()


def _run_title(run: dict[str, Any]) -> str:
    """Return the title of a probed run: the model, and the data set and split it was tested on."""
    name = next(title for model, title in ALL_TITLES.items() if f"-{model}-demo-s" in run["run_id"])
    return f"{name}, {DATASET_TITLES.get(run['dataset'], run['dataset'])} split {run['split']} (%)"
