"""Measure speed and error of the optical flow methods.

Speed is measured on one thread, as the median over repetitions; ratios compare methods within one
repetition. The error is measured on synthetic motion with known ground truth. The chapter on flow,
notebooks/13_flow.ipynb, reads the results.
"""

import cv2
import numpy as np
from common import RESULTS, argument_parser, cpu_seconds, hardware, write

from hstlib.data.flow import METHODS, draw_pair, end_point_error, optical_flow

SIZES = (112, 224)  # pixels
PAIRS = 16  # of frames in a clip
CLIPS, REPETITIONS = 5, 7
MARGIN = 16  # pixels; near the border, texture moves out of the picture


def speeds(size: int) -> dict[str, np.ndarray]:
    """Return the speed of every method in every repetition, measured in turns.

    Args:
        size: Height and width of the frames, in pixels.

    Returns:
        Pairs of frames per second of processor time, shape (REPETITIONS,), by method.
    """
    pair, _ = draw_pair(np.array([[1, 0, 2], [0, 1, -1]]), size)
    clip = np.resize(pair, (PAIRS + 1, *pair.shape[1:]))

    def compute(method: str) -> None:
        for _ in range(CLIPS):
            optical_flow(clip, None, method)

    seconds = [
        [cpu_seconds(lambda method=method: compute(method)) for method in METHODS]
        for _ in range(REPETITIONS)
    ]
    return dict(zip(METHODS, CLIPS * PAIRS / np.transpose(seconds), strict=True))


def error(size: int, method: str) -> float:
    """Return the mean end-point error in pixels, over shifts of 1, 2 and 4 pixels."""
    errors = []
    for seed in range(6):
        speed, angle = (1, 2, 4)[seed % 3], 2.4 * seed
        motion = np.array([[1, 0, speed * np.cos(angle)], [0, 1, speed * np.sin(angle)]])
        frames, truth = draw_pair(motion, size, seed)
        flow = optical_flow(frames, None, method)[:, 0]
        errors.append(end_point_error(flow, truth)[MARGIN:-MARGIN, MARGIN:-MARGIN].mean())
    return float(np.mean(errors))


def measure(size: int) -> list[dict]:
    """Return a row per method for frames of one size, in pixels."""
    rows = []
    pairs = speeds(size)
    for method in METHODS:
        row = {
            "method": method,
            "size": size,
            "pairs_per_second": round(np.median(pairs[method])),
            "relative_to_dis": round(float(np.median(pairs[method] / pairs["dis"])), 2),
        }
        if method != "difference":  # it estimates no motion, so it has no error
            row["error_pixels"] = round(error(size, method), 3)
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    """Measure, print and write the results."""
    options = argument_parser(__doc__, RESULTS / "flow.json").parse_args()
    cv2.setNumThreads(1)
    rows = [row for size in SIZES for row in measure(size)]
    write(options.out, {"hardware": hardware(), "rows": rows})


if __name__ == "__main__":
    main()
