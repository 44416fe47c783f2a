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
