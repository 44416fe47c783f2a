"""Checkpoints of trained models: sealed safetensors files with the identity of their run."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hstlib import __version__
from hstlib.config import TrainConfig
from hstlib.data.datasets import VideoSet
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.identity import Ancestor, DataIdentity, RunIdentity, differing_data
from hstlib.training.provenance import identify_data
from hstlib.training.rows import parse_settings
from hstlib.training.sealed import differing_tensors, first_not_finite, load_sealed, save_sealed


class _Metadata(BaseModel):
    """Everything of a checkpoint that is no tensor."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]
    data: RunIdentity
    trained_on: list[str] | None = None
    manifest: str | None
    version: str


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint's file.

    Attributes:
        path: The .safetensors file.
        config: Settings of its run.
        data: Lists and contents of the run's data, and the weights it started from.
        trained_on: :func:`short_hashes` of all videos that the weights were trained or chosen on,
            those of the runs that they started from included; None in old checkpoints.
        tensors: Weights by name, on the CPU.
        sha256: SHA-256 of weights and metadata.
    """

    path: Path
    config: TrainConfig
    data: RunIdentity
    trained_on: frozenset[str] | None
    tensors: dict[str, Tensor]
    sha256: str

    @property
    def ancestor(self) -> Ancestor:
        """What a run that starts from these weights stores of them."""
        return Ancestor(sha256=self.sha256, run_id=self.config.run_id)


def short_hashes(hashes: Collection[str]) -> frozenset[str]:
    """Return the first 16 digits of the SHA-256 of files, as checkpoints store them."""
    return frozenset(sha256[:16] for sha256 in hashes if len(sha256) == 64)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    config: TrainConfig,
    data: DataIdentity,
    manifest: str | None = None,
    trained_on: Collection[str] | None = None,
) -> str:
    """Write a model's weights with the identity of its run, atomically.

    Args:
        path: The .safetensors file.
        model: Trained model.
        config: Settings of the run.
        data: Lists and contents of the data that the model was trained on, and the weights that it
            started from.
        manifest: sha256 of the verified data set; None if it was not verified.
        trained_on: :func:`short_hashes` of the videos; None if they are not known.

    Returns:
        SHA-256 of weights and metadata.
    """
    metadata = _Metadata(
        config=config.model_dump(),
        data=dict(data),
        trained_on=None if trained_on is None else sorted(trained_on),
        manifest=manifest,
        version=__version__,
    )
    return save_sealed(path, model.state_dict(), metadata.model_dump(mode="json"))


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[nn.Module, TrainConfig, list[str]]:
    """Load a model from a file written by :func:`save_checkpoint`.

    Returns:
        The model in evaluation mode, the settings it was trained with, and its class names.

    Raises:
        ValueError: If the file does not exist, is no checkpoint, was damaged or written by an
            earlier version of hstlib, or has weights that are not finite.
    """
    checkpoint = read_checkpoint(path)
    config, classes = checkpoint.config, list(checkpoint.data.class_names)
    try:
        model = build_model(config.model, len(classes), config.backbone, config.reading)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model.float()  # as it was trained, whatever the default data type is here
    if differing := differing_tensors(checkpoint.tensors, model.state_dict()):
        raise ValueError(
            f"{path}: not a checkpoint of hstlib as it is now ({differing}); train again"
        )
    model.load_state_dict(checkpoint.tensors)
    if config.channels_last:
        to_channels_last(model)
    return model.to(device).eval(), config, classes


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a file of :func:`save_checkpoint`, without building its model.

    Raises:
        ValueError: As :func:`load_checkpoint` does.
    """
    metadata, tensors, sha256 = _read(path)
    if name := first_not_finite(tensors.items()):
        raise ValueError(f"{path}: {name} is not finite, so the model diverged; train again")
    trained_on = None if metadata.trained_on is None else frozenset(metadata.trained_on)
    config = parse_settings(metadata.config, path)
    return Checkpoint(path, config, metadata.data, trained_on, tensors, sha256)


def check_split(path: Path, data: VideoSet) -> None:
    """Check that a checkpoint would be tested on the test set of its own split.

    On another split, most test videos were trained on. With the classes in another order, every
    answer would get a wrong name. The videos may be stored anywhere.

    Raises:
        ValueError: If the classes, their order, the lists or the contents of the test videos differ
            from those in training.
    """
    metadata, _, _ = _read(path)
    config, stored = parse_settings(metadata.config, path), metadata.data
    if data.classes != stored.class_names:
        raise ValueError(
            f"{path} was trained on classes {list(stored.class_names)}, not {list(data.classes)}; "
            "test it on videos of its own classes"
        )
    current = identify_data(data, config.clip)
    # The training videos are not needed here.
    current = current.model_copy(update={"train_contents": stored.train_contents})
    if differences := differing_data(stored, current):
        raise ValueError(
            f"{path} was trained on split {config.split} ({config.protocol}) of {config.dataset} "
            f"with other data ({differences}); test it on the lists it was trained on, and their "
            "videos"
        )


def checkpoint_sha256(path: Path) -> str:
    """Return the SHA-256 of a checkpoint, whose weights and metadata are verified.

    Raises:
        ValueError: If the file does not exist, is no checkpoint, or is damaged.
    """
    return _read(path)[2]


def _read(path: Path) -> tuple[_Metadata, dict[str, Tensor], str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train one with `python -m hstlib train`")
    try:
        metadata, tensors, digest = load_sealed(path)
        return _Metadata.model_validate(metadata), tensors, digest
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a checkpoint of hstlib ({reason}); train again") from error
