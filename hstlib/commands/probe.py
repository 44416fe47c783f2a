"""Command that asks what a model's accuracy is made of."""

from pathlib import Path
from typing import Any

import tyro

from hstlib.commands.models import device
from hstlib.commands.output import say
from hstlib.config import DatasetName
from hstlib.options import setting_of_path

Positional = tyro.conf.Positional


def probe(
    checkpoint: Positional[Path],
    dataset: Positional[DatasetName],
    data_dir: str = "",
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Measure how much of a model's accuracy is motion and how much is appearance.

    The test videos are classified as they are, in other orders, as one frame, without flow, and as
    noise that moves as they do; and without a network.

    Args:
        checkpoint: A .safetensors file written by train.
        dataset: Data set to test on, at the split that the model was trained at.
        data_dir: Folder of the data set; by default the one that the model was trained on.
        seed: Seed of the random order and of the noise.
        json: File to write the results to.
    """
    from json import dumps

    from hstlib.files import complete

    report = probe_report(checkpoint, dataset, setting_of_path(data_dir), seed)
    say(*report_lines(report))
    if json:
        with complete(json.expanduser()) as unfinished:
            unfinished.write_text(dumps(report, indent=1) + "\n")


def probe_report(
    checkpoint: Path, dataset: DatasetName, data_dir: str = "", seed: int = 0
) -> dict[str, Any]:
    """Probe a checkpoint; return the results with all that defines them.

    Args:
        checkpoint: A .safetensors file written by training.
        dataset: Data set to test on.
        data_dir: Its folder, as a setting; empty: as in training.
        seed: Seed of the random order and of the noise.

    Returns:
        ``rows`` has one entry per probe, then per reference without a network: ``name``, ``top1``
        with its interval ``low`` and ``high`` in percent, ``difference`` to the original with its
        interval (probes only), and ``correct``, a digit per test video.

    Raises:
        ValueError: If the checkpoint or the data set cannot be used, or their classes differ.
    """
    from hstlib.inference.probe import probe as probe_model
    from hstlib.inference.probe import without_network
    from hstlib.training.checkpoint import check_split, checkpoint_sha256, load_checkpoint
    from hstlib.training.experiment import open_dataset, open_store

    model, config, classes = load_checkpoint(checkpoint, device())
    is_own = dataset == config.dataset
    own_dir = config.data_dir if is_own else ""
    data = open_dataset(
        config.model_copy(update={"dataset": dataset, "data_dir": data_dir or own_dir})
    )
    if is_own:
        check_split(checkpoint, data)
    if data.classes != tuple(classes):
        raise ValueError(f"{checkpoint} knows classes {classes}, and {dataset} has {data.classes}")
    store = open_store(data, config.clip)
    probed = probe_model(model, config, data, store, seed)
    groups = [sample.group for sample in data.test]
    rows = [_row(name, correct, groups, probed["original"]) for name, correct in probed.items()]
    rows += [_row(name, right, groups) for name, right in without_network(data, store).items()]
    return {
        "run_id": config.run_id,
        "checkpoint": checkpoint_sha256(checkpoint),
        "dataset": data.name,
        "split": config.split,
        "protocol": config.protocol,
        "split_id": data.split_id,
        "seed": seed,
        "chance": 100 / len(data.classes),
        "videos": len(data.test),
        "sources": len(set(groups)),
        "rows": rows,
    }


def _row(name: str, correct: Any, groups: list[str], original: Any = None) -> dict[str, Any]:
    """Return the accuracy of one probe with its interval, and its difference to the original."""
    import numpy as np

    from hstlib.book.statistics import Hits, SplitHits, confidence_interval

    _, source = np.unique(groups, return_inverse=True)

    def hits(right: np.ndarray) -> Hits:
        return [SplitHits(np.bincount(source, right)[None], np.bincount(source))]

    def rounded(counts: Hits, baseline: Hits | None = None) -> list[float]:
        interval = confidence_interval(counts, baseline)
        return [round(float(v), 2) for v in (interval.mean, interval.low, interval.high)]

    row = {"name": name, **dict(zip(("top1", "low", "high"), rounded(hits(correct)), strict=True))}
    if original is not None and name != "original":
        row["difference"] = rounded(hits(correct), hits(original))
    return row | {"correct": "".join(map(str, correct.astype(int)))}


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return a report as the lines of a table."""
    from hstlib.data.shortcuts import SHORTCUTS
    from hstlib.inference.probe import ABOUT

    lines = [
        f"{report['run_id']} on {report['dataset']}: {report['videos']} test videos of "
        f"{report['sources']} sources; top-1 in %, with its 95 % interval"
    ]
    for row in report["rows"]:
        if row["name"] == next(iter(SHORTCUTS)):
            lines.append("without a network:")
        interval = f"{row['top1']:5.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        lines.append(f"{row['name']:26} {interval:20} {ABOUT[row['name']]}")
    return [*lines, f"{'chance':26} {report['chance']:5.1f}"]
