"""Speed of the optical flow methods on one thread, and their error on known motion.

Run `python benchmarks/flow.py`; it writes benchmarks/results/flow.json, which notebooks/11_flow
reads. Speeds are medians, and their ratios are taken within one repetition.
"""

import json
import platform
import time
from pathlib import Path

import cv2
import numpy as np

from hstlib.flow import METHODS, draw_pair, end_point_error, optical_flow

RESULTS = Path(__file__).parent / "results"
SIZES = (112, 224)
PAIRS, CLIPS, REPETITIONS = 16, 5, 7
MARGIN = 16  # pixels at the border, where the texture leaves the picture


def hardware() -> str:
    """Name the processor and the versions that decide speed."""
    cpu, kind = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = info.read_text().splitlines()
        fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        cpu = fields.get("model name", cpu)
        kind = f" (family {fields.get('cpu family')}, model {fields.get('model')})"
    python = platform.python_version()
    return f"{cpu}{kind}, one thread; OpenCV {cv2.__version__}, Python {python}"


def seconds(frames: np.ndarray, method: str) -> float:
    """Measure the flow of a clip once, in processor time, which waiting does not count in."""
    begin = time.process_time()
    for _ in range(CLIPS):
        optical_flow(frames, None, method)
    return (time.process_time() - begin) / CLIPS


def speeds(size: int) -> dict[str, np.ndarray]:
    """Return pairs per second of every method in every repetition, the methods taking turns."""
    pair, _ = draw_pair(np.array([[1, 0, 2], [0, 1, -1]]), size)
    clip = np.resize(pair, (PAIRS + 1, *pair.shape[1:]))
    turns = [[seconds(clip, method) for method in METHODS] for _ in range(REPETITIONS)]
    return dict(zip(METHODS, PAIRS / np.transpose(turns), strict=True))


def error(size: int, method: str) -> float:
    """Return the mean end-point error over shifts of 1 to 4 pixels in many directions."""
    errors = []
    for seed in range(6):
        speed, angle = (1, 2, 4)[seed % 3], 2.4 * seed
        motion = np.array([[1, 0, speed * np.cos(angle)], [0, 1, speed * np.sin(angle)]])
        frames, truth = draw_pair(motion, size, seed)
        flow = optical_flow(frames, None, method)[:, 0]
        errors.append(end_point_error(flow, truth)[MARGIN:-MARGIN, MARGIN:-MARGIN].mean())
    return float(np.mean(errors))


def main() -> None:
    """Measure, print and store."""
    cv2.setNumThreads(1)
    rows = []
    for size in SIZES:
        pairs = speeds(size)
        for method in METHODS:
            row = {
                "method": method,
                "size": size,
                "pairs_per_second": round(np.median(pairs[method])),
                "relative_to_dis": round(float(np.median(pairs[method] / pairs["dis"])), 2),
            }
            if method != "difference":  # is no motion, so it has no error
                row["error_pixels"] = round(error(size, method), 3)
            rows.append(row)
            print(row)
    write(RESULTS / "flow.json", {"hardware": hardware(), "rows": rows})


def write(path: Path, content: dict) -> None:
    """Write JSON with one line per row of every list."""
    items = []
    for key, value in content.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(row)}" for row in value)
            items.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        else:
            items.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(items) + "\n}\n")


if __name__ == "__main__":
    main()
