"""Families of networks, and how many of their members print a parameter count of the paper.

The counts are computed by closed formulas, without building a network; the tests build a sample of
every family on torch's meta device.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement, product

import numpy as np
import pandas as pd

from hstlib.book.paper import BACKBONE_TITLES, PAPER_ROWS, PaperRow
from hstlib.data.datasets import NUM_CLASSES

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages of Tables 1 and 3."""
UNITS = {"resnet21": ((4, 6, 6, 3), (4, 7, 7, 3)), "vgg13": ((4, 3, 3, 3),)}
"""Units per stage that the paper names: in Tables 1 and 3, and in the text of section 4."""
MAX_UNITS = 8  # per stage, in the family of R2Plus1D
FULL, FLAT, POINT = 27, 9, 1
"""Weights per pair of channels of a 3x3x3, a 1x3x3 and a 1x1x1 convolution."""
STEMS = ((49, 64), (147, 64), (9, 64), (27, 64), (49, 3))
"""Weights per pair of channels, and output channels, of the first convolution of R3D: 1x7x7, 3x7x7,
1x3x3, 3x3x3, and "7x7, 3" read as 3 output channels."""
HIDDEN = (None, 1024)
"""Width of the hidden fully connected layer; None: the classes follow the average."""


def head_parameters(channels: int, hidden: Sequence[int], classes: int) -> int:
    """Count the parameters of fully connected layers with biases."""
    sizes = (channels, *hidden, classes)
    return sum((a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))


def plain_parameters(
    stem: tuple[int, int],
    units: Sequence[int],
    kernels: Sequence[int],
    first_kernels: Sequence[int],
    hidden: int | None,
    classes: int,
) -> int:
    """Count the parameters of a residual network of plain 3-D convolutions.

    Args:
        stem: Weights per pair of channels and output channels of the first convolution.
        units: Units per stage.
        kernels: Weights per pair of channels of the convolutions of each stage.
        first_kernels: The same, of the first convolution of each stage.
        hidden: Width of the hidden fully connected layer, if there is one.
        classes: Number of classes.
    """
    area, width = stem
    total = 3 * area * width + 2 * width
    for stage, count in enumerate(units):
        out = WIDTHS[stage]
        total += first_kernels[stage] * width * out
        total += (2 * count - 1) * kernels[stage] * out * out + 4 * count * out
        if stage > 0 or width != out:
            total += width * out + 2 * out
        width = out
    return total + head_parameters(width, (hidden,) if hidden else (), classes)


def _public_convolution(width: int, out: int, time: int, area: int) -> int:
    """Count a factored convolution of the public code: three batch norms, own mid channels."""
    mid = time * area * width * out // (area * width + time * out)
    return area * width * mid + time * mid * out + 2 * mid + 4 * out


def _public_unit(width: int, out: int, halve: bool, _: int) -> int:
    shortcut = _public_convolution(width, out, 1, 1) if halve or width != out else 0
    return _public_convolution(width, out, 3, 9) + _public_convolution(out, out, 3, 9) + shortcut


def _standard_unit(width: int, out: int, halve: bool, _: int) -> int:
    """Count Tran et al.'s unit as torchvision builds it."""
    mid = FULL * width * out // (9 * width + 3 * out)
    total = 9 * (width + out) * mid + 2 * 3 * mid * out + 2 * (2 * mid + 2 * out)
    return total + (width * out + 2 * out if halve or width != out else 0)


def _printed_unit(width: int, out: int, halve: bool, mid: int) -> int:
    """Count the unit that Tables 1 and 3 print: 7x7 to ``mid`` channels, then 3x3x3."""
    total = 49 * width * mid + 2 * mid + FULL * mid * out + 2 * out
    return total + (width * out + 2 * out if halve or width != out else 0)


FACTORED_UNITS: dict[str, Callable[[int, int, bool, int], int]] = {
    "public": _public_unit,
    "standard": _standard_unit,
    "printed": _printed_unit,
}
FACTORED_STEMS = {
    "factored 7x7": 3 * 49 * 45 + 3 * 45 * 64 + 2 * (45 + 64),
    "1x3x3": 9 * 3 * 64 + 2 * 64,
    "3x3x3": 27 * 3 * 64 + 2 * 64,
}
PRINTED_MIDS = (3, 64, 128, 256)
"""Channels of the first convolution in each stage of R2Plus1D's units, as printed."""


def factored_parameters(
    style: str, stem: str, units: Sequence[int], hidden: int | None, classes: int
) -> int:
    """Count the parameters of a (2+1)D network.

    Args:
        style: Kind of the units, a key of :data:`FACTORED_UNITS`.
        stem: First convolutions, a key of :data:`FACTORED_STEMS`.
        units: Units per stage.
        hidden: Width of the hidden fully connected layer, if there is one.
        classes: Number of classes.
    """
    unit, total, width = FACTORED_UNITS[style], FACTORED_STEMS[stem], 64
    for stage, (count, out, mid) in enumerate(zip(units, WIDTHS, PRINTED_MIDS, strict=True)):
        total += unit(width, out, stage > 0, mid) + (count - 1) * unit(out, out, False, mid)
        width = out
    return total + head_parameters(width, (hidden,) if hidden else (), classes)


def c3d_parameters(
    convolutions: Sequence[int], norm: bool, positions: int, hidden: Sequence[int], classes: int
) -> int:
    """Count the parameters of a plain chain of 3x3x3 convolutions, as C3D.

    Args:
        convolutions: Number of convolutions of each group; the groups have 64, 128, 256, 512 and,
            if there is a fifth, 512 channels.
        norm: Whether each convolution has a batch norm and no bias, or only a bias.
        positions: Positions of the last feature map that the fully connected layers take.
        hidden: Widths of the hidden fully connected layers.
        classes: Number of classes.
    """
    total, width = 0, 3
    for count, out in zip(convolutions, (*WIDTHS, 512)[: len(convolutions)], strict=True):
        total += FULL * (width + (count - 1) * out) * out + count * out * (2 if norm else 1)
        width = out
    return total + head_parameters(positions * width, hidden, classes)


def hst_parameters(
    widths: np.ndarray, units: Sequence[int], classes: int, channels: int = 64, hidden: int = 1024
) -> np.ndarray:
    """Count the parameters of HST in our reading, for many sets of widths at once.

    Args:
        widths: Channels of the four stages, shape (sets, 4).
        units: Units per stage.
        classes: Number of classes.
        channels: Channels of the windows.
        hidden: Width of the first fully connected layer.

    Returns:
        Counts, int64, shape (sets,).
    """

    def unit(width: np.ndarray, out: np.ndarray, area: int) -> np.ndarray:
        projection = np.where(width != out, width * out + 2 * out, 0)
        return area * width * out + 2 * out + 2 * out * out + 9 * width + 1 + projection

    widths = np.asarray(widths, np.int64)
    total = np.full(len(widths), 12 + 30 * channels + (72 * channels + 1) * channels)
    width = np.full(len(widths), channels)
    for count, out in zip(units, widths.T, strict=True):
        total += unit(width, out, 1) + (count - 1) * unit(out, out, 9)
        width = out
    attention = 12 * width * width + 18 * width
    return total + attention + (width + 1) * hidden + (hidden + 1) * classes


def hst_widths() -> np.ndarray:
    """Return all sets of four widths that never fall, multiples of 16 from 64 to 768: (sets, 4)."""
    return np.array(list(combinations_with_replacement(range(64, 769, 16), 4)))


def _c3d_family(classes: int) -> Iterator[int]:
    groups = [c for number in (4, 5) for c in product(range(1, 5), repeat=number)]
    sizes = (4096, 2048, 1024)
    layers = [(), *((a,) for a in sizes), *combinations_with_replacement(sizes, 2)]
    for member in product(groups, (False, True), (1, 16, 49), layers):
        yield c3d_parameters(*member, classes)


def _factored_family(classes: int) -> Iterator[int]:
    units = list(product(range(1, MAX_UNITS + 1), repeat=4))
    for member in product(FACTORED_UNITS, FACTORED_STEMS, units, HIDDEN):
        yield factored_parameters(*member, classes)


def _plain_family(classes: int, backbone: str) -> Iterator[int]:
    kernels = list(product((FULL, FLAT), repeat=4))
    firsts = list(product((FULL, FLAT, POINT), repeat=4))
    for member in product(STEMS, UNITS[backbone], kernels, firsts, HIDDEN):
        yield plain_parameters(*member, classes)


def family_counts(row: PaperRow) -> np.ndarray:
    """Count the parameters of every network of the family of a row of Table 2 or 4.

    The families vary what the paper leaves open: for C3D the convolutions per group, the norm, the
    grid and the fully connected layers; for R2Plus1D the units per stage, their kind, the stem and
    the hidden layer; for R3D, with the units that the paper names, the stem, the hidden layer and
    which kernels have no extent in time; for HST, with the units of Tables 1 and 3, the widths.

    Returns:
        Counts, int64, shape (members,).
    """
    classes = NUM_CLASSES[row.dataset]
    if row.model == "hst":
        return hst_parameters(hst_widths(), UNITS[row.backbone][0], classes)
    families = {
        "c3d": lambda: _c3d_family(classes),
        "r2plus1d": lambda: _factored_family(classes),
        "r3d": lambda: _plain_family(classes, row.backbone),
    }
    return np.fromiter(families[row.model](), np.int64)


def prints(counts: np.ndarray, printed: str) -> np.ndarray:
    """Return for every count whether it rounds to a figure in millions, to its printed digits."""
    decimals = len(printed.partition(".")[2])
    step = 10 ** (6 - decimals)
    target = round(float(printed) * 10**decimals)
    return (np.asarray(counts) + step // 2) // step == target


def identifiability() -> pd.DataFrame:
    """Tabulate how many networks of each family print the paper's figure.

    Returns:
        One row per row of Tables 2 and 4: printed figure, members of the family, how many of them
        print it, and their share.
    """
    rows = {}
    for row in PAPER_ROWS:
        counts = family_counts(row)
        matches = int(prints(counts, row.parameters).sum())
        rows[row.table, BACKBONE_TITLES[row.backbone], row.title] = {
            "printed (M)": row.parameters,
            "members": len(counts),
            "smallest (M)": counts.min() / 1e6,
            "largest (M)": counts.max() / 1e6,
            "matches": matches,
            "share": matches / len(counts),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(["table", "backbone", "model"])
