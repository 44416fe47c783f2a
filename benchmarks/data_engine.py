"""How fast are clips made and read? Ratios against bare OpenCV and against copying memory.

Run `python benchmarks/data_engine.py --data <folder of real videos>`; it writes
benchmarks/results/data_engine.json. Every ratio compares two things of the same run, in turns.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from flow import RESULTS, hardware, write

from hstlib.config import ClipConfig
from hstlib.datasets import VIDEO_SUFFIXES
from hstlib.store import INDEX, VERSION, ClipStore, cut_clips, prepare_store
from hstlib.video import VideoError, clip_indices, inspect_video

PAPER = ClipConfig()  # 16 frames of 224 pixels at 16 Hz, DIS
REPETITIONS = 5
COPIES = 6  # of every video, so that starting the processes weighs little
DATA_SETS = {"HMDB51": 6766, "UCF101": 13320}


def bare_opencv(path: Path) -> None:
    """Do the work of one clip with OpenCV alone: decode, resample, resize, colour, flow."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames, count = [], 0
    step = capture.get(cv2.CAP_PROP_FPS) / PAPER.fps
    while capture.grab():
        if int(len(frames) * step + 0.5) == count:
            frame = capture.retrieve()[1]
            shrinks = frame.shape[1] > PAPER.size
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            frame = cv2.resize(frame, (PAPER.size, PAPER.size), interpolation=interpolation)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        count += 1
    chosen = clip_indices(len(frames), max(0, (len(frames) - PAPER.num_frames) // 2), PAPER)
    grey = [cv2.cvtColor(frames[i], cv2.COLOR_RGB2GRAY) for i in chosen if i >= 0]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for a, b in zip(grey, grey[1:], strict=False):
        dis.calc(a, b, None)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Measure processor time, which other programs of the machine disturb least."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def cold_path(paths: list[Path]) -> dict:
    """Compare a clip of ours with the bare calls, file by file and in turns."""
    ours, bare = np.zeros(REPETITIONS), np.zeros(REPETITIONS)
    for turn in range(REPETITIONS):
        for path in paths:
            bare[turn] += cpu_seconds(lambda path=path: bare_opencv(path))
            ours[turn] += cpu_seconds(lambda path=path: cut_clips(path, PAPER))
    per_clip = np.median(ours) / len(paths)
    return {
        "videos": len(paths),
        "seconds_per_clip": round(per_clip, 4),
        "ratio_to_bare_opencv": round(float(np.median(ours / bare)), 3),
        **{f"core_hours_{name}": round(n * per_clip / 3600, 2) for name, n in DATA_SETS.items()},
    }


def scaling(paths: list[Path]) -> dict:
    """Compare preparing with one process and with one per core, in turns, on an idle machine."""
    workers, seconds = os.cpu_count() or 1, {}
    with tempfile.TemporaryDirectory() as temporary:
        links = [
            Path(temporary) / f"{copy}_{path.name}" for copy in range(COPIES) for path in paths
        ]
        for link, path in zip(links, COPIES * paths, strict=True):
            link.symlink_to(path.resolve())
        for _ in range(2):
            for count in (1, workers):
                with tempfile.TemporaryDirectory() as folder:
                    begin = time.perf_counter()
                    prepare_store(links, PAPER, Path(folder), count)
                    seconds.setdefault(count, []).append(time.perf_counter() - begin)
    one, many = (min(seconds[count]) for count in (1, workers))
    return {
        "workers": workers,
        "videos_per_second_one": round(len(links) / one, 2),
        "videos_per_second_all": round(len(links) / many, 2),
        "share_of_ideal": round(one / many / workers, 3),
    }


def warm_reading(paths: list[Path]) -> dict:
    """Compare reading a clip into a batch with copying as many bytes from memory to memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = prepare_store(paths, PAPER, Path(folder))
        usable = [path for path in paths if path in store]
        batch = [np.empty_like(array) for array in store.read(usable[0], 0)]
        plain = [[array.copy() for array in store.read(path, 0)] for path in usable[:16]]
        read, copied = [], []
        for _ in range(REPETITIONS):
            begin = time.process_time()
            for path in usable:
                for target, source in zip(batch, store.read(path, 0), strict=True):
                    np.copyto(target, source)
            read.append((time.process_time() - begin) / len(usable))
            begin = time.process_time()
            for number in range(len(usable)):
                for target, source in zip(batch, plain[number % len(plain)], strict=True):
                    np.copyto(target, source)
            copied.append((time.process_time() - begin) / len(usable))
    return {
        "clip_megabytes": round(sum(array.nbytes for array in batch) / 1e6, 2),
        "milliseconds_per_clip": round(1000 * float(np.median(read)), 3),
        "share_of_copy_rate": round(float(np.median(np.array(copied) / read)), 3),
    }


def big_index() -> dict:
    """Open and read a store of UCF101's length, made of holes, and watch the memory."""
    count, clip = DATA_SETS["UCF101"], ClipConfig(size=112, num_windows=1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            Path(f"UCF-101/Class{i // 132:03d}/v_Class_g01_c{i:05d}.avi") for i in range(count)
        ]
        _write_holes(Path(folder), paths, clip)
        before, begin = anonymous_megabytes(), time.perf_counter()
        store = ClipStore(Path(folder))
        opened = time.perf_counter() - begin
        for number in np.random.default_rng(0).permutation(count):
            frames, flow = store.read(paths[number], 0)
            assert frames[0, 0, 0, 0] == flow[0, 0, 0, 0] == 0
        return {
            "videos": count,
            "seconds_to_open": round(opened, 3),
            "extra_megabytes": round(anonymous_megabytes() - before, 1),
        }


def _write_holes(folder: Path, paths: list[Path], clip: ClipConfig) -> None:
    from hstlib.store import _Plan

    plan = _Plan(folder, tuple(paths), clip)
    for number in range(plan.num_shards):
        plan.shard(number).mkdir()
        for name, (dtype, shape) in plan.arrays(len(plan.shard_paths(number))).items():
            np.lib.format.open_memmap(plan.shard(number) / f"{name}.npy", "w+", dtype, shape)
    index = {"version": VERSION, "clip": clip.model_dump(), "problems": {}}
    (folder / INDEX).write_text(json.dumps({**index, "files": [str(path) for path in paths]}))


def anonymous_megabytes() -> float:
    """Return this process's own memory, without pages of files, which the system can drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of real videos")
    parser.add_argument("--limit", type=int, default=40, help="of videos")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    found = sorted(p for p in arguments.data.rglob("*") if p.suffix in VIDEO_SUFFIXES)
    paths = [path for path in found if _usable(path)]
    paths = paths[:: max(1, len(paths) // arguments.limit)]
    cold = cold_path(paths)
    warm = warm_reading(paths)
    ratio = 1000 * cold["seconds_per_clip"] / warm["milliseconds_per_clip"]
    rows = {
        "cold": cold,
        "scaling": scaling(paths),
        "warm": {**warm, "times_faster_than_cold": round(ratio, 1)},
        "index": big_index(),
    }
    write(RESULTS / "data_engine.json", {"hardware": hardware(), **rows})
    print((RESULTS / "data_engine.json").read_text())


def _usable(path: Path) -> bool:
    try:
        return inspect_video(path).fault is None
    except VideoError:
        return False


if __name__ == "__main__":
    main()
