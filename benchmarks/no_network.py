"""Classify the test videos of a plan's splits without a network, and count those that leak.

Every data set, protocol and split of the plan: nearest neighbours by simple features of the video,
and ridge regression on the clips that the models see. An accuracy of a model on the same split
stands beside these.
"""

from dataclasses import replace

import numpy as np
import yaml
from common import RESULTS, argument_parser, write

from hstlib.config import TrainConfig, project_path
from hstlib.data.datasets import VideoSet
from hstlib.data.leakage import find_leaks
from hstlib.data.ridge import ridge_classes
from hstlib.data.shortcuts import nearest_classes, read_features
from hstlib.training.experiment import open_dataset, open_store
from hstlib.training.plan import planned_runs

Split = tuple[str, str, str, int]
"""Data set, its folder, protocol and split."""


def splits_of(plan: dict) -> dict[Split, TrainConfig]:
    """Return one run of every split of a plan, by data set, folder, protocol and split."""
    runs = planned_runs(plan).values()
    return {(run.dataset, run.data_dir, run.protocol, run.split): run for run in runs}


def measure(plan: dict) -> dict:
    """Measure every split of a plan.

    Returns:
        ``splits``: number of test videos, and of those that share a source with a training video.
        ``rows``: one per split and reference; ``correct`` has a digit per test video, in the order
        of the split's test list, 1 for a correct answer.
    """
    splits, rows, features = [], [], {}
    for config in splits_of(plan).values():
        data = open_dataset(config)
        place = config.dataset, config.data_dir
        if place not in features:
            whole = replace(data, train=data.samples, test=())
            features[place], _ = read_features(whole)
        predicted = nearest_classes(data, features[place])
        predicted |= ridge_classes(data, open_store(data, config.clip))
        key = {"dataset": config.dataset, "protocol": config.protocol, "split": config.split}
        key["split_id"] = data.split_id
        leaked = {"classes": len(data.classes), "test": len(data.test)}
        splits.append(key | leaked | {"leaked": sum(find_leaks(data))})
        rows += [key | answers(data, name, labels) for name, labels in predicted.items()]
        print(config.dataset, config.protocol, config.split)
    return {"splits": splits, "rows": rows}


def answers(data: VideoSet, name: str, predicted: np.ndarray) -> dict:
    """Return the name, the accuracy and the correct answers of one reference at one split."""
    correct = predicted == np.array([sample.label for sample in data.test])
    top1 = round(float(correct.mean()), 4)
    return {"reference": name, "top1": top1, "correct": "".join(map(str, correct.astype(int)))}


def main() -> None:
    """Measure and write the results."""
    parser = argument_parser(__doc__, RESULTS / "no_network.json")
    parser.add_argument("--plan", default="workflow/params/study.yaml", help="file of the plan")
    options = parser.parse_args()
    write(options.out, measure(yaml.safe_load(project_path(options.plan).read_text())))


if __name__ == "__main__":
    main()
