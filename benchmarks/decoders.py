"""Does the choice of decoder matter? OpenCV beside PyAV on real clips.

Run `python benchmarks/decoders.py --data <folder of the real clips>`; it writes
benchmarks/results/decoders.json, which notebooks/11_flow reads: one line per data set, and
nothing that names or shows a clip.
"""

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av import library_versions
from flow import RESULTS, hardware, write

from hstlib.video import read_video, resize_frame

DATA_SETS = {
    "HMDB51": "hmdb51/hmdb51_org/*/*.avi",
    "UCF101": "ucf101/UCF-101/*/*.avi",
    "UT-Interaction": "ut_interaction/videos/*/*.avi",
    "Kinetics": "kinetics/*.mp4",
}
FPS, SIZE = 16, 224  # of the paper's clips
REPETITIONS = 3
LEVELS = np.arange(256)


@dataclass(frozen=True)
class Decoded:
    """All frames of a file, and what its container says about them.

    Attributes:
        frames: RGB, uint8, (H, W, 3) each, in the order that the decoder gives.
        fps: Frame rate of the file, in Hz.
        announced: Number of frames in the header.
        stamps: When each frame is shown, in seconds; known to PyAV.
        decoded_at: When each frame's packet is due, in seconds or NaN; known to PyAV.
    """

    frames: list[np.ndarray]
    fps: float
    announced: int
    stamps: np.ndarray | None = None
    decoded_at: np.ndarray | None = None


def decode_opencv(path: Path) -> Decoded:
    """Decode as :mod:`hstlib.video` does, but keep every frame at its own size."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = []
    while capture.grab():
        frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Decoded(frames, capture.get(cv2.CAP_PROP_FPS), announced)


def decode_pyav(path: Path) -> Decoded:
    """Decode with PyAV; some AVI files hold tags that are no UTF-8, which it must ignore."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames, stamps, due = [], [], []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            stamps.append(frame.time)
            due.append(np.nan if frame.dts is None else float(frame.dts * frame.time_base))
        fps, announced = float(stream.average_rate), stream.frames
    return Decoded(frames, fps, announced, np.array(stamps), np.array(due))


def empty_packets(path: Path) -> int:
    """Count the packets of one byte, which XviD writes while it waits for a B-frame."""
    with av.open(str(path), metadata_errors="ignore") as container:
        return sum(packet.size == 1 for packet in container.demux())


def chosen_by_count(count: int, source_fps: float, fps: float = FPS) -> np.ndarray:
    """Return which frames are nearest to 0, 1/fps ... seconds if frame i is at i/source_fps."""
    step = source_fps / fps
    indices = (np.arange(int(count / step) + 2) * step + 0.5).astype(int)
    return indices[indices < count]


def chosen_by_stamp(stamps: np.ndarray, length: int, fps: float = FPS) -> np.ndarray:
    """Return which frames are nearest to 0, 1/fps ... seconds after the first, by their stamps."""
    wanted = np.arange(length) / fps
    distance = np.abs((stamps - stamps[0])[:, None] - wanted).round(6)
    return len(stamps) - 1 - distance[::-1].argmin(0)  # of two equally near the later one


def histogram(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Count the absolute differences 0 to 255 between the values of two lists of frames."""
    pairs = zip(a, b, strict=True)
    return sum(np.bincount(cv2.absdiff(x, y).ravel(), minlength=256) for x, y in pairs)


def describe(counts: np.ndarray) -> dict[str, float]:
    """Return mean, 99th percentile and maximum of a histogram."""
    share = counts.cumsum() / counts.sum()
    return {
        "mean": round(float((LEVELS * counts).sum() / counts.sum()), 3),
        "p99": int(np.searchsorted(share, 0.99)),
        "max": int(counts.nonzero()[0][-1]),
    }


def change(frames: Sequence[np.ndarray]) -> float:
    """Return the mean change from each frame to the next, in grey levels."""
    changes = [cv2.absdiff(a, b).mean() for a, b in zip(frames, frames[1:], strict=False)]
    return float(np.mean(changes))


def compare(path: Path) -> dict:
    """Compare what both decoders make of one file; numbers that can be added up."""
    ours, theirs = decode_opencv(path), decode_pyav(path)
    kept = chosen_by_count(len(theirs.frames), theirs.fps)
    small = [resize_frame(frame, SIZE) for frame in theirs.frames]
    clip = read_video(path, size=SIZE, fps=FPS).frames
    return {
        "frames": len(ours.frames),
        "same_count": len(ours.frames) == len(theirs.frames),
        "announced_too_many": ours.announced - len(ours.frames),
        "empty_packets": empty_packets(path),
        "chosen": len(clip),
        "same_choice": len(clip) == len(kept),
        **compare_stamps(theirs, kept),
        "difference": histogram(ours.frames, theirs.frames),
        "difference_resized": histogram(clip, [small[i] for i in kept]),
        "change_in_order": change(small),
        "change_by_stamp": change([small[i] for i in theirs.stamps.argsort(kind="stable")]),
    }


def compare_stamps(decoded: Decoded, kept: np.ndarray) -> dict:
    """Compare the times that PyAV gives with counting frames."""
    by_stamp = chosen_by_stamp(decoded.stamps, len(kept))
    return {
        "packets_evenly_spaced": even(decoded.decoded_at, decoded.fps),
        "stamps_evenly_spaced": even(decoded.stamps, decoded.fps),
        "chosen_otherwise_by_stamp": int((by_stamp != kept).sum()),
        "farthest_by_stamp": int(np.abs(by_stamp - kept).max()),
    }


def even(times: np.ndarray, fps: float) -> bool:
    """Tell whether frame i is at i/fps seconds after the first, to a millisecond."""
    drift = times - times[0] - np.arange(len(times)) / fps
    return bool(np.nanmax(np.abs(drift)) < 1e-3)


def slowdown(paths: Sequence[Path]) -> float:
    """Return how often PyAV's processor time is OpenCV's: the median over repetitions."""
    ratios = []
    for _ in range(REPETITIONS):
        times = []
        for decode in (decode_opencv, decode_pyav):
            begin = time.process_time()
            for path in paths:
                decode(path)
            times.append(time.process_time() - begin)
        ratios.append(times[1] / times[0])
    return float(np.median(ratios))


def summarise(name: str, paths: Sequence[Path]) -> dict:
    """Return the line of one data set: sums over its files, unless the key says otherwise."""
    files = [compare(path) for path in paths]
    row = {key: sum(file[key] for file in files) for key in files[0]}
    row["farthest_by_stamp"] = max(file["farthest_by_stamp"] for file in files)
    for key in ("difference", "difference_resized"):
        row[key] = describe(row[key])
    for key in ("change_in_order", "change_by_stamp"):
        row[key] = round(row[key] / len(files), 2)
    slower = round(slowdown(paths[:6]), 1)
    return {"data_set": name, "files": len(files), **row, "pyav_time_ratio": slower}


def ffmpeg() -> str:
    """Name the FFmpeg inside either decoder."""
    ours = re.search(r"avcodec: +YES \(([\d.]+)\)", cv2.getBuildInformation())
    theirs = ".".join(map(str, library_versions["libavcodec"]))
    return f"libavcodec {ours[1] if ours else '?'} in OpenCV, {theirs} in PyAV {av.__version__}"


def main() -> None:
    """Compare on all clips, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real clips")
    folder = parser.parse_args().data
    cv2.setNumThreads(1)
    rows = []
    for name, pattern in DATA_SETS.items():
        rows.append(summarise(name, sorted(folder.glob(pattern))))
        print(rows[-1])
    write(RESULTS / "decoders.json", {"hardware": f"{hardware()}; {ffmpeg()}", "rows": rows})


if __name__ == "__main__":
    main()
