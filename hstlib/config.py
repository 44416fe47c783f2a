"""Settings of a training run: one flat mapping, one name per setting.

The command line, plans, papermill files and stored rows are all read by
:meth:`TrainConfig.from_flat`. Settings are frozen, values are checked when an object is built, and
unknown names are refused, so a typing error stops a run before it starts.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

ModelName = Literal[
    "hst", "c3d", "r2plus1d", "r3d", "r3d-standard", "r2plus1d-standard", "r3d-flow"
]
BackboneName = Literal["resnet21", "vgg13", "demo"]
DatasetName = Literal["hmdb51", "ucf101", "jhmdb", "demo-hmdb51", "demo-ucf101", "folder"]
LIST_NAME = "videos.csv"  # the list that is used if a folder of videos holds one
Protocol = Literal["official", "validation", "random-by-video", "random-by-clip"]

# Section 4, "Training Details": HST 0.01; R2Plus1D and R3D 0.001; C3D 0.0001 (NaN at 0.1).
# The paper does not have the last three models and names no rate for them; they get R3D's.
PAPER_LEARNING_RATE: dict[str, float] = {
    "hst": 1e-2,
    "r2plus1d": 1e-3,
    "r3d": 1e-3,
    "c3d": 1e-4,
    "r3d-standard": 1e-3,
    "r2plus1d-standard": 1e-3,
    "r3d-flow": 1e-3,
}


MAX_WORKERS = 256
"""Most processes that load, decode or compute beside each other."""
MAX_EPOCHS = 100_000
"""Most epochs of a run."""


class _Settings(BaseModel):
    """Settings whose bounds refuse slips of the keyboard, which would fill memory or take years."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("it must not be true or false")
        return value

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> Self:
        """Build settings from a flat mapping; missing names get their defaults.

        Args:
            settings: Values by name. Text is converted to numbers, as a shell or YAML gives it.

        Raises:
            ValueError: If a name is unknown or a value is not allowed. The message is one line
                that names the setting.
        """
        for name in settings:
            if name not in cls.model_fields:
                raise ValueError(unknown_setting(name, cls.model_fields))
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise ValueError(settings_error(error)) from None


class DataConfig(_Settings):
    """Videos to train on and to test on."""

    dataset: DatasetName = "hmdb51"
    """Data set; ``folder`` reads videos of your own from ``data_dir``: a list, a folder with one
    folder per class, or a ready split."""
    data_dir: str = ""
    """Folder of the data set. ``~`` is the home folder; a relative path starts at the project root,
    on the command line at the working directory. Empty: the data set's place under the data root
    (HST_DATA, by default ``data`` in the project)."""
    split: int = Field(1, ge=1, le=3)
    """Official split 1-3; for ``folder``, the fold of groups held out for testing."""
    protocol: Protocol = "official"
    """How training and test set are split. ``official`` keeps groups apart. ``validation`` divides
    the training set of that split, by groups, and never reads its test set: settings are chosen
    there. The random protocols test on a random fifth of each class, with ``split`` as seed, drawn
    from the videos or from their ``clips_per_video`` clips. They leak, and exist to measure how
    much."""
    limit: int = Field(0, ge=0, le=10**9)
    """Smoke test: use at most this number of training videos, of test and of validation videos,
    spread over the classes. The run's id says so, and no table of the paper counts it. 0: all."""


class ModelConfig(_Settings):
    """The model, and how it uses memory."""

    model: ModelName = "hst"
    """Network: the paper's HST, one of its baselines, or one of the baselines that are not in the
    paper (standard networks, and R3D with flow)."""
    backbone: BackboneName = "resnet21"
    """Widths and depths of the network; ``demo`` is small enough for a CPU."""
    reading: str = "paper"
    """Interpretation of the paper, HST only; ``hstlib.model.readings.READINGS`` lists them."""
    activation_checkpointing: bool = False
    """Activation checkpointing, HST only: about half the memory, slower, identical weights."""
    channels_last: bool = True
    """Store weights and features in the channels-last memory format, which is faster."""


class LoopConfig(_Settings):
    """The training loop. The defaults are the paper's: Adam in float32, nothing added."""

    epochs: int = Field(100, ge=1, le=MAX_EPOCHS)
    """Passes over the training set (the paper's "100 iterations" are read as epochs)."""
    batch_size: int = Field(64, ge=2, le=65_536)
    """Clips per optimiser step, over all processes."""
    learning_rate: float = Field(1e-2, gt=0, le=1000)
    """Adam's step size."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate schedule; the paper names none."""
    warmup_epochs: int = Field(0, ge=0, le=MAX_EPOCHS)
    """Epochs over which the learning rate rises from zero."""
    max_grad_norm: float = Field(0.0, ge=0)
    """Maximum gradient norm; larger gradients are scaled down to it. 0 disables clipping."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing: share of the target that is spread over all classes."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average (EMA) of the weights. If set, the averaged weights
    are evaluated. 0: off."""
    accumulation_steps: int = Field(1, ge=1, le=65_536)
    """Gradient accumulation: number of parts that a batch is divided into to save memory. Each
    part has its own batch statistics."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the forward pass. Weights and loss stay float32; float32 matrix products use
    TF32 on a GPU."""
    compile: bool = False
    """Compile the model with ``torch.compile``."""
    class_weights: bool = False
    """Weight each training clip by the inverse of the number of training videos of its class, for
    data sets whose classes differ in size. The mean weight is 1."""
    patience: int = Field(0, ge=0, le=MAX_EPOCHS)
    """Early stopping: end training after this number of epochs in a row without a better validation
    accuracy; needs ``validation``. 0: train all ``epochs``."""
    deterministic: bool = True
    """Use deterministic algorithms where they exist; slower on a GPU."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the initial weights, the order of the clips and all augmentation."""
    num_workers: int = Field(0, ge=0, le=MAX_WORKERS)
    """Loader processes; 0 loads in the training process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; ``auto`` uses a GPU if one is available."""


class ClipConfig(_Settings):
    """How a video becomes a clip.

    Paper: section 3.1 ("clipped into 16 frames") and section 4 ("16fps ... resize all frames to
    224x224x3").
    Reading: 16 consecutive frames at 16 frames per second are one second of the video
    (``consecutive``); ``uniform`` spreads the 16 frames over the whole video instead.
    """

    num_frames: int = Field(16, ge=2, le=512, multiple_of=2)
    """Frames per clip."""
    fps: float = Field(16.0, gt=0, le=1000)
    """Frame rate that the video is resampled to, in frames per second."""
    size: int = Field(224, ge=16, le=2048)
    """Height and width of the clip, in pixels."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """How a frame is resized: ``stretch`` ignores the aspect ratio (the paper's 224x224),
    ``letterbox`` keeps it and pads."""
    sampling: Literal["consecutive", "uniform"] = "consecutive"
    """Frames of a clip: ``consecutive`` frames of the resampled video, or ``uniform`` over all of
    it."""
    flow: Literal["dis", "dis-ultrafast", "dis-medium", "farneback", "difference"] = "dis"
    """OpenCV's optical flow method; ``difference`` is a control without direction of motion."""
    clips_per_video: int = Field(1, ge=1, le=1000)
    """Clips cut from each video, evenly spaced; training draws one, evaluation averages over
    all."""


class AugmentConfig(_Settings):
    """Augmentation of training clips. The paper names none; by default there is none."""

    crop_size: int = Field(0, ge=0, le=2048)
    """Height and width of a random square crop, in pixels; evaluation crops squares of the same
    size. 0: no crop."""
    flip: bool = False
    """Mirror half of the clips left to right; unsuitable where classes differ by direction."""
    colour_jitter: float = Field(0.0, ge=0, lt=1)
    """Maximum random change of contrast and brightness, as a fraction."""


class TrainConfig(AugmentConfig, ClipConfig, LoopConfig, ModelConfig, DataConfig):
    """Settings of one training run. The defaults are the paper's, section 4, on HMDB51."""

    from_: str = ""
    """Fine-tuning: checkpoint to start from, which needs the same model, backbone and reading. Its
    last layer is used if the classes are the same in the same order, and made anew if not. The path
    is relative to the project root, on the command line to the working directory. Empty: random
    weights."""
    learning_rate: float | None = Field(None, gt=0, le=1000)
    """Adam's step size. None: the paper's rate for the model."""
    validation: bool = False
    """Hold out about 15 % of the training groups, and evaluate the epoch that scores best on them
    instead of the last."""
    num_crops: Literal[1, 3] = 1
    """Crops per clip that evaluation averages over; used if ``crop_size`` is set."""
    variant: str = Field("", pattern=r"^[a-z0-9.-]*$", max_length=64)
    """End of the run's id, which keeps apart runs that differ in settings that the id lacks."""

    @model_validator(mode="before")
    @classmethod
    def _replace_none_by_the_papers_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("learning_rate") is None:
            model = str(values.get("model", "hst"))
            return {**values, "learning_rate": PAPER_LEARNING_RATE.get(model)}
        return values

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.crop_size > self.size:
            raise ValueError(f"crop_size {self.crop_size} is larger than size {self.size}")
        if self.activation_checkpointing and self.model != "hst":
            raise ValueError(
                f"activation_checkpointing works with model 'hst' only, not with {self.model!r}"
            )
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into {self.accumulation_steps} "
                "accumulation_steps"
            )
        if self.patience and not self.validation:
            raise ValueError(
                f"patience {self.patience} needs validation videos; set validation as well"
            )
        return self

    @property
    def clip(self) -> ClipConfig:
        """The settings that determine the clips of a store."""
        return ClipConfig(**self.model_dump(include=set(ClipConfig.model_fields)))

    @property
    def augment(self) -> AugmentConfig:
        """The settings of augmentation."""
        return AugmentConfig(**self.model_dump(include=set(AugmentConfig.model_fields)))

    @property
    def input_size(self) -> int:
        """Height and width of the model's input, in pixels."""
        return self.crop_size or self.size

    @property
    def run_id(self) -> str:
        """Name of the run: data set, protocol, model, reading, backbone, split, seed, variant.

        Videos of your own are named by their folder, or by their list, unless it is ``videos.csv``.
        The id names a folder, so more than two combined readings are named by a digest. A run that
        starts from other weights is ``finetuned``; of two such runs that differ in the weights
        only, one needs a ``variant``. A run with a limit has it in its name.
        """
        name = self.dataset
        if name == "folder":
            place = project_path(self.data_dir)
            name = (place.parent if place.name == LIST_NAME else place).name
            name = f"folder-{name}" if name in get_args(DatasetName) else name
        if self.protocol != "official":
            name = f"{name}-{self.protocol}"
        reading = "" if self.reading == "paper" else f"-{_shortened(self.reading)}"
        parts = [
            name,
            f"{self.model}{reading}",
            self.backbone,
            f"s{self.split}",
            f"seed{self.seed}",
        ]
        parts += ["finetuned"] if self.from_ else []
        parts += [f"limit{self.limit}"] if self.limit else []
        return "-".join([*parts, self.variant] if self.variant else parts)


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown name, with the most similar known one."""
    known = sorted(known)
    similar = get_close_matches(str(name), known, n=1)
    advice = f"did you mean {similar[0]!r}?" if similar else f"use one of {', '.join(known)}"
    return f"unknown setting {name!r}; {advice}"


def settings_error(error: ValidationError) -> str:
    """Return one line that names every value pydantic refused, and what is allowed instead."""
    lines = []
    for detail in error.errors():
        name = ".".join(map(str, detail["loc"]))
        reason = detail["msg"].removeprefix("Value error, ").partition(", unable to")[0]
        reason = reason.replace("Input should", "it must").replace("String should", "it must")
        if detail["type"] == "extra_forbidden":
            reason = unknown_setting(name, TrainConfig.model_fields)
        elif name:
            reason = f"{name} is {detail['input']!r}; {reason}"
        lines.append(reason)
    return "; ".join(lines)


def project_root() -> Path:
    """Return the root of this project's checkout.

    That is the checkout that contains the working directory, else the one that hstlib is imported
    from, else the working directory itself.
    """
    working = Path.cwd()
    for folder in (working, *working.parents):
        if (folder / "hstlib" / "__init__.py").is_file():
            return folder
    imported_from = Path(__file__).resolve().parents[1]
    return imported_from if (imported_from / "notebooks").is_dir() else working


def project_path(path: str | Path) -> Path:
    """Return an absolute path. A relative path starts at the project root; ``~`` is the home."""
    return project_root() / Path(path).expanduser()


def data_root() -> Path:
    """Return the folder that contains the data sets: ``$HST_DATA``, or ``data`` in the project."""
    return project_path(os.environ.get("HST_DATA") or "data")


def _shortened(reading: str) -> str:
    """Return a reading, or a digest of more than two combined ones."""
    if reading.count("+") < 2:
        return reading
    return f"combined-{hashlib.sha256(reading.encode()).hexdigest()[:8]}"
