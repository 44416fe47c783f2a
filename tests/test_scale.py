"""Time, memory and progress for many tiny videos; the ratios hold for a larger number as well."""

import logging
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data import progress
from hstlib.data.cache import cache_root
from hstlib.data.datasets import load_dataset
from hstlib.data.index import INDEX, Index, StoredVideo, write_index
from hstlib.data.inspection import inspect_file
from hstlib.data.store import VERSION, ClipStore, prepare_store
from hstlib.data.verify import manifest_path, verify

CLIP = ClipConfig(size=16, num_frames=2)
SMALL, LARGE = 60, 300


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, video_file) -> Callable[[int], Path]:
    """Makes a folder of real 8 x 8 videos, each with its own content."""
    top = tmp_path_factory.mktemp("tiny")
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    content = video_file(top / "one.mp4", frames).read_bytes()

    def make(count: int) -> Path:
        root = top / str(count)
        for number in range(0 if root.is_dir() else count):
            path = root / f"class{number % 10}" / f"v_class{number % 10}_g{number:05d}_c01.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content + struct.pack(">I4sQ", 16, b"free", number))
        return root

    return make


@pytest.fixture
def here(monkeypatch, inline_pool):
    """Inspect in this process."""
    monkeypatch.setattr(
        "hstlib.data.verify.inspect_files",
        lambda paths, workers: ((path, inspect_file(path)) for path in paths),
    )


def prepare(root: Path) -> ClipStore:
    return prepare_store(load_dataset("folder", root).paths, CLIP, cache_root() / "store")


STEPS = {
    "list": lambda root: load_dataset("folder", root),
    "verify": lambda root: verify("folder", root),
    "prepare": prepare,
}


def cost(step: Callable[[Path], object], root: Path) -> tuple[float, float]:
    """Return processor seconds, and the peak of Python's memory in bytes."""
    tracemalloc.start()
    begin = time.process_time()
    step(root)
    seconds, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


def test_cost_grows_with_the_number_of_videos_and_not_faster(tiny_folder, here):
    small, large = tiny_folder(SMALL), tiny_folder(LARGE)
    for name, step in STEPS.items():
        first, again = [], []
        for root in (small, large):
            first.append(cost(step, root))
            again.append(cost(step, root))
        for seconds, peak in (np.divide(first[1], first[0]), np.divide(again[1], again[0])):
            assert seconds < 2 * LARGE / SMALL, name
            assert peak < 1.2 * LARGE / SMALL, name
        if name != "list":
            assert again[1][0] < first[1][0] / 2, name
        assert first[1][1] / LARGE < 20_000, name  # bytes per video


def test_every_tiny_video_is_used(tiny_folder, here):
    root = tiny_folder(SMALL)
    manifest = verify("folder", root)
    assert manifest.problems == [] and len(manifest.files) == SMALL
    assert {entry.frames for entry in manifest.files.values()} == {3}
    store = prepare(root)
    assert not store.problems
    assert len(list(store.folder.parent.glob("clips/*/*.npy"))) == SMALL


@pytest.mark.parametrize("step", ["verify", "prepare"])
def test_progress_is_logged_from_the_first_second(tiny_folder, here, caplog, monkeypatch, step):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.01)
    STEPS[step](tiny_folder(SMALL))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith(step)]
    unit = {"verify": "files", "prepare": "videos"}[step]
    assert lines[0] == f"{step}: {SMALL} of {SMALL} {unit} to do"
    assert lines[-1] == f"{step}: {SMALL} of {SMALL} {unit}"
    assert len(lines) > 3 and all("about 0 min left" in line for line in lines[1:-1])
    caplog.clear()
    STEPS[step](tiny_folder(SMALL))
    assert not [r for r in caplog.records if r.getMessage().startswith(step)]  # nothing to do


def test_between_lines_thirty_seconds_pass(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = iter(np.arange(0, 1000, 10.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress("count", 10, "file", done=2) as count:
        for _ in range(8):
            count()
    assert [r.getMessage() for r in caplog.records] == [
        "count: 8 of 10 files to do",
        "count: 5 of 10 files, about 1 min left",
        "count: 8 of 10 files, about 0 min left",
        "count: 10 of 10 files",
    ]


def test_an_index_of_many_videos_opens_at_once_in_little_memory(tmp_path):
    count = 50_000
    videos = (StoredVideo(f"/data/v{i:06d}.avi", 1, 2, f"{i:064x}", i % 3) for i in range(count))
    header = {"version": VERSION, "clip": CLIP.model_dump(), "problems": []}
    write_index(tmp_path / INDEX, header, videos)
    seconds, peak = cost(ClipStore, tmp_path)
    assert seconds < 0.05 and peak < 100_000
    store = ClipStore(tmp_path)
    assert Path("/data/v049999.avi") in store and Path("/data/v050000.avi") not in store
    assert store.repeats(Path("/data/v000002.avi")) == 2
    assert sum(1 for _ in Index(tmp_path / INDEX)) == count


def test_what_is_written_goes_to_the_cache(tiny_folder, here, tmp_path, monkeypatch):
    """The data may be read-only."""
    root = shutil.copytree(tiny_folder(SMALL), tmp_path / "data" / "tiny")
    monkeypatch.setenv("HST_DATA", str(tmp_path / "data"))
    before = sorted((tmp_path / "data").rglob("*"))
    monkeypatch.setenv("HST_CACHE", str(tmp_path / "cache"))
    verify("folder", root)
    assert prepare(root).folder.is_relative_to(tmp_path / "cache" / "store")
    assert manifest_path(load_dataset("folder", root)).is_relative_to(tmp_path / "cache")
    assert sorted((tmp_path / "data").rglob("*")) == before
    monkeypatch.delenv("HST_CACHE")
    assert cache_root() == tmp_path / "data"
