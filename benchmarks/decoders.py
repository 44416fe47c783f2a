"""Compare the frames that OpenCV and PyAV decode from real videos.

The chapter on flow, notebooks/13_flow.ipynb, reads the results: one row per data set, without names
or frames of videos.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av import library_versions
from common import RESULTS, argument_parser, cpu_seconds, hardware, write

from hstlib.data.video import read_video

DATA_SETS = {
    "HMDB51": "hmdb51/hmdb51_org/*/*.avi",
    "UCF101": "ucf101/UCF-101/*/*.avi",
    "UT-Interaction": "ut_interaction/videos/*/*.avi",
    "Kinetics": "kinetics/*.mp4",
}
FPS, SIZE = 16, 224  # the paper's frame rate in Hz and frame size in pixels
REPETITIONS = 3
GREY_LEVELS = np.arange(256)


@dataclass(frozen=True)
class Decoded:
    """All frames of a file, and what its container states about them.

    Attributes:
        frames: RGB uint8 frames (H, W, 3), in the order of decoding.
        fps: Frame rate of the file, in Hz.
        announced: Number of frames in the header.
        timestamps: Presentation time of each frame, in seconds; PyAV only.
        packet_times: Decoding time of each frame's packet, in seconds or NaN; PyAV only.
    """

    frames: list[np.ndarray]
    fps: float
    announced: int
    timestamps: np.ndarray | None = None
    packet_times: np.ndarray | None = None


def decode_opencv(path: Path) -> Decoded:
    """Decode as :mod:`hstlib.data.video` does, but keep every frame at its original size."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = []
    while capture.grab():
        frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Decoded(frames, capture.get(cv2.CAP_PROP_FPS), announced)


def decode_pyav(path: Path) -> Decoded:
    """Decode with PyAV."""
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames, timestamps, packet_times = [], [], []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            timestamps.append(frame.time)
            packet_times.append(np.nan if frame.dts is None else float(frame.dts * frame.time_base))
        fps, announced = float(stream.average_rate), stream.frames
    return Decoded(frames, fps, announced, np.array(timestamps), np.array(packet_times))


def empty_packets(path: Path) -> int:
    """Count the packets of one byte, which XviD writes while it waits for a B-frame."""
    with _open(path) as container:
        return sum(packet.size == 1 for packet in container.demux())


def _open(path: Path) -> av.container.InputContainer:
    return av.open(str(path), metadata_errors="ignore")  # some AVI files have tags not in UTF-8


def indices_by_count(num_frames: int, source_fps: float, fps: float = FPS) -> np.ndarray:
    """Return the frames nearest to 0, 1/fps, ... seconds, if frame i is at i/source_fps."""
    step = source_fps / fps
    indices = (np.arange(int(num_frames / step) + 2) * step + 0.5).astype(int)
    return indices[indices < num_frames]


def indices_by_timestamp(timestamps: np.ndarray, length: int, fps: float = FPS) -> np.ndarray:
    """Return the frames whose timestamps are nearest to 0, 1/fps, ... seconds after the first.

    Args:
        timestamps: Presentation times in seconds, shape (T,).
        length: Number of indices to return.
        fps: Frame rate of the result, in Hz.
    """
    targets = np.arange(length) / fps
    distances = np.abs((timestamps - timestamps[0])[:, None] - targets).round(6)
    return len(timestamps) - 1 - distances[::-1].argmin(0)  # of two equally near, the later one


def difference_histogram(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Count the absolute differences 0 to 255 between the values of two lists of frames."""
    pairs = zip(a, b, strict=True)
    return sum(np.bincount(cv2.absdiff(x, y).ravel(), minlength=256) for x, y in pairs)


def describe(counts: np.ndarray) -> dict[str, float]:
    """Return mean, 99th percentile and maximum of a histogram of grey levels, shape (256,)."""
    cumulative = counts.cumsum() / counts.sum()
    return {
        "mean": round(float((GREY_LEVELS * counts).sum() / counts.sum()), 3),
        "p99": int(np.searchsorted(cumulative, 0.99)),
        "max": int(counts.nonzero()[0][-1]),
    }


def mean_change(frames: Sequence[np.ndarray]) -> float:
    """Return the mean absolute difference between neighbouring frames, in grey levels."""
    changes = [cv2.absdiff(a, b).mean() for a, b in zip(frames, frames[1:], strict=False)]
    return float(np.mean(changes))


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize an RGB frame to a square with OpenCV."""
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)


def compare(path: Path) -> dict:
    """Compare the two decoders on one file; the values can be added up over files."""
    opencv, pyav = decode_opencv(path), decode_pyav(path)
    indices = indices_by_count(len(pyav.frames), pyav.fps)
    resized = [resize(frame, SIZE) for frame in pyav.frames]
    video = read_video(path, size=SIZE, fps=FPS)
    return {
        "frames": len(opencv.frames),
        "same_count": len(opencv.frames) == len(pyav.frames),
        "announced_too_many": opencv.announced - len(opencv.frames),
        "empty_packets": empty_packets(path),
        "chosen": video.length,
        "same_choice": bool(np.array_equal(video.sources, indices)),
        **compare_times(pyav, indices),
        "difference": difference_histogram(opencv.frames, pyav.frames),
        "difference_resized": difference_histogram(video.frames, [resized[i] for i in indices]),
        "change_in_order": mean_change(resized),
        "change_by_stamp": mean_change(
            [resized[i] for i in pyav.timestamps.argsort(kind="stable")]
        ),
    }


def compare_times(decoded: Decoded, indices: np.ndarray) -> dict:
    """Compare choosing frames by their timestamps with choosing them by counting.

    Args:
        decoded: Frames of PyAV with their times.
        indices: Frames chosen by counting.
    """
    by_timestamp = indices_by_timestamp(decoded.timestamps, len(indices))
    return {
        "packets_evenly_spaced": evenly_spaced(decoded.packet_times, decoded.fps),
        "stamps_evenly_spaced": evenly_spaced(decoded.timestamps, decoded.fps),
        "chosen_otherwise_by_stamp": int((by_timestamp != indices).sum()),
        "farthest_by_stamp": int(np.abs(by_timestamp - indices).max()),
    }


def evenly_spaced(times: np.ndarray, fps: float) -> bool:
    """Return whether time i is i/fps seconds after the first, to a millisecond."""
    drift = times - times[0] - np.arange(len(times)) / fps
    return bool(np.nanmax(np.abs(drift)) < 1e-3)


def pyav_time_ratio(paths: Sequence[Path]) -> float:
    """Return the processor time of PyAV divided by OpenCV's: the median over repetitions."""

    def seconds(decode: Callable[[Path], Decoded]) -> float:
        return sum(cpu_seconds(lambda path=path: decode(path)) for path in paths)

    opencv, pyav = np.transpose(
        [(seconds(decode_opencv), seconds(decode_pyav)) for _ in range(REPETITIONS)]
    )
    return float(np.median(pyav / opencv))


def summarise(name: str, paths: Sequence[Path]) -> dict:
    """Return the row of one data set: sums over its files, unless the key names another value."""
    files = [compare(path) for path in paths]
    row = {key: sum(file[key] for file in files) for key in files[0]}
    row["farthest_by_stamp"] = max(file["farthest_by_stamp"] for file in files)
    for key in ("difference", "difference_resized"):
        row[key] = describe(row[key])
    for key in ("change_in_order", "change_by_stamp"):
        row[key] = round(row[key] / len(files), 2)
    ratio = round(pyav_time_ratio(paths[:6]), 1)
    return {"data_set": name, "files": len(files), **row, "pyav_time_ratio": ratio}


def ffmpeg_versions() -> str:
    """Return the versions of FFmpeg's decoders inside OpenCV and PyAV."""
    opencv = re.search(r"avcodec: +YES \(([\d.]+)\)", cv2.getBuildInformation())
    pyav = ".".join(map(str, library_versions["libavcodec"]))
    return f"libavcodec {opencv[1] if opencv else '?'} in OpenCV, {pyav} in PyAV {av.__version__}"


def main() -> None:
    """Compare, print and write the results."""
    parser = argument_parser(__doc__, RESULTS / "decoders.json")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with hmdb51/, ucf101/, ut_interaction/ and kinetics/",
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for name, pattern in DATA_SETS.items():
        paths = sorted(options.data.glob(pattern))
        if not paths:
            parser.error(f"--data {options.data} has no videos {pattern}")
        rows.append(summarise(name, paths))
        print(rows[-1])
    write(options.out, {"hardware": f"{hardware()}; {ffmpeg_versions()}", "rows": rows})


if __name__ == "__main__":
    main()
