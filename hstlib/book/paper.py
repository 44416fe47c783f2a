"""Numbers and tables as the paper prints them; every comparison in the book reads them here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 2 or Table 4.

    Attributes:
        table: 2 or 4.
        title: Name of the model in the book; Table 2 misspells HST's ("Hirearchy").
        model: Name of the model in hstlib.
        dataset: Name of the data set in hstlib.
        backbone: Name of the backbone in hstlib.
        parameters: Number of parameters in millions, as printed.
        accuracy: Top-1 accuracy in percent, as printed.
    """

    table: int
    title: str
    model: str
    dataset: str
    backbone: str
    parameters: str
    accuracy: str


PAPER_ROWS = (
    PaperRow(2, "C3D", "c3d", "hmdb51", "resnet21", "78.20", "76.54"),
    PaperRow(2, "R2Plus1D", "r2plus1d", "hmdb51", "resnet21", "65.53", "80.64"),
    PaperRow(2, "R3D", "r3d", "hmdb51", "resnet21", "57.68", "83.25"),
    PaperRow(2, "HST", "hst", "hmdb51", "resnet21", "35.54", "85.53"),
    PaperRow(4, "C3D", "c3d", "ucf101", "vgg13", "42.5", "77.89"),
    PaperRow(4, "R2Plus1D", "r2plus1d", "ucf101", "vgg13", "35.8", "79.3"),
    PaperRow(4, "R3D", "r3d", "ucf101", "vgg13", "26.78", "82.65"),
    PaperRow(4, "HST", "hst", "ucf101", "vgg13", "24.1", "86.3"),
)

MODEL_TITLES = {row.model: row.title for row in PAPER_ROWS}
"""Titles of the paper's four models."""
ALL_TITLES = MODEL_TITLES | {
    "r3d-standard": "standard R3D",
    "r2plus1d-standard": "standard R(2+1)D",
    "r3d-flow": "R3D with flow",
}
"""Titles of all models; those that are not in the paper come last."""
BACKBONE_TITLES = {"resnet21": "ResNet-21", "vgg13": "VGG-13", "demo": "demo"}
DATASET_TITLES = {
    "hmdb51": "HMDB51",
    "ucf101": "UCF101",
    "jhmdb": "J-HMDB",
    "demo-hmdb51": "drawn, HMDB51-like",
    "demo-ucf101": "drawn, UCF101-like",
}

GPUS, DAYS = 4, 2
"""Tesla P100 GPUs and days that a training run took on average (section 4)."""


@dataclass(frozen=True)
class Equation:
    """Where an equation of the paper is implemented and explained.

    Attributes:
        number: Number of the equation, as printed.
        code: Functions and modules that implement it, as ``module.name`` in ``hstlib.model``.
        notebook: Chapter that derives it, without its suffix.
        readings: Numbers of the entries in the readings register that it depends on.
    """

    number: int
    code: tuple[str, ...]
    notebook: str
    readings: tuple[int, ...] = ()


_REFORMER, _SPATIAL, _HYBRID = "02_reformer", "03_spatial_attention", "04_hybrid_attention"

EQUATIONS = (
    Equation(1, ("reformer.TemporalConvolution",), _REFORMER, (2, 3)),
    Equation(2, ("ops.merge_windows",), _REFORMER, (7,)),
    Equation(3, ("ops.window_statistics",), _REFORMER, (8,)),
    Equation(4, ("ops.window_statistics",), _REFORMER, (8,)),
    Equation(5, ("ops.normalise_windows", "ops.window_noise"), _REFORMER, (9,)),
    Equation(6, ("ops.concat_windows",), _REFORMER, (10,)),
    Equation(7, ("ops.previous_windows", "reformer.HResidualUnit"), _REFORMER, (11,)),
    Equation(8, ("reformer.HResidualUnit",), _REFORMER, (12, 13)),
    Equation(9, ("ops.masked_similarity", "reformer.HResidualUnit"), _REFORMER, (14,)),
    Equation(10, ("ops.gelu_product",), _SPATIAL, (17,)),
    Equation(11, ("ops.spatial_softmax",), _SPATIAL, (17,)),
    Equation(12, ("attention.SpatialAttention",), _SPATIAL, (17,)),
    Equation(13, ("ops.split_channels",), _HYBRID, (18,)),
    Equation(14, ("ops.split_channels",), _HYBRID, (18,)),
    Equation(15, ("attention.HybridAttention",), _HYBRID, (19,)),
    Equation(16, ("ops.expand_channels",), _HYBRID, (19,)),
    Equation(17, ("ops.block_in_attention", "attention.HybridAttention"), _HYBRID, (20,)),
)

ARCHITECTURE_COLUMNS = ("c3d", "r2plus1d", "r3d", "hst")
"""Models of Tables 1 and 3, in the order of their columns."""
_TOP_ROWS = (
    ("224 x 224", "3x3, 64, stride 2", "3x3, 64, stride 2", "7x7, 3, stride 2", "1x1, 3, stride 1"),
    ("112 x 112", "ReLU", "ReLU", "3x3 max pool, stride 2", "LeakyReLU"),
)
_LAST_ROW = ("7 x 7", *(("3x3 global average pool, 1024 FC, softmax",) * 4))


def _stage_row(size: str, repeats: int, channels: int, first: int) -> tuple[str, ...]:
    """Format one stage of Table 1 or 3.

    Args:
        size: Height and width of the output.
        repeats: Number of blocks.
        channels: Channels of the blocks of the three baselines.
        first: Channels of the first convolution in a block of R2Plus1D.

    Returns:
        The size, and a cell for each of :data:`ARCHITECTURE_COLUMNS`.
    """
    next_stage = min(2 * channels, 512)
    return (
        size,
        f"[3x3, {channels}; 3x3, {channels}] x{repeats}; 3x3, {next_stage}",
        f"[7x7, {first}; 3x3, {channels}] x{repeats}",
        f"[3x3, {channels}; batch norm] x{repeats}; 3x3, {next_stage}",
        f"[1x1, 64; three stages] x{repeats}; 3x3, 128",
    )


ARCHITECTURE = {
    table: (
        *_TOP_ROWS,
        _stage_row("112 x 112", repeats[0], 64, 3),
        _stage_row("56 x 56", repeats[1], 128, 64),
        _stage_row("28 x 28", repeats[2], 256, 128),
        _stage_row("14 x 14", repeats[3], 512, 256),
        _LAST_ROW,
    )
    for table, repeats in {1: (4, 6, 6, 3), 3: (4, 3, 3, 3)}.items()
}
"""Rows of Table 1 and Table 3: size of the output, and a cell per model."""
