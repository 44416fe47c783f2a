"""All pictures of the book; functions take arrays and axes, and return the axes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from hstlib.diagrams import Block
from hstlib.metrics import Reliability
from hstlib.results import Interval

RIGHT, WRONG = "#1a7f37", "#c1121f"


@dataclass(frozen=True)
class Prediction:
    """One test clip of Figure 8 or 9.

    Attributes:
        frames: RGB uint8, shape (T, H, W, 3).
        predicted: Name of the class with the highest probability.
        probability: Of that class.
        truth: Name of the true class; none if it is not known.
    """

    frames: np.ndarray
    predicted: str
    probability: float
    truth: str | None = None


def evenly(count: int, shown: int) -> np.ndarray:
    """Return the indices of ``shown`` of ``count`` things, from the first to the last."""
    return np.linspace(0, count - 1, shown).round().astype(int)


def show_frames(axes: Sequence[Axes], frames: np.ndarray, indices: Sequence[int]) -> Sequence[Axes]:
    """Show some frames, each under its number.

    Args:
        axes: One per frame.
        frames: RGB uint8, shape (T, H, W, 3).
        indices: Which frames.
    """
    for ax, index in zip(axes, indices, strict=True):
        ax.imshow(frames[index])
        ax.set_title(f"frame {index + 1}", fontsize=9)
        ax.axis("off")
    return axes


def flow_to_rgb(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Colour a flow field: hue is direction, brightness is speed.

    Args:
        flow: Pixels per frame, shape (2, H, W).
        largest: Speed shown at full brightness; none: the largest one there is.

    Returns:
        RGB, uint8, shape (H, W, 3). Motion to the right is red, downwards is yellow-green.
    """
    x, y = flow.astype(np.float32)
    speed, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    brightness = np.clip(speed / max(largest or speed.max(), 1e-6), 0, 1) * 255
    hsv = np.stack([angle / 2, np.full_like(x, 255), brightness], -1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def show_flow(axes: Sequence[Axes], flow: np.ndarray, indices: Sequence[int]) -> Sequence[Axes]:
    """Show some flow fields as colour, with one brightness scale.

    Args:
        axes: One per field.
        flow: Pixels per frame, shape (2, T, H, W).
        indices: Which fields.
    """
    largest = float(np.hypot(*flow.astype(np.float32)).max())
    for ax, index in zip(axes, indices, strict=True):
        ax.imshow(flow_to_rgb(flow[:, index], largest))
        ax.set_title(f"flow {index + 1}", fontsize=9)
        ax.axis("off")
    return axes


def show_maps(axes: Sequence[Axes], maps: np.ndarray, titles: Sequence[str]) -> Sequence[Axes]:
    """Show 2-D maps with one colour scale.

    Args:
        axes: One per map.
        maps: Shape (N, H, W).
        titles: One per map.
    """
    low, high = float(np.min(maps)), float(np.max(maps))
    for ax, values, title in zip(axes, maps, titles, strict=True):
        ax.imshow(values, cmap="viridis", vmin=low, vmax=high)
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    return axes


def show_numbers(ax: Axes, grid: np.ndarray, title: str) -> Axes:
    """Show a small grid of numbers, each in its cell."""
    ax.imshow(grid, cmap="Pastel1")
    for (row, column), value in np.ndenumerate(grid):
        ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9)
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def show_learning(ax: Axes, epochs: Sequence[dict[str, float | int]], label: str) -> Axes:
    """Plot the loss of every epoch of a run."""
    ax.plot([e["epoch"] + 1 for e in epochs], [e["loss"] for e in epochs], marker="o", label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("training loss")
    return ax


def show_differences(ax: Axes, differences: dict[str, Interval], title: str) -> Axes:
    """Plot means and intervals around 0, from top to bottom; those that exclude 0 are coloured."""
    for row, value in enumerate(differences.values()):
        colour = RIGHT if value.low > 0 else WRONG if value.high < 0 else "grey"
        ax.plot([value.low, value.high], [row, row], color=colour)
        ax.plot(value.mean, row, "o", color=colour)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(differences)), list(differences))
    ax.set_ylim(len(differences) - 0.5, -0.5)
    ax.set_title(title, fontsize=9)
    return ax


def show_shares(ax: Axes, shares: dict[str, dict[str, float]]) -> Axes:
    """Draw shares of a whole as one bar each, from top to bottom, with one colour per part.

    Args:
        ax: Where.
        shares: By the name of the bar, its parts and their shares, fractions.
    """
    parts = list(dict.fromkeys(part for bar in shares.values() for part in bar))
    left = np.zeros(len(shares))
    for part in parts:
        widths = np.array([100 * bar.get(part, 0.0) for bar in shares.values()])
        ax.barh(range(len(shares)), widths, left=left, label=part)
        left += widths
    ax.set_yticks(range(len(shares)), list(shares))
    ax.invert_yaxis()
    ax.set_xlabel("share of the time (%)")
    ax.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def show_confusion(ax: Axes, confusion: np.ndarray, classes: Sequence[str]) -> Axes:
    """Show which class was taken for which, as shares of the videos of each true class.

    Large cells hold their number of videos. Where classes are too many for legible names, only
    every second, third ... is named. A class without videos is grey.

    Args:
        ax: On a figure of its final size, best with constrained layout.
        confusion: Of :func:`hstlib.metrics.confusion_matrix`, shape (C, C + 1); the last column is
            shown if a video was unreadable.
        classes: C names.
    """
    columns = [*classes, "unreadable"] if confusion[:, -1].any() else list(classes)
    confusion = confusion[:, : len(columns)]
    videos = confusion.sum(1, keepdims=True)
    shares = np.ma.masked_invalid(confusion / np.where(videos, videos, np.nan))
    colours = plt.get_cmap("Blues").with_extremes(bad="lightgrey")
    image = ax.imshow(shares, colours, PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = ax.inset_axes((1.03, 0, 0.03, 1))
    ax.figure.colorbar(image, bar, label="share of the true class")
    ax.axvline(len(classes) - 0.5, color="black", linewidth=0.8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true class")
    if _name_classes(ax, columns, len(classes)) > 18:
        for row, column in np.argwhere(confusion):
            colour = "white" if shares[row, column] > 0.4 else "black"
            text = confusion[row, column]
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return ax


def _name_classes(ax: Axes, columns: Sequence[str], rows: int) -> float:
    """Name rows and columns, as many as fit, and return the height of a row in points."""
    ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    ax.set_yticks(range(rows), columns[:rows], fontsize=7)
    ax.figure.draw_without_rendering()  # names take room from the picture
    height = ax.get_window_extent().height / rows * 72 / ax.figure.dpi
    step = int(np.ceil(8 / height))
    named = list(range(0, rows, step))
    ax.set_yticks(named, [columns[i] for i in named])
    if len(columns) > rows:
        named = [*(i for i in named if i <= rows - step), rows]
    ax.set_xticks(named, [columns[i] for i in named])
    return height


def show_reliability(ax: Axes, bins: Reliability, title: str) -> Axes:
    """Show the accuracy of each bin of confidence under its number of videos.

    On the diagonal a model is as often right as it is sure; the red lines are the distances whose
    weighted mean is the expected calibration error.

    Args:
        ax: Where.
        bins: Of :func:`hstlib.metrics.reliability`.
        title: Above it.
    """
    filled = np.flatnonzero(bins.counts)
    width = 1 / len(bins.counts)
    centres = (filled + 0.5) * width
    confidence, accuracy = bins.confidence[filled], bins.accuracy[filled]
    ax.bar(centres, accuracy, width, color="#ddf4ff", edgecolor="#57606a")
    ax.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    ax.vlines(confidence, accuracy, confidence, color=WRONG, linewidth=2)
    for x, count in zip(centres, bins.counts[filled], strict=True):
        ax.text(x, 1.02, count, ha="center", fontsize=7)
    ax.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="confidence", ylabel="accuracy")
    ax.set_title(title, fontsize=9)
    return ax


def prediction_figure(predictions: Sequence[Prediction], shown: int = 4) -> Figure:
    """Draw Figure 8 or 9: four frames of each clip, prediction in the upper left corner.

    A right prediction has a green label and frame, a wrong one a red label that also names the
    true class; an unknown truth is grey.

    Args:
        predictions: One row of the figure each.
        shown: Frames per clip.
    """
    height, width = predictions[0].frames.shape[1:3]
    size = (2.6 * shown, 2.6 * len(predictions) * height / width)
    figure, grid = plt.subplots(len(predictions), shown, figsize=size, squeeze=False)
    for axes, prediction in zip(grid, predictions, strict=True):
        label, colour = _label(prediction)
        for ax, index in zip(axes, evenly(len(prediction.frames), shown), strict=True):
            ax.imshow(prediction.frames[index], interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set(color=colour, linewidth=3)
            ax.text(
                0.03, 0.97, label, transform=ax.transAxes, va="top", fontsize=8, color="white",
                bbox={"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 2},
            )  # fmt: skip
    figure.tight_layout(pad=0.4)
    return figure


def _label(prediction: Prediction) -> tuple[str, str]:
    text = f"{prediction.predicted} {prediction.probability:.2f}"
    if prediction.truth is None:
        return text, "#57606a"
    if prediction.predicted == prediction.truth:
        return f"\N{CHECK MARK} {text}", RIGHT
    return f"\N{BALLOT X} {text}\n   is {prediction.truth}", WRONG


def show_blocks(ax: Axes, blocks: Sequence[Block], title: str) -> Axes:
    """Draw a block diagram from the top to the bottom, each box below all that feed it."""
    depth: dict[str, int] = {}
    for block in blocks:
        depth[block.name] = 1 + max((depth[source] for source in block.sources), default=-1)
    rows: dict[int, list[str]] = {}
    for name, level in depth.items():
        rows.setdefault(level, []).append(name)
    place = {
        name: ((i + 0.5) / len(names), -level)
        for level, names in rows.items()
        for i, name in enumerate(names)
    }
    for block in blocks:
        for source in block.sources:
            (x0, y0), (x1, y1) = place[source], place[block.name]
            bend = (0.25 if x0 <= x1 else -0.25) if y0 - y1 > 1 else 0  # around boxes between
            ax.annotate(
                "", xy=(x1, y1 + 0.3), xytext=(x0, y0 - 0.3),
                arrowprops={
                    "arrowstyle": "->", "color": "#57606a", "lw": 1,
                    "connectionstyle": f"arc3,rad={bend}",
                },
            )  # fmt: skip
    for block in blocks:
        shape = " x ".join(map(str, block.shape))
        ax.text(
            *place[block.name], f"{block.label}\n{shape}", ha="center", va="center", fontsize=7,
            bbox={"boxstyle": "round", "facecolor": _box_colour(block), "edgecolor": "#57606a"},
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(-max(depth.values()) - 0.6, 0.6), title=title)
    ax.axis("off")
    return ax


def _box_colour(block: Block) -> str:
    """Inputs are grey, modules with weights blue, plain operators white."""
    if not block.sources:
        return "#eaeef2"
    return "#ddf4ff" if "\n" in block.label else "white"
