"""Settings of a run: how a clip is cut, and how a model is trained.

Every class is frozen, checks its values when built and refuses unknown names, so a typing
error in a parameter file stops a run before it starts.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ModelName = Literal["hst", "c3d", "r2plus1d", "r3d"]
BackboneName = Literal["resnet21", "vgg13", "demo"]
DatasetName = Literal["hmdb51", "ucf101", "demo-hmdb51", "demo-ucf101", "folder"]
Protocol = Literal["official", "random-by-video", "random-by-clip"]

# Section 4, "Training Details": HST 0.01; R2Plus1D and R3D 0.001; C3D 0.0001 (NaN at 0.1).
PAPER_LEARNING_RATE: dict[str, float] = {
    "hst": 1e-2,
    "r2plus1d": 1e-3,
    "r3d": 1e-3,
    "c3d": 1e-4,
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipConfig(_Settings):
    """How a video becomes a clip.

    Paper: section 3.1 ("clipped into 16 frames") and section 4 ("16fps ... resize all frames to
    224x224x3").
    Reading: 16 consecutive frames at 16 frames per second are one second of the video
    (``consecutive``); ``uniform`` spreads the 16 frames over the whole video instead.
    """

    num_frames: int = Field(16, ge=2, multiple_of=2)
    """Frames per clip."""
    fps: float = Field(16.0, gt=0)
    """Frame rate that the video is resampled to, in frames per second."""
    size: int = Field(224, ge=16)
    """Height and width of the clip, in pixels."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """``stretch`` ignores the video's aspect (the paper's 224x224), ``letterbox`` keeps it."""
    sampling: Literal["consecutive", "uniform"] = "consecutive"
    """Which frames of the resampled video make the clip."""
    flow: Literal["dis", "dis-ultrafast", "dis-medium", "farneback", "difference"] = "dis"
    """OpenCV's optical flow method; ``difference`` is a control without direction."""
    num_windows: int = Field(1, ge=1)
    """Clips cut from each video, evenly spaced; training draws one, evaluation averages all."""


class AugmentConfig(_Settings):
    """What training changes at random in a clip. The paper names nothing, so nothing by default."""

    crop: int = Field(0, ge=0)
    """Height and width of the square that is cut out at random, in pixels; 0: no cut. Evaluation
    cuts squares of the same size."""
    flip: bool = False
    """Mirror left and right in half of the clips; not where classes differ by direction."""
    colour: float = Field(0.0, ge=0, lt=1)
    """Greatest change of contrast and brightness, as a share."""


class LoopConfig(_Settings):
    """How the training loop works. By default as the paper says, in float32: Adam and no more."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward pass; weights and loss stay float32, whose products are TF32 on a GPU."""
    accumulation: int = Field(1, ge=1)
    """Parts that a batch is cut into to save memory; each has its own batch statistics."""
    warmup_epochs: int = Field(0, ge=0)
    """Epochs over which the learning rate rises from zero."""
    clip_norm: float = Field(0.0, ge=0)
    """Longest gradient; a longer one is scaled down. 0: any."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is evaluated in their place; 0: none."""
    compile: bool = False
    """Compile the model with ``torch.compile``."""
    channels_last: bool = True
    """Keep the channels of a position together in memory, which is faster."""
    recompute: bool = False
    """Of HST: keep half and work the rest out again in the backward pass; slower, same weights."""
    deterministic: bool = True
    """Use deterministic algorithms where there are any; slower on a GPU."""


class TrainConfig(_Settings):
    """One training run. The defaults are the paper's, section 4, on HMDB51."""

    dataset: DatasetName = "hmdb51"
    """Data set; ``folder`` reads one folder of videos per class from ``data_dir``."""
    data_dir: str = ""
    """Where the data set lies; empty: its place under the data root (HST_DATA, or ./data)."""
    model: ModelName = "hst"
    reading: str = "paper"
    """Of the paper, for HST; see :func:`hstlib.ablation.change_reading` for others."""
    backbone: BackboneName = "resnet21"
    split: int = Field(1, ge=1, le=3)
    """Official split 1-3; for ``folder``, the fold of groups held out for testing."""
    protocol: Protocol = "official"
    """``official`` keeps the groups apart. The others test on a fifth of each class drawn at random
    with the split as seed, of the videos or of their ``num_windows`` clips: they leak, and exist
    to measure how much."""
    seed: int = Field(0, ge=0)
    epochs: int = Field(100, ge=1)
    """Passes over the training set (the paper's "100 iterations" are read as epochs)."""
    batch_size: int = Field(64, ge=2)
    learning_rate: float | None = Field(None, gt=0)
    """Adam's step size; none: the paper's rate for the model."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run; the paper names no schedule."""
    num_workers: int = Field(0, ge=0)
    """Loader processes; 0 loads in the training process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    validation: bool = False
    """Set about 15 % of the training groups aside, and evaluate the epoch that is best on them
    instead of the last one."""
    loop: LoopConfig = LoopConfig()
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    crops: Literal[1, 3] = 1
    """Squares of ``augment.crop`` pixels that evaluation averages over, if there is a cut."""

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.augment.crop > self.clip.size:
            raise ValueError(f"crop {self.augment.crop} does not fit into size {self.clip.size}")
        if self.loop.recompute and self.model != "hst":
            raise ValueError(f"recompute is of model 'hst' only; set it to false for {self.model}")
        if self.batch_size % self.loop.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.loop.accumulation} parts"
            )
        return self

    @property
    def input_size(self) -> int:
        """Height and width of what the model sees, in pixels."""
        return self.augment.crop or self.clip.size

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or PAPER_LEARNING_RATE[self.model]

    @property
    def run_id(self) -> str:
        """Name of the run: data set, protocol, model, reading, backbone, split and seed."""
        name = Path(self.data_dir).name if self.dataset == "folder" else self.dataset
        if self.protocol != "official":
            name = f"{name}-{self.protocol}"
        model = self.model if self.reading == "paper" else f"{self.model}-{self.reading}"
        return f"{name}-{model}-{self.backbone}-s{self.split}-seed{self.seed}"


def project_root() -> Path:
    """Return the checkout that the working directory lies in, or the working directory itself."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "hstlib" / "__init__.py").is_file():
            return folder
    return here


def data_root() -> Path:
    """Return the folder of the data sets: ``$HST_DATA``, or ``data`` in the project."""
    return Path(os.environ["HST_DATA"]) if os.environ.get("HST_DATA") else project_root() / "data"
