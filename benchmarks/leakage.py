"""Leakage of all official splits and of random ones, from the official lists alone.

python benchmarks/leakage.py [--data <folder with hmdb51/ and ucf101/>]
"""

import json
from collections import Counter
from pathlib import Path

import tyro

from hstlib.config import data_root
from hstlib.datasets import VideoSet, load_dataset, split_at_random
from hstlib.leakage import find_leaks, rules_of

SEEDS = range(1, 11)
NUM_WINDOWS = 4
"""Clips of a video, of which ``random-by-clip`` draws."""
RESULTS = Path(__file__).parent / "results" / "leakage.json"


def measure(folder: Path) -> dict:
    """Return how many groups have how many clips, and a row per data set, protocol and rule."""
    sizes, rows = {}, []
    for name in ("hmdb51", "ucf101"):
        official = [load_dataset(name, folder / name, split) for split in (1, 2, 3)]
        counts = Counter(Counter(s.group for s in official[0].samples).values())
        sizes[name] = {str(size): counts[size] for size in sorted(counts)}
        by_video = [split_at_random(official[0], seed) for seed in SEEDS]
        by_clip = [split_at_random(official[0], seed, NUM_WINDOWS) for seed in SEEDS]
        for rule in rules_of(official[0]):
            rows.append(row(name, "official", rule, official))
            rows.append(row(name, "random-by-video", rule, by_video))
            rows.append(row(name, "random-by-clip", rule, by_clip))
    return {"group_sizes": sizes, "rows": rows}


def row(name: str, protocol: str, rule: str, splits: list[VideoSet]) -> dict:
    """Count the test clips and the leaked ones of every split; shares are fractions."""
    counts = [(len(split.test), sum(find_leaks(split, rule))) for split in splits]
    shares = [leaked / total for total, leaked in counts]
    return {
        "dataset": name,
        "protocol": protocol,
        "rule": rule,
        "test": [total for total, _ in counts],
        "leaked": [leaked for _, leaked in counts],
        "mean": round(sum(shares) / len(shares), 4),
        "min": round(min(shares), 4),
        "max": round(max(shares), 4),
    }


def main(data: Path | None = None) -> None:
    """Measure and store the table.

    Args:
        data: Folder of the data sets, by default the data root; their split lists are enough.
    """
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measure(data or data_root()), indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
