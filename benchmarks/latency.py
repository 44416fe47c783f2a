"""Measure how fast a model classifies videos and follows a stream, on one core.

For HST and its baselines, at demo size and at the paper's: latency of one video from file to
answer, with its parts; videos per second in batches; what a window of a live stream costs, and its
delay. The weights are random, which does not affect the speed. It measures the CPU even if there is
a GPU.

Latency and speed are processor time, which does not count waiting for other programs. A delay is a
time on the clock, so other programs add to it: the shortest one is that of an idle machine. The
load average says how busy the machine was.
"""

import argparse
import gc
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from threading import Thread

import av
import cv2
import numpy as np
import torch
from common import RESULTS, argument_parser, cpu_seconds, hardware, write

from hstlib.config import TrainConfig
from hstlib.data.clips import cut_clips
from hstlib.data.demo import MOTION_PAIRS
from hstlib.data.scenes import draw_frames
from hstlib.inference.golden import write_lossless
from hstlib.inference.predictor import Predictor, WindowPrediction
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.evaluate import BATCH_SIZE

MODELS = ("hst", "c3d", "r2plus1d", "r3d")
SIZES = {"demo": ("demo", 48), "112": ("resnet21", 112), "224": ("resnet21", 224)}
"""Backbone, and height and width of the clips in pixels, by name on the command line."""
NUM_CLASSES = 51
RATE = 25  # Hz, of the drawn video
EVERY = 0.5  # seconds from one window to the next
SCENE = next(iter(MOTION_PAIRS["demo-hmdb51"]))


class Chunks(RawIOBase):
    """What is written, one chunk per frame: a stream before it is sent."""

    def __init__(self):
        self.chunks: list[bytearray] = [bytearray()]

    def writable(self) -> bool:
        """Return True; FFmpeg asks."""
        return True

    def write(self, data: bytes) -> int:
        """Append to the newest chunk."""
        self.chunks[-1] += data
        return len(data)


def encode_stream(seconds: float) -> list[bytearray]:
    """Return an MPEG transport stream of the drawn scene, one chunk per frame."""
    frames, sent = draw_frames(SCENE, (0,), (0,)), Chunks()
    height, width = frames[0].shape[:2]
    with av.open(sent, "w", "mpegts") as container:
        video = container.add_stream("mpeg2video", RATE, width=width, height=height)
        video.pix_fmt = "yuv420p"
        for number in range(round(seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(frames[number % len(frames)], "rgb24")
            container.mux(video.encode(frame))
            sent.chunks.append(bytearray())
        container.mux(video.encode())
    return sent.chunks


def send_in_real_time(chunks: list[bytearray]) -> str:
    """Send a stream to the first caller as a camera does; return the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        with listener, listener.accept()[0] as connection:
            begin = time.perf_counter()
            for number, chunk in enumerate(chunks):
                time.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
                connection.sendall(chunk)

    Thread(target=send, daemon=True).start()
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def seconds_of(work: Callable[[], object], calls: int) -> list[float]:
    """Return the processor time of every call, after one to warm up."""
    work()
    return [cpu_seconds(work) for _ in range(calls)]


def measure(predictor: Predictor, video: Path, calls: int, chunks: list[bytearray]) -> dict:
    """Measure one model on one video and one stream."""
    clip = predictor.config.clip
    frames, flow, *_ = cut_clips(video, clip)
    whole = seconds_of(lambda: predictor(video), calls)
    reading = seconds_of(lambda: cut_clips(video, clip), calls)
    model = seconds_of(lambda: predictor.probabilities(frames, flow), calls)
    copies = [video] * min(calls, BATCH_SIZE)
    batches = cpu_seconds(lambda: list(predictor.each(copies)))
    stream: list[WindowPrediction] = []
    work = cpu_seconds(lambda: stream.extend(predictor.watch(send_in_real_time(chunks), EVERY)))
    delays = [window.delay for window in stream[1:]]  # the first warms up
    return {
        "latency_milliseconds": milliseconds(whole, 50),
        "reading_milliseconds": milliseconds(reading, 50),
        "model_milliseconds": milliseconds(model, 50),
        "videos_per_second": float(f"{len(copies) / batches:.4g}"),
        "stream_windows": len(stream),
        "stream_windows_left_out": sum(window.skipped for window in stream),
        "stream_work_milliseconds": milliseconds([work / len(stream)], 50),
        "stream_shortest_delay_milliseconds": milliseconds(delays, 0),
        "stream_median_delay_milliseconds": milliseconds(delays, 50),
    }


def milliseconds(seconds: list[float], percentile: float) -> float | None:
    """Return a percentile in milliseconds, to four digits; None without values."""
    if not len(seconds):
        return None
    return float(f"{1000 * np.percentile(seconds, percentile):.4g}")


def measure_model(name: str, size: str, calls: int, video: Path, chunks: list[bytearray]) -> dict:
    """Build and measure a model; if it does not fit into memory, say so."""
    backbone, pixels = SIZES[size]
    row = {"model": name, "backbone": backbone, "size": pixels, "calls": calls}
    try:
        torch.manual_seed(0)
        model = build_model(name, NUM_CLASSES, backbone)
        to_channels_last(model)  # as a checkpoint is loaded
        config = TrainConfig(model=name, backbone=backbone, size=pixels)
        predictor = Predictor(model, config, map(str, range(NUM_CLASSES)))
        return row | measure(predictor, video, calls, chunks)
    except (RuntimeError, MemoryError) as error:
        if "alloc" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return row | {"skipped": "does not fit into the free memory"}
    finally:
        gc.collect()


def use_one_core() -> None:
    """Keep this process on one core and within the memory that is free now."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    limit = kilobytes("/proc/self/status", "VmSize") + kilobytes("/proc/meminfo", "MemAvailable")
    resource.setrlimit(resource.RLIMIT_AS, (1024 * limit, resource.RLIM_INFINITY))


def kilobytes(file: str, name: str) -> int:
    """Return a number from a file of Linux that describes memory."""
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _parse() -> argparse.Namespace:
    parser = argument_parser(__doc__, RESULTS / "latency.json")
    default = "; default: %(default)s"
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--sizes", nargs="+", default=[*SIZES], choices=SIZES)
    parser.add_argument("--calls", type=int, default=60, help=f"timed calls at demo size{default}")
    text = f"timed calls at the paper's sizes{default}"
    parser.add_argument("--paper-calls", type=int, default=5, help=text)
    text = f"length of the stream in seconds{default}"
    parser.add_argument("--seconds", type=float, default=30.0, help=text)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write the results."""
    options = _parse()
    use_one_core()
    chunks = encode_stream(options.seconds)
    results = {
        "hardware": f"{hardware()}, torch {torch.__version__}",
        "settings": {"every": EVERY, "stream_seconds": options.seconds},
        "load_average": round(os.getloadavg()[0], 1),
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "drawn.mkv"
        write_lossless(video, draw_frames(SCENE, (0,), (0,)), RATE)
        for size in options.sizes:
            calls = options.calls if size == "demo" else options.paper_calls
            for name in options.models:
                results["rows"].append(measure_model(name, size, calls, video, chunks))
                print(results["rows"][-1], flush=True)
                write(options.out, results)


if __name__ == "__main__":
    main()
