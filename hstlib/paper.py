"""What the paper prints, typed once; every comparison in the book reads it from here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 2 or Table 4.

    Attributes:
        table: 2 or 4.
        title: The model's name as in the other three rows ("Hirearchy" in Table 2 is a misprint).
        model: Our name of the model.
        dataset: Our name of the data set.
        backbone: Our name of the backbone.
        parameters: As printed, in millions.
        accuracy: As printed, in percent.
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
BACKBONE_TITLES = {"resnet21": "ResNet-21", "vgg13": "VGG-13", "demo": "demo"}
DATASET_TITLES = {
    "hmdb51": "HMDB51",
    "ucf101": "UCF101",
    "demo-hmdb51": "drawn, HMDB51-like",
    "demo-ucf101": "drawn, UCF101-like",
}

GPUS, DAYS = 4, 2
"""Of a training run on average, section 4; the GPUs are Tesla P100."""


@dataclass(frozen=True)
class Equation:
    """Where an equation of the paper stands in this project.

    Attributes:
        number: As printed.
        code: The functions or modules that implement it, as ``module.name`` of ``hstlib``.
        notebook: The chapter that derives it.
        readings: Entries of the readings register that it needs.
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

# Cells of Tables 1 and 3: height and width of the output, and the columns C3D, R2Plus1D, R3D, HST.
ARCHITECTURE_COLUMNS = ("c3d", "r2plus1d", "r3d", "hst")
_TOP_ROWS = (
    ("224 x 224", "3x3, 64, stride 2", "3x3, 64, stride 2", "7x7, 3, stride 2", "1x1, 3, stride 1"),
    ("112 x 112", "ReLU", "ReLU", "3x3 max pool, stride 2", "LeakyReLU"),
)
_LAST_ROW = ("7 x 7", *(("3x3 global average pool, 1024 FC, softmax",) * 4))


def _stage_row(size: str, repeats: int, c3d: int, r2plus1d: int, mid: int) -> tuple[str, ...]:
    """Compose one stage of Table 1 or 3 from what varies between its rows."""
    wide = min(2 * c3d, 512)
    return (
        size,
        f"[3x3, {c3d}; 3x3, {c3d}] x{repeats}; 3x3, {wide}",
        f"[7x7, {mid}; 3x3, {r2plus1d}] x{repeats}",
        f"[3x3, {c3d}; batch norm] x{repeats}; 3x3, {wide}",
        f"[1x1, 64; three stages] x{repeats}; 3x3, 128",
    )


ARCHITECTURE = {
    table: (
        *_TOP_ROWS,
        _stage_row("112 x 112", repeats[0], 64, 64, 3),
        _stage_row("56 x 56", repeats[1], 128, 128, 64),
        _stage_row("28 x 28", repeats[2], 256, 256, 128),
        _stage_row("14 x 14", repeats[3], 512, 512, 256),
        _LAST_ROW,
    )
    for table, repeats in {1: (4, 6, 6, 3), 3: (4, 3, 3, 3)}.items()
}
