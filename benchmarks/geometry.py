"""How far do width, height and length of the files alone go on UT-Interaction?

Run `python benchmarks/geometry.py --data <its class folders>`; it writes
benchmarks/results/geometry.json, which stands beside every result on that data set. Each video gets
the class of its nearest neighbours among the other groups; no pixel is looked at.
"""

import argparse
from pathlib import Path

import numpy as np
from flow import RESULTS, write

from hstlib.datasets import load_dataset
from hstlib.video import inspect_video

NEIGHBOURS = (1, 3, 5)


def nearest_neighbours(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int):
    """Return the share of videos whose k nearest of other groups agree on the right class."""
    scaled = (features - features.mean(0)) / features.std(0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    distance[groups[:, None] == groups[None]] = np.inf
    nearest = labels[np.argsort(distance, axis=1, kind="stable")[:, :k]]
    votes = np.stack([(nearest == label).sum(1) for label in range(labels.max() + 1)], 1)
    return (votes.argmax(1) == labels).mean()


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    data = load_dataset("folder", parser.parse_args().data)
    files = [inspect_video(sample.path) for sample in data.samples]
    features = np.array([(f.width, f.height, f.frames) for f in files], float)
    labels = np.array([sample.label for sample in data.samples])
    groups = np.array([sample.group for sample in data.samples])
    shares = {
        str(k): round(float(nearest_neighbours(features, labels, groups, k)), 3) for k in NEIGHBOURS
    }
    chance = round(float(np.bincount(labels).max() / len(labels)), 3)
    write(
        RESULTS / "geometry.json",
        {"videos": len(labels), "chance": chance, "top1_by_neighbours": shares},
    )
    print(shares, "chance", chance)


if __name__ == "__main__":
    main()
