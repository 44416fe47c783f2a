"""Checkpoints of trained models: sealed safetensors files with the identity of their run."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hstlib import __version__
from hstlib.config import TrainConfig, parse_settings
from hstlib.data.datasets import VideoSet
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.identity import DataIdentity, differing_data
from hstlib.training.provenance import identify_data
from hstlib.training.sealed import differing_tensors, first_not_finite, load_sealed, save_sealed


class _Metadata(BaseModel):
    """Everything of a checkpoint that is no tensor."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]
    data: DataIdentity
    manifest: str | None
    version: str


def save_checkpoint(
    path: Path,
    model: nn.Module,
    config: TrainConfig,
    data: DataIdentity,
    manifest: str | None = None,
) -> str:
    """Write a model's weights with the identity of its run, atomically.

    Args:
        path: The .safetensors file.
        model: Trained model.
        config: Settings of the run.
        data: Lists and contents of the data that the model was trained on.
        manifest: sha256 of the verified data set; None if it was not verified.

    Returns:
        SHA-256 of weights and metadata.
    """
    metadata = _Metadata(
        config=config.model_dump(), data=data, manifest=manifest, version=__version__
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
    metadata, tensors, _ = _read(path)
    config, classes = parse_settings(metadata.config, path), list(metadata.data.class_names)
    model = build_model(config.model, len(classes), config.backbone, config.reading)
    if differing := differing_tensors(tensors, model.state_dict()):
        raise ValueError(
            f"{path}: not a checkpoint of hstlib as it is now ({differing}); train again"
        )
    if name := first_not_finite(tensors.items()):
        raise ValueError(f"{path}: {name} is not finite, so the model diverged; train again")
    model.load_state_dict(tensors)
    if config.channels_last:
        to_channels_last(model)
    return model.to(device).eval(), config, classes


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
            f"{path} was trained on classes {list(stored.class_names)}, not {list(data.classes)}"
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
