"""All pictures of the book, and the only import of matplotlib.

Functions take arrays and axes, draw into the axes and return them. Those named ``..._figure`` make
a figure of their own, since its size depends on what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hstlib.book.audit import FROM_SCRATCH, PUBLIC_CODE
from hstlib.book.findings import OFFICIAL, RANDOM
from hstlib.book.paper import PAPER_ROWS
from hstlib.book.statistics import Interval
from hstlib.book.study import Result

RIGHT, WRONG = "#1a7f37", "#c1121f"
UNKNOWN = "#57606a"
FRAMES_PER_CLIP = 4  # in Figures 8 and 9


@dataclass(frozen=True)
class Prediction:
    """One test clip of Figure 8 or 9.

    Attributes:
        frames: RGB uint8, shape (T, H, W, 3).
        predicted: Name of the class with the highest probability.
        probability: Probability of that class, from 0 to 1.
        truth: Name of the true class; None if it is not known.
    """

    frames: np.ndarray
    predicted: str
    probability: float
    truth: str | None = None


def evenly(length: int, number: int) -> np.ndarray:
    """Return evenly spaced indices into a sequence of a given length, first and last included."""
    return np.linspace(0, length - 1, number).round().astype(int)


def show_frames(axes: Sequence[Axes], frames: np.ndarray, indices: Sequence[int]) -> Sequence[Axes]:
    """Show frames of a clip, titled with their numbers from 1.

    Args:
        axes: Axes, one per frame to show.
        frames: RGB uint8, shape (T, H, W, 3).
        indices: Indices of the frames to show.
    """
    for ax, index in zip(axes, indices, strict=True):
        ax.imshow(frames[index])
        ax.set_title(f"frame {index + 1}", fontsize=9)
        ax.axis("off")
    return axes


def flow_to_rgb(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Convert a flow field to colours: hue is direction, brightness is speed.

    Args:
        flow: Flow in pixels per frame, shape (2, H, W).
        largest: Speed at full brightness, in pixels per frame; None: the largest in the field.

    Returns:
        RGB, uint8, shape (H, W, 3). Motion to the right is red, downwards is yellow-green.
    """
    x, y = flow.astype(np.float32)
    speed, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    brightness = np.clip(speed / max(largest or speed.max(), 1e-6), 0, 1) * 255
    hsv = np.stack([angle / 2, np.full_like(x, 255), brightness], -1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def show_flow(axes: Sequence[Axes], flow: np.ndarray, indices: Sequence[int]) -> Sequence[Axes]:
    """Show flow fields of a clip as colours on one brightness scale.

    Args:
        axes: Axes, one per field to show.
        flow: Flow in pixels per frame, shape (2, T, H, W).
        indices: Indices of the fields to show.
    """
    largest = float(np.hypot(*flow.astype(np.float32)).max())
    for ax, index in zip(axes, indices, strict=True):
        ax.imshow(flow_to_rgb(flow[:, index], largest))
        ax.set_title(f"flow {index + 1}", fontsize=9)
        ax.axis("off")
    return axes


def show_maps(axes: Sequence[Axes], maps: np.ndarray, titles: Sequence[str]) -> Sequence[Axes]:
    """Show 2-D maps on one colour scale.

    Args:
        axes: Axes, one per map.
        maps: Values, shape (N, H, W).
        titles: Titles, one per map.
    """
    low, high = float(np.min(maps)), float(np.max(maps))
    for ax, values, title in zip(axes, maps, titles, strict=True):
        ax.imshow(values, cmap="viridis", vmin=low, vmax=high)
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    return axes


def show_numbers(ax: Axes, grid: np.ndarray, title: str) -> Axes:
    """Show a small grid of numbers, each written in its cell.

    Args:
        ax: Axes to draw into.
        grid: Numbers, shape (rows, columns).
        title: Title of the axes.
    """
    ax.imshow(grid, cmap="Pastel1")
    for (row, column), value in np.ndenumerate(grid):
        ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])
    return ax


def show_learning(ax: Axes, epochs: Sequence[dict[str, float | int]], label: str) -> Axes:
    """Plot the training loss of a run against its epochs, counted from 1.

    Args:
        ax: Axes to draw into.
        epochs: ``epoch`` (from 0) and ``loss`` of every epoch, as in a result row.
        label: Name of the run in a legend.
    """
    numbers = [epoch["epoch"] + 1 for epoch in epochs]
    ax.plot(numbers, [epoch["loss"] for epoch in epochs], marker="o", label=label)
    ax.set(xlabel="epoch", ylabel="training loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return ax


def show_differences(ax: Axes, differences: dict[str, Interval], title: str) -> Axes:
    """Plot differences with their intervals, one row each, beside a line at 0.

    Args:
        ax: Axes to draw into.
        differences: Mean and interval by name, from top to bottom. An interval above 0 is green,
            one below 0 is red, one that includes 0 is grey.
        title: Title of the axes.
    """
    for row, interval in enumerate(differences.values()):
        colour = RIGHT if interval.low > 0 else WRONG if interval.high < 0 else "grey"
        ax.plot([interval.low, interval.high], [row, row], color=colour)
        ax.plot(interval.mean, row, "o", color=colour)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(differences)), list(differences))
    ax.set_ylim(len(differences) - 0.5, -0.5)
    ax.set_title(title, fontsize=9)
    return ax


def specification_figure(
    readings: Sequence[Result], others: Sequence[Result], alternatives: Sequence[str]
) -> Figure:
    """Draw a specification curve: accuracies above, and what each reading chooses below.

    Args:
        readings: Readings of HST, from left to right. HST as built is red.
        others: Models that get a dashed line.
        alternatives: Names of the rows below. A dot marks a reading that takes the alternative.
    """
    rows = len(alternatives)
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(9, 4 + 0.2 * rows), height_ratios=(4, 0.2 * rows), sharex=True,
        layout="constrained",
    )  # fmt: skip
    for number, result in enumerate(readings):
        names, accuracy = result.rows[0].config.reading.split("+"), result.accuracy
        colour = "tab:red" if names == ["paper"] else "tab:blue"
        top.plot([number] * 2, [accuracy.low, accuracy.high], color=colour, alpha=0.4)
        top.plot(number, accuracy.mean, "o", color=colour, markersize=5)
        taken = [row for row, name in enumerate(alternatives) if name in names]
        below.plot([number] * len(taken), taken, "s", color=colour, markersize=4)
    for number, other in enumerate(others):
        top.axhline(other.accuracy.mean, color=f"C{number + 4}", linestyle="--", label=other.title)
    top.set(ylabel="top-1 (%)", ylim=(0, 100))
    below.set(xlabel="readings of HST, from the least to the most accurate", xticks=[])
    below.set_yticks(range(rows), alternatives, fontsize=7)
    below.set_ylim(rows - 0.5, -0.5)
    figure.legend(*top.get_legend_handles_labels(), fontsize=8, ncols=3, loc="outside upper center")
    return figure


def show_shares(ax: Axes, shares: dict[str, dict[str, float]]) -> Axes:
    """Plot shares of the time as stacked horizontal bars, with one colour per part.

    Args:
        ax: Axes to draw into.
        shares: Fractions by bar, from top to bottom, and part.
    """
    parts = list(dict.fromkeys(part for bar in shares.values() for part in bar))
    starts = np.zeros(len(shares))
    for part in parts:
        widths = np.array([100 * bar.get(part, 0.0) for bar in shares.values()])
        ax.barh(range(len(shares)), widths, left=starts, label=part)
        starts += widths
    ax.set_yticks(range(len(shares)), list(shares))
    ax.invert_yaxis()
    ax.set_xlabel("share of the time (%)")
    ax.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def show_leak(ax: Axes, table: pd.DataFrame, ceiling: float) -> Axes:
    """Draw top-1 on official and on random splits, one line per model or reference.

    Beside them stand accuracies on HMDB51: what others report and what the paper prints.

    Args:
        ax: Axes to draw into.
        table: Result of :meth:`hstlib.book.findings.Evidence.leak_table`; lines that lack a
            protocol are left out.
        ceiling: Highest top-1 on HMDB51 that a leak explains, in percent.
    """
    both = table.dropna().sort_values(RANDOM)
    ax.hlines(both.index, both[OFFICIAL], both[RANDOM], color="grey")
    ax.plot(both[OFFICIAL], both.index, "o", label=OFFICIAL)
    ax.plot(both[RANDOM], both.index, "s", label=RANDOM)
    quoted = [network.hmdb51 for network in FROM_SCRATCH]
    ax.axvspan(min(quoted), max(quoted), alpha=0.15, color="C2", label="HMDB51, official: others")
    ax.axvline(PUBLIC_CODE.hmdb51, color="C3", linestyle=":", label="HMDB51, random: public code")
    ax.axvline(ceiling, color="black", linestyle="--", label="HMDB51, random: ceiling of a leak")
    printed = [float(row.accuracy) for row in PAPER_ROWS if row.dataset == "hmdb51"]
    ax.axvspan(min(printed), max(printed), alpha=0.15, label="HMDB51: the paper, Table 2")
    ax.set(xlabel="top-1 (%)", xlim=(0, 100))
    ax.figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return ax


def shortcut_figure(top1: dict[str, float], title: str) -> Figure:
    """Draw accuracies without a network as bars, beside a line at chance.

    Args:
        top1: Fractions by name, from :func:`hstlib.data.shortcuts.shortcuts`.
        title: Title of the figure.
    """
    names = [name for name in top1 if name != "chance"]
    figure, ax = plt.subplots(figsize=(6.4, 1.2 + 0.35 * len(names)), layout="constrained")
    bars = ax.barh(names, [100 * top1[name] for name in names])
    ax.bar_label(bars, fmt="%.1f", padding=4, backgroundcolor="white")
    ax.axvline(100 * top1["chance"], color="black", linestyle="--")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="top-1 (%); dashed: chance")
    ax.set_title(title, parse_math=False)  # it has the name of a folder
    return figure


def prediction_figure(predictions: Sequence[Prediction]) -> Figure:
    """Draw Figure 8 or 9: four frames of each clip, with the prediction in the upper left corner.

    A right prediction has a green label and frame. A wrong one is red, and its label also names the
    true class. If the true class is not known, both are grey.

    Args:
        predictions: Clips and predictions, one per row of the figure.
    """
    height, width = predictions[0].frames.shape[1:3]
    size = (2.6 * FRAMES_PER_CLIP, 2.6 * len(predictions) * height / width)
    figure, grid = plt.subplots(len(predictions), FRAMES_PER_CLIP, figsize=size, squeeze=False)
    for axes, prediction in zip(grid, predictions, strict=True):
        label, colour = _label(prediction)
        indices = evenly(len(prediction.frames), FRAMES_PER_CLIP)
        for ax, index in zip(axes, indices, strict=True):
            _show_labelled(ax, prediction.frames[index], label, colour)
    figure.tight_layout(pad=0.4)
    return figure


def _label(prediction: Prediction) -> tuple[str, str]:
    """Return text and colour of the label."""
    text = f"{prediction.predicted} {prediction.probability:.2f}"
    if prediction.truth is None:
        return text, UNKNOWN
    if prediction.predicted == prediction.truth:
        return f"\N{CHECK MARK} {text}", RIGHT
    return f"\N{BALLOT X} {text}\n   is {prediction.truth}", WRONG


def _show_labelled(ax: Axes, frame: np.ndarray, label: str, colour: str) -> None:
    ax.imshow(frame, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=3)
    ax.text(  # the name of a class is no formula
        0.03, 0.97, label, transform=ax.transAxes, va="top", fontsize=8, color="white",
        parse_math=False,
        bbox={"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )  # fmt: skip


def show_efficiency(ax: Axes, table: pd.DataFrame, size: str, references: dict[str, float]) -> Axes:
    """Plot top-1 with its interval against the size of a model, beside lines without a network.

    A model that has not fitted its training videos has a hollow marker.

    Args:
        ax: Axes to draw into.
        table: One row per model title: a column of sizes, ``top-1``, ``low`` and ``high`` in
            percent, and ``fitted``.
        size: Column to plot against, on a logarithmic scale; also the label of the axis.
        references: Top-1 in percent of what needs no network, by name.
    """
    for number, (title, row) in enumerate(table.iterrows()):
        colour = f"C{number}"
        ax.plot([row[size]] * 2, [row["low"], row["high"]], color=colour, linewidth=1)
        label = title if row["fitted"] else f"{title}, not fitted"
        face = colour if row["fitted"] else "white"
        ax.plot(row[size], row["top-1"], "o", color=colour, markerfacecolor=face, label=label)
    for number, (name, top1) in enumerate(references.items()):
        style = [":", "--", "-."][number % 3]
        ax.axhline(top1, color="grey", linewidth=0.9, linestyle=style, label=f"{name}, no network")
    ax.set(xscale="log", xlabel=size, ylabel="top-1 (%)")
    return ax
