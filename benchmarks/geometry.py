"""Classify UT-Interaction's videos by width, height and number of frames alone.

Each video gets the class of its nearest neighbours among the other groups; no pixel is used. The
result is a baseline for every accuracy on that data set.
"""

from pathlib import Path

import numpy as np
from common import RESULTS, argument_parser, write

from hstlib.data.datasets import load_dataset
from hstlib.data.video import inspect_video

NEIGHBOURS = (1, 3, 5)


def top1_by_neighbours(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_neighbours: int
) -> float:
    """Return the top-1 accuracy of nearest neighbours from other groups.

    Args:
        features: Features of the videos, shape (N, features); each is scaled to unit variance.
        labels: Classes, shape (N,).
        groups: Groups, shape (N,); videos of the same group are not compared.
        num_neighbours: Number of neighbours that vote for the class.
    """
    scaled = (features - features.mean(0)) / features.std(0)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    distances[groups[:, None] == groups[None]] = np.inf
    nearest = labels[np.argsort(distances, axis=1, kind="stable")[:, :num_neighbours]]
    votes = np.stack([(nearest == label).sum(1) for label in range(labels.max() + 1)], 1)
    return float((votes.argmax(1) == labels).mean())


def measure(folder: Path) -> dict:
    """Return number of videos, chance level and top-1 by number of neighbours, as fractions."""
    samples = load_dataset("folder", folder).samples
    files = [inspect_video(sample.path) for sample in samples]
    features = np.array([(file.width, file.height, file.frames) for file in files], float)
    labels = np.array([sample.label for sample in samples])
    groups = np.array([sample.group for sample in samples])
    top1 = {
        str(count): round(top1_by_neighbours(features, labels, groups, count), 3)
        for count in NEIGHBOURS
    }
    chance = round(float(np.bincount(labels).max() / len(labels)), 3)
    return {"videos": len(labels), "chance": chance, "top1_by_neighbours": top1}


def main() -> None:
    """Measure, print and write the results."""
    parser = argument_parser(__doc__, RESULTS / "geometry.json")
    parser.add_argument("--data", type=Path, required=True, help="folder of the class folders")
    options = parser.parse_args()
    results = measure(options.data)
    print(results)
    write(options.out, results)


if __name__ == "__main__":
    main()
