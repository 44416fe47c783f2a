"""Audit of the paper's accuracies: what a leak of sources between training and test can show."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from hstlib.book.paper import PAPER_ROWS
from hstlib.book.study import FITTED


@dataclass(frozen=True)
class Quoted:
    """Accuracies that others report; they are quoted, not measured here.

    Attributes:
        model: Name of the network.
        source: Where they are reported, as Markdown.
        hmdb51: Top-1 accuracy on HMDB51 in percent.
        ucf101: Top-1 accuracy on UCF101 in percent.
    """

    model: str
    source: str
    hmdb51: float
    ucf101: float


FROM_SCRATCH = (
    Quoted("C3D", "[R2Plus1D-C3D](https://github.com/leftthomas/R2Plus1D-C3D)", 25.10, 51.63),
    Quoted("R(2+1)D", "[R2Plus1D-C3D](https://github.com/leftthomas/R2Plus1D-C3D)", 24.97, 63.60),
    Quoted("R3D", "[IIC](https://github.com/BestJuly/IIC)", 23.4, 54.5),
    Quoted("3D ResNet-18", "Hara et al., 2018", 17.1, 42.4),
)
"""Trained from scratch on official splits."""
PUBLIC_CODE = Quoted(
    "C3D",
    "[pytorch-video-recognition](https://github.com/jfzhang95/pytorch-video-recognition)",
    64.7,
    96.2,
)
"""Highest test accuracies of the public code's two curves: pretrained weights by default, and a
random split by video that trains on 64 % and tests on 20 %."""
PUBLIC_TRAINING_SHARE = 0.64
PUBLIC_SPLIT = "random by video, 64 % for training"


def ceiling(leaked: float, honest: float) -> float:
    """Return the highest accuracy that a leak of sources explains.

    All leaked test clips are right, and the others as often as clips of unseen sources are.

    Args:
        leaked: Share of the test clips whose source is in training.
        honest: Accuracy on clips of sources that are not in training, as a fraction.
    """
    return leaked + (1 - leaked) * honest


def required_recall(printed: float, leaked: float, honest: float) -> float:
    """Return the share of the leaked clips that must be right to reach an accuracy.

    Args:
        printed: Accuracy to reach, as a fraction.
        leaked: Share of the test clips whose source is in training.
        honest: Accuracy on the other clips, as a fraction.

    Returns:
        A fraction; above 1 if the accuracy is out of reach. NaN without leaked clips.
    """
    return (printed - (1 - leaked) * honest) / leaked if leaked else float("nan")


def expected_leak(group_sizes: Mapping[str, int], training_share: float) -> float:
    """Return the share of test clips that leak if each clip is drawn into training independently.

    Args:
        group_sizes: Number of groups by number of clips.
        training_share: Probability of a clip to be in training.
    """
    clips = {int(size): int(size) * count for size, count in group_sizes.items()}
    alone = sum(n * (1 - training_share) ** (size - 1) for size, n in clips.items())
    return 1 - alone / sum(clips.values())


def protocol_table(leakage: Mapping, dataset: str) -> pd.DataFrame:
    """Tabulate what each protocol could print on a data set, beside what the paper prints.

    Args:
        leakage: Content of ``benchmarks/results/leakage.json``.
        dataset: ``hmdb51`` or ``ucf101``.

    Returns:
        One row per protocol, all values as fractions: leaked share, ceiling from the lowest and
        the highest accuracy of :data:`FROM_SCRATCH`, and the share of the leaked clips that must
        be right for the paper's HST.
    """
    measured = {
        row["protocol"]: row["mean"]
        for row in leakage["rows"]
        if (row["dataset"], row["rule"]) == (dataset, "group")
    }
    public = expected_leak(leakage["group_sizes"][dataset], PUBLIC_TRAINING_SHARE)
    shares = {
        "official": measured["official"],
        PUBLIC_SPLIT: public,
        "random by video, 80 % for training": measured["random-by-video"],
        "random by clip": measured["random-by-clip"],
    }
    honest = [getattr(quoted, dataset) / 100 for quoted in FROM_SCRATCH]
    printed = printed_accuracy("HST", dataset)
    rows = {
        protocol: {
            "leaked": leaked,
            "ceiling, lowest": ceiling(leaked, min(honest)),
            "ceiling, highest": ceiling(leaked, max(honest)),
            "leaked clips that must be right": required_recall(printed, leaked, max(honest)),
        }
        for protocol, leaked in shares.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("protocol")


def printed_accuracy(title: str, dataset: str) -> float:
    """Return the accuracy that the paper prints for a model, as a fraction."""
    (row,) = (row for row in PAPER_ROWS if (row.title, row.dataset) == (title, dataset))
    return float(row.accuracy) / 100


DIAL_CLASSIFIERS = {"histogram": "colour histogram", "network": "R3D"}
MIN_INFLATION = 10  # percentage points; a smaller difference is not called inflation


def dial_findings(rows: pd.DataFrame, chance: float = 0.25) -> list[str]:
    """Describe the measurements on the drawn corpora with a dial.

    Args:
        rows: Rows of ``benchmarks/leak_dial.py``.
        chance: Accuracy by chance, as a fraction.

    Returns:
        Sentences; every number and every verdict in them follows from the rows.
    """
    table = rows.set_index(["shared", "tied", "protocol"])
    fair, random = (table.xs(p, level="protocol") for p in ("official", "random-by-video"))
    histogram, leak = 100 * fair["histogram"], 100 * random["leaked"]
    sentences = [
        f"Official splits leak {100 * fair['leaked'].max():.0f} %; there the colour histogram "
        f"reaches {histogram.min():.0f} to {histogram.max():.0f} %, and chance is {chance:.0%}."
    ]
    for name, title in DIAL_CLASSIFIERS.items():
        inflation = 100 * (random[name] - fair[name])
        low, high = inflation[0, True], inflation[1, True]
        verdict = "inflation" if high - low >= MIN_INFLATION else "no inflation"
        sentences.append(
            f"{title}: the random split adds {round(low)} points where {leak[0, True]:.0f} % leak, "
            f"and {round(high)} where {leak[1, True]:.0f} % leak: {verdict}."
        )
    gain = 100 * (random["histogram"] - fair["histogram"])[1, False]
    effect = "still helps" if gain >= MIN_INFLATION else "does not help"
    sentences.append(
        f"If films are of all classes, {leak[1, False]:.0f} % leak, and the leak {effect} the "
        f"histogram: {round(gain)} points."
    )
    lowest = table["network_training"].min()
    fit = "has" if lowest >= FITTED else "has not"
    sentences.append(
        f"Every R3D {fit} fitted its training videos: the lowest training accuracy is {lowest:.0%}."
    )
    return sentences
