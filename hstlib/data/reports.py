"""Reports on what needs no network at a split, kept to stand beside the results of models."""

import json
import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from hstlib.config import Protocol, TrainConfig, project_path
from hstlib.data.cache import cache_root
from hstlib.data.datasets import load_dataset
from hstlib.data.shortcuts import SHORTCUTS, read_features, shortcuts
from hstlib.data.video import decoder_version
from hstlib.files import complete

MAX_FAULTS = 5  # that are printed
log = logging.getLogger("hstlib")


class Best(NamedTuple):
    """The best shortcut at a split.

    Attributes:
        name: Key of :data:`hstlib.data.shortcuts.SHORTCUTS`.
        top1: Its top-1 accuracy, a fraction.
        chance: 1 / classes.
    """

    name: str
    top1: float
    chance: float


def shortcut_report(
    name: str,
    data_dir: str | Path = "",
    split: int = 1,
    protocol: Protocol = "official",
    clips_per_video: int = 4,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure all shortcuts at one split, and keep the report for :func:`best_shortcut`.

    Args:
        name: Name of the data set, as for :func:`hstlib.data.datasets.load_dataset`.
        data_dir: Folder of the data set; empty: its place under the data root.
        split: Split 1-3.
        protocol: How training and test set are split.
        clips_per_video: Clips of each video, for ``random-by-clip``.
        out: JSON file that also gets the report; None: no other.

    Returns:
        The result, with all that defines it.

    Raises:
        ValueError: If the data set cannot be read, or none of its training videos.
    """
    data = load_dataset(name, data_dir, split, protocol=protocol, clips_per_video=clips_per_video)
    features, faults = read_features(data)
    report = {
        "dataset": data.name,
        "split": split,
        "protocol": protocol,
        "split_id": data.split_id,
        "classes": len(data.classes),
        "train": len(data.train),
        "test": len(data.test),
        "top1": shortcuts(data, features),
        "features": SHORTCUTS,
        "decoder": decoder_version(),
        "faults": list(faults.values()),
    }
    try:
        _save(report, report_file(data.split_id))
    except OSError as error:
        log.warning("%s: not kept for the tables of results (set HST_CACHE)", error)
    if out:
        _save(report, out.expanduser())
    return report


def _save(report: dict[str, Any], file: Path) -> None:
    with complete(file) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n")


def report_file(split_id: str) -> Path:
    """Return the file that keeps the report on a split, under the root of what is written."""
    return cache_root() / "shortcuts" / f"{split_id}.json"


def best_shortcut(config: TrainConfig, split_id: str) -> str | None:
    """Describe the best shortcut at the split of a run, to stand beside the run's accuracy.

    Args:
        config: Settings of the run.
        split_id: Hash of its lists, :attr:`hstlib.data.samples.VideoSet.split_id`.

    Returns:
        One line; without a report, it names the command that measures. None for drawn videos and
        for smoke tests, which are no results.

    Raises:
        ValueError: If the report is damaged.
    """
    if config.dataset.startswith("demo-") or config.limit:
        return None
    best = read_best(split_id)
    if best is None:
        return f"without a network: not measured; run `{_command(config)}`"
    return f"without a network: {best.top1:.1%} by {best.name}; chance: {best.chance:.1%}"


def read_best(split_id: str) -> Best | None:
    """Return the best shortcut of the report on a split; None if nobody has measured it.

    Raises:
        ValueError: If the report is damaged.
    """
    file = report_file(split_id)
    if not file.is_file():
        return None
    try:
        top1 = json.loads(file.read_text())["top1"]
        chance = top1.pop("chance")
        name = max(top1, key=top1.get)
        return Best(name, float(top1[name]), float(chance))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a report of `shortcuts` ({error!r}); delete it") from error


def split_id_here(config: TrainConfig) -> str:
    """Return the hash of the lists of a run's split; empty if the lists are not on this machine."""
    try:
        data = load_dataset(
            config.dataset,
            config.data_dir,
            config.split,
            protocol=config.protocol,
            clips_per_video=config.clips_per_video,
        )
    except ValueError:
        return ""
    return data.split_id


def _command(config: TrainConfig) -> str:
    """Return the command that measures the split of a run."""
    options = []
    if config.data_dir:
        options += ["--data-dir", str(project_path(config.data_dir))]
    if config.split != 1:
        options += ["--split", str(config.split)]
    if config.protocol != "official":
        options += ["--protocol", config.protocol]
    if config.protocol == "random-by-clip":
        options += ["--clips-per-video", str(config.clips_per_video)]
    return shlex.join(["python", "-m", "hstlib", "shortcuts", config.dataset, *options])


def report_title(report: dict[str, Any]) -> str:
    """Return the data set and the split of a report in a few words."""
    place = f"{report['dataset']}, split {report['split']}, {report['protocol']}"
    return f"{place}: nearest neighbour, no network"


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return a report as lines of text: one per shortcut, then what cannot be read."""
    lines = [
        f"{name:16} {top1:6.1%}  {report['features'].get(name, '1 / classes')}"
        for name, top1 in report["top1"].items()
    ]
    faults = report["faults"]
    lines.append(f"{report['test']} test and {report['train']} training samples")
    if faults:
        lines.append(f"files that cannot be used: {len(faults)}; those in the test set are wrong")
        lines += faults[:MAX_FAULTS]
    if len(faults) > MAX_FAULTS:
        rest = len(faults) - MAX_FAULTS
        lines.append(f"and {rest} more; `python -m hstlib verify` lists all of them")
    return lines
