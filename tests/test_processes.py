import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hstlib.processes import WorkerError, map_in_processes

BAD_WORK = """
import os, time

def fail(item):
    if item == "raise":
        raise KeyError(item)
    if item == "crash":
        os.abort()
    if item == "hang":
        time.sleep(60)
    return item.upper()
"""


@pytest.fixture
def fail(tmp_path, monkeypatch):
    """A function in a module that worker processes can import."""
    (tmp_path / "bad_work.py").write_text(BAD_WORK)
    monkeypatch.syspath_prepend(tmp_path)
    import bad_work

    yield bad_work.fail
    del sys.modules["bad_work"]


def children() -> set[str]:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    processes = {child for file in listed for child in file.read_text().split()}
    tracker = "multiprocessing.resource_tracker"
    return {p for p in processes if tracker not in Path(f"/proc/{p}/cmdline").read_text()}


def test_a_crash_or_time_out_costs_its_own_item_only(fail):
    items = ["crash", *"abcdefgh", "hang", *"ijkl"]
    outcomes = dict(map_in_processes(fail, items, 2, 1.5))
    errors = {item: error for item, error in outcomes.items() if isinstance(error, WorkerError)}
    assert {item: error.timed_out for item, error in errors.items()} == {
        "crash": False,
        "hang": True,
    }
    assert [outcomes[item] for item in "abcdefghijkl"] == list("ABCDEFGHIJKL")
    assert str(errors["crash"]) == "crash: its worker process crashed (exit code -6)"
    assert (errors["crash"].exit_code, errors["hang"].exit_code) == (-signal.SIGABRT, None)


def kill_workers(before: set[str]) -> None:
    time.sleep(0.5)  # they have done what they were given, so they are idle
    workers = children() - before
    assert len(workers) == 2
    for process in workers:
        os.kill(int(process), signal.SIGKILL)


def test_idle_workers_that_are_killed_are_replaced(fail):
    before, outcomes = children(), []
    for result in map_in_processes(fail, "abcdefghijkl", 2):
        if not outcomes:
            kill_workers(before)
        outcomes.append(result)
    assert sorted(outcomes) == [(item, item.upper()) for item in "abcdefghijkl"]


def test_an_exception_is_raised_and_ends_the_workers(fail):
    before = children()
    with pytest.raises(KeyError, match="raise"):
        list(map_in_processes(fail, ["raise", *"abc", "hang"], 2))
    assert children() <= before


def test_workers_end_when_the_results_are_no_longer_wanted(fail):
    before = children()
    results = map_in_processes(fail, [*"abc", "hang"], 2)
    next(results)
    results.close()
    assert children() <= before


def test_no_items_start_no_process(fail, monkeypatch):
    monkeypatch.setattr("hstlib.processes._process_pool", lambda workers: pytest.fail("starts"))
    assert list(map_in_processes(fail, [])) == []


PARENT = """
import os, time
from hstlib.processes import map_in_processes

def work(item):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    list(map_in_processes(work, range(9), 2))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_busy_workers_end_with_their_parent(tmp_path, how):
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, tmp_path / "parent.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as parent:
        workers = [Path("/proc", parent.stdout.readline().strip()) for _ in range(2)]
        parent.send_signal(how)
    deadline = time.monotonic() + 10
    while any(map(Path.exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(set(workers)) == 2 and not any(map(Path.exists, workers))
