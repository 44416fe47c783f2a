"""Measure how fast clips are cut from videos, and read from a clip store.

Cutting is compared with bare OpenCV, reading with copying memory, several processes with as many
independent ones that run bare OpenCV; each ratio compares things that are measured in turns. Videos
should be of different content: a store cuts the clips of equal files once. The chapter on the data
engine, notebooks/12_data_engine.ipynb, reads the results.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from common import RESULTS, argument_parser, cpu_seconds, hardware, write

from hstlib.config import ClipConfig
from hstlib.data.clips import clip_indices, cut_clips
from hstlib.data.container import VideoError
from hstlib.data.index import INDEX, StoredVideo, video_name, write_index
from hstlib.data.layouts import VIDEO_SUFFIXES
from hstlib.data.shards import StoreLayout, seal
from hstlib.data.store import VERSION, ClipStore, prepare_store
from hstlib.data.video import inspect_video

PAPER = ClipConfig()  # 16 frames of 224 pixels at 16 Hz, DIS
REPETITIONS = 5
NUM_VIDEOS_OF_SCALING = 600  # or all; so many that the time to start workers hardly matters
ROUNDS = 3  # of one process and all, of ours and bare ones
NUM_VIDEOS = {"HMDB51": 6766, "UCF101": 13320}


def bare_opencv(path: Path) -> None:
    """Do the same work as :func:`cut_clips` with OpenCV alone, without checks."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames, num_decoded = [], 0
    step = capture.get(cv2.CAP_PROP_FPS) / PAPER.fps
    while capture.grab():
        if int(len(frames) * step + 0.5) == num_decoded:
            frame = capture.retrieve()[1]
            shrinks = frame.shape[1] > PAPER.size
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            frame = cv2.resize(frame, (PAPER.size, PAPER.size), interpolation=interpolation)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        num_decoded += 1
    indices = clip_indices(len(frames), max(0, (len(frames) - PAPER.num_frames) // 2), PAPER)
    grey = [cv2.cvtColor(frames[i], cv2.COLOR_RGB2GRAY) for i in indices if i >= 0]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for a, b in zip(grey, grey[1:], strict=False):
        dis.calc(a, b, None)


def cold_path(paths: list[Path]) -> dict:
    """Compare cutting a clip with bare OpenCV, video by video and in turns."""
    hstlib, bare = np.zeros(REPETITIONS), np.zeros(REPETITIONS)
    for repetition in range(REPETITIONS):
        for path in paths:
            bare[repetition] += cpu_seconds(lambda path=path: bare_opencv(path))
            hstlib[repetition] += cpu_seconds(lambda path=path: cut_clips(path, PAPER))
    per_clip = np.median(hstlib) / len(paths)
    return {
        "videos": len(paths),
        "seconds_per_clip": round(per_clip, 4),
        "ratio_to_bare_opencv": round(float(np.median(hstlib / bare)), 3),
        **{f"core_hours_{name}": round(n * per_clip / 3600, 2) for name, n in NUM_VIDEOS.items()},
    }


def scaling(paths: list[Path]) -> dict:
    """Compare one process with one per core, in a store and in plain processes, in turns.

    Plain processes share nothing, not even a queue: what they reach together is the most that the
    machine allows at this moment. They are timed without their start, the store with all it does.
    ``share_by_processor_time`` hardly depends on what else runs: the processor time of a store that
    one process prepares, divided by that of one that all prepare.
    """
    num_cores = os.cpu_count() or 1
    counts = (1, num_cores)
    rounds = [
        [(plain_seconds(paths, count), *store_seconds(paths, count)) for count in counts]
        for _ in range(ROUNDS)
    ]
    one, every = np.moveaxis(rounds, 1, 0)  # each (rounds, 3): plain, store, processor time
    shares = one / every / (num_cores, num_cores, 1)
    names = ("share_of_ideal_plain", "share_of_ideal", "share_by_processor_time")
    rate_one, rate_all = len(paths) / np.median([one[:, 1], every[:, 1]], axis=1)
    return {
        "workers": num_cores,
        "videos": len(paths),
        "videos_per_second_one": round(float(rate_one), 2),
        "videos_per_second_all": round(float(rate_all), 2),
        **dict(zip(names, np.median(shares, axis=0).round(3).tolist(), strict=True)),
        "ratio_to_plain": round(float(np.median(shares[:, 1] / shares[:, 0])), 3),
    }


def store_seconds(paths: list[Path], workers: int) -> tuple[float, float]:
    """Return wall and processor time of preparing a store, with the start of its processes."""
    with tempfile.TemporaryDirectory() as parent:
        begin, used = time.perf_counter(), sum(os.times()[:4])
        prepare_store(paths, PAPER, Path(parent), workers)
        return time.perf_counter() - begin, sum(os.times()[:4]) - used


def plain_seconds(paths: list[Path], workers: int) -> float:
    """Return the wall time of bare OpenCV in independent processes, without their start."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers + 1, timeout=600)  # if a process dies
    parts = [paths[number::workers] for number in range(workers)]
    processes = [context.Process(target=_work_alone, args=(part, ready)) for part in parts]
    for process in processes:
        process.start()
    ready.wait()
    begin = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - begin


def _work_alone(paths: list[Path], ready) -> None:
    cv2.setNumThreads(0)
    ready.wait()
    for path in paths:
        bare_opencv(path)


def warm_reading(paths: list[Path]) -> dict:
    """Compare reading clips from a store into a batch with copying as many bytes in memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = prepare_store(paths, PAPER, Path(folder))
        usable = [path for path in paths if path in store]
        batch = [np.empty_like(array) for array in store.read(usable[0], 0)]
        in_memory = [[array.copy() for array in store.read(path, 0)] for path in usable[:16]]

        def read() -> None:
            for path in usable:
                _copy(store.read(path, 0), batch)

        def copy() -> None:
            for number in range(len(usable)):
                _copy(in_memory[number % len(in_memory)], batch)

        times = [(cpu_seconds(read), cpu_seconds(copy)) for _ in range(REPETITIONS)]
    reading, copying = np.transpose(times) / len(usable)
    return {
        "clip_megabytes": round(sum(array.nbytes for array in batch) / 1e6, 2),
        "milliseconds_per_clip": round(1000 * float(np.median(reading)), 3),
        "share_of_copy_rate": round(float(np.median(copying / reading)), 3),
    }


def _copy(sources: Iterable[np.ndarray], targets: list[np.ndarray]) -> None:
    for source, target in zip(sources, targets, strict=True):
        np.copyto(target, source)


def big_index() -> dict:
    """Open a sparse store as long as UCF101 and read all clips; return time and extra memory."""
    num_videos, clip = NUM_VIDEOS["UCF101"], ClipConfig(size=112, clips_per_video=1)
    paths = numbered_paths(num_videos)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "store"
        write_sparse_store(folder, paths, clip)
        before, begin = private_megabytes(), time.perf_counter()
        store = ClipStore(folder)
        seconds = time.perf_counter() - begin
        for number in np.random.default_rng(0).permutation(num_videos):
            frames, flow = store.read(paths[number], 0)
            assert frames[0, 0, 0, 0] == flow[0, 0, 0, 0] == 0
        return {
            "videos": num_videos,
            "seconds_to_open": round(seconds, 3),
            "extra_megabytes": round(private_megabytes() - before, 1),
        }


def huge_index(num_videos: int = 1_000_000) -> dict:
    """Open a store of a million videos without clips, and find every thousandth of them."""
    paths = numbered_paths(num_videos)
    with tempfile.TemporaryDirectory() as parent:
        _write_index(Path(parent) / "store", paths, ClipConfig())
        before, begin = private_megabytes(), time.perf_counter()
        store = ClipStore(Path(parent) / "store")
        seconds = time.perf_counter() - begin
        assert all(path in store for path in paths[::1000]) and Path("absent.avi") not in store
        return {
            "videos": num_videos,
            "seconds_to_open": round(seconds, 3),
            "extra_megabytes": round(private_megabytes() - before, 1),
        }


def numbered_paths(num_videos: int) -> list[Path]:
    """Return names of videos like those of UCF101."""
    return [Path(f"Class{i // 132:03d}/v_Class_g01_c{i:05d}.avi") for i in range(num_videos)]


def write_sparse_store(folder: Path, paths: list[Path], clip: ClipConfig) -> None:
    """Write a clip store of zeros, whose shards are sparse files and take no room on disk."""
    layout = StoreLayout(folder, clip)
    for video in _write_index(folder, paths, clip):
        file = layout.shard(video.sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        shard = np.lib.format.open_memmap(file, "w+", layout.record, (1,))
        seal(shard, video.sha256)


def _write_index(folder: Path, paths: list[Path], clip: ClipConfig) -> list[StoredVideo]:
    """Write the index of a store whose videos have their numbers as hashes."""
    videos = [
        StoredVideo(video_name(path), 0, 0, number.to_bytes(32, "little").hex())
        for number, path in enumerate(paths)
    ]
    header = {"version": VERSION, "clip": clip.model_dump(), "problems": []}
    write_index(folder / INDEX, header, videos)
    return videos


def private_megabytes() -> float:
    """Return the memory of this process without mapped files, which the system can drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def find_videos(folder: Path) -> list[Path]:
    """Return the usable videos below a folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in VIDEO_SUFFIXES)
    return [path for path in files if _is_usable(path)]


def evenly(paths: list[Path], limit: int) -> list[Path]:
    """Return about ``limit`` of the paths, evenly spaced."""
    return paths[:: max(1, round(len(paths) / limit))]


def _is_usable(path: Path) -> bool:
    try:
        return inspect_video(path).kind is None
    except VideoError:
        return False


def main() -> None:
    """Measure, print and write the results."""
    parser = argument_parser(__doc__, RESULTS / "data_engine.json")
    parser.add_argument("--data", type=Path, required=True, help="folder of real videos")
    parser.add_argument(
        "--limit", type=int, default=40, help="number of videos, roughly; default: %(default)s"
    )
    options = parser.parse_args()
    cv2.setNumThreads(0)
    usable = find_videos(options.data)
    if not usable:
        parser.error(f"--data {options.data} has no usable video")
    paths = evenly(usable, options.limit)
    cold = cold_path(paths)
    warm = warm_reading(paths)
    ratio = 1000 * cold["seconds_per_clip"] / warm["milliseconds_per_clip"]
    results = {
        "hardware": hardware(),
        "cold": cold,
        "scaling": scaling(evenly(usable, NUM_VIDEOS_OF_SCALING)),
        "warm": {**warm, "times_faster_than_cold": round(ratio, 1)},
        "index": big_index(),
        "huge_index": huge_index(),
    }
    write(options.out, results)
    print(options.out.read_text())


if __name__ == "__main__":
    main()
