"""Measure how a leak between training and test changes accuracies, on drawn corpora with a dial.

The dial is the share of the videos whose look belongs to a film of their class. Two classifiers are
trained and tested on the official splits, which keep films apart, and on random splits by video: a
nearest neighbour by colour histogram, and a small R3D. The chapter on the audit,
notebooks/15_audit.ipynb, reads the results. The corpora are drawn under the data root.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, argument_parser, processor, write

from hstlib.config import TrainConfig
from hstlib.data.datasets import load_dataset
from hstlib.data.dial import make_dial
from hstlib.data.leakage import find_leaks
from hstlib.data.shortcuts import read_features, shortcuts
from hstlib.training.experiment import run_experiment

DIAL = ((0, True), (0.25, True), (0.5, True), (0.75, True), (1, True), (1, False))
"""Share of the videos that are cut from films, and whether a film belongs to one class."""
PROTOCOLS = ("official", "random-by-video")
SPLITS = (1, 2, 3)  # for the histogram; the network is trained on the first
SIZE = 32  # pixels
EPOCHS = 15


def measure(shared: float, tied: bool, epochs: int, results: Path) -> list[dict]:
    """Return a row per protocol for one corpus; shares and accuracies are fractions.

    Args:
        shared: Share of the videos that are cut from films.
        tied: Whether a film belongs to one class.
        epochs: Epochs of the network.
        results: Folder of its runs.
    """
    root = make_dial(shared, tied, workers=1)
    features, faults = read_features(load_dataset("folder", root), workers=1)
    if faults:
        raise RuntimeError(f"{root}: drawn videos that cannot be read: {faults}")
    rows = []
    for protocol in PROTOCOLS:
        splits = [load_dataset("folder", root, split, protocol=protocol) for split in SPLITS]
        leaks = [find_leaks(split) for split in splits]
        histogram = [shortcuts(split, features)["colour histogram"] for split in splits]
        network = run_experiment(network_config(root, protocol, epochs), results)
        rows.append(
            {
                "shared": shared,
                "tied": tied,
                "protocol": protocol,
                "leaked": round(float(np.mean(leaks)), 4),
                "histogram": round(float(np.mean(histogram)), 4),
                "test_videos": sum(map(len, leaks)),
                "network": round(network.test["top1"], 4),
                "network_leaked": round(float(np.mean(leaks[0])), 4),
                "network_training": round(network.epochs[-1]["train_top1"], 4),
                "network_test_videos": len(leaks[0]),
                "steps": epochs * (len(splits[0].train) // network.config.batch_size),
            }
        )
        print(rows[-1], flush=True)
    return rows


def network_config(root: Path, protocol: str, epochs: int) -> TrainConfig:
    """Return the settings of the network: a small R3D, trained on the first split."""
    return TrainConfig(
        dataset="folder", data_dir=str(root), protocol=protocol, model="r3d", backbone="demo",
        size=SIZE, epochs=epochs, batch_size=16, learning_rate=0.003, schedule="cosine",
        device="cpu",
    )  # fmt: skip


def main() -> None:
    """Measure, print and write the results after every corpus."""
    parser = argument_parser(__doc__, RESULTS / "leak_dial.json")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default: {EPOCHS}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, begin = [], time.process_time()
    with tempfile.TemporaryDirectory() as results:
        for shared, tied in DIAL:
            rows += measure(shared, tied, options.epochs, Path(results))
            content = {
                "hardware": f"{processor()}, one thread",
                "torch": torch.__version__,
                "processor_seconds": round(time.process_time() - begin),
                "settings": {"model": "r3d", "backbone": "demo", "size": SIZE},
                "rows": rows,
            }
            write(options.out, content)


if __name__ == "__main__":
    main()
