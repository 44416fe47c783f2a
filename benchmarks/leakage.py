"""Measure the leakage of the official splits and of random splits of HMDB51, UCF101 and J-HMDB.

Only the official split lists are read, no video. The chapter on splits, notebooks/08_splits.ipynb,
reads the results.
"""

from collections import Counter
from pathlib import Path

from common import RESULTS, argument_parser, write

from hstlib.config import data_root
from hstlib.data.datasets import VideoSet, load_dataset, split_at_random
from hstlib.data.leakage import find_leaks, leak_rules

DATASETS = ("hmdb51", "ucf101", "jhmdb")
SEEDS = range(1, 11)
CLIPS_PER_VIDEO = 4  # for the protocol random-by-clip


def measure(folder: Path) -> dict:
    """Measure the leakage of the data sets.

    Args:
        folder: Folder that contains hmdb51/, ucf101/ and jhmdb/.

    Returns:
        ``group_sizes``: number of groups by number of clips, for each data set; ``rows``: a row per
        data set, protocol and rule.
    """
    sizes, rows = {}, []
    for name in DATASETS:
        official = [load_dataset(name, folder / name, split) for split in (1, 2, 3)]
        groups = Counter(sample.group for sample in official[0].samples)
        counts = Counter(groups.values())
        sizes[name] = {str(size): counts[size] for size in sorted(counts)}
        by_video = [split_at_random(official[0], seed) for seed in SEEDS]
        by_clip = [split_at_random(official[0], seed, CLIPS_PER_VIDEO) for seed in SEEDS]
        for rule in leak_rules(official[0]):
            rows.append(row(name, "official", rule, official))
            rows.append(row(name, "random-by-video", rule, by_video))
            rows.append(row(name, "random-by-clip", rule, by_clip))
    return {"group_sizes": sizes, "rows": rows}


def row(name: str, protocol: str, rule: str, splits: list[VideoSet]) -> dict:
    """Count test clips and leaked test clips of every split; shares are fractions."""
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


def main() -> None:
    """Measure and write the results."""
    parser = argument_parser(__doc__, RESULTS / "leakage.json")
    parser.add_argument(
        "--data", type=Path, help="folder with hmdb51/, ucf101/ and jhmdb/; default: the data root"
    )
    options = parser.parse_args()
    write(options.out, measure(options.data or data_root()))


if __name__ == "__main__":
    main()
