"""Checkpoints of trained models: one safetensors file with JSON metadata, no pickle."""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from hstlib.config import TrainConfig, parse_settings
from hstlib.data.datasets import VideoSet
from hstlib.files import complete
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.state import pack_metadata, unpack_metadata


def save_checkpoint(
    path: Path, model: nn.Module, config: TrainConfig, data: VideoSet, manifest: str | None = None
) -> None:
    """Write a model's weights with its settings, class names and data set, atomically.

    Args:
        path: The .safetensors file.
        model: Trained model.
        config: Settings of the run.
        data: Data set at the split that the model was trained on.
        manifest: sha256 of the verified data set; None if it was not verified.
    """
    metadata = {
        "config": config.model_dump(),
        "classes": data.classes,
        "split": data.split_id,
        "manifest": manifest,
    }
    with complete(path) as unfinished:
        save_model(model, str(unfinished), pack_metadata(metadata))


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[nn.Module, TrainConfig, list[str]]:
    """Load a model from a file written by :func:`save_checkpoint`.

    Returns:
        The model in evaluation mode, the settings it was trained with, and its class names.

    Raises:
        ValueError: If the file does not exist, is no checkpoint, or was written by an earlier
            version of hstlib.
    """
    metadata = _read_metadata(path)
    config, classes = parse_settings(metadata["config"], path), metadata["classes"]
    model = build_model(config.model, len(classes), config.backbone, config.reading)
    try:
        load_model(model, str(path), device=device)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: not a checkpoint of hstlib as it is now ({error}); train again"
        ) from error
    if config.channels_last:
        to_channels_last(model)
    return model.to(device).eval(), config, classes


def check_split(path: Path, data: VideoSet) -> None:
    """Check that a checkpoint would be tested on the test set of its own split.

    On another split, most test videos were trained on. With the classes in another order, every
    answer would get a wrong name.

    Raises:
        ValueError: If the classes, their order or the lists differ from those in training.
    """
    metadata = _read_metadata(path)
    config = parse_settings(metadata["config"], path)
    if list(data.classes) != metadata["classes"]:
        raise ValueError(
            f"{path} was trained on classes {metadata['classes']}, not {list(data.classes)}"
        )
    if data.split_id != metadata["split"]:
        raise ValueError(
            f"{path} was trained on split {config.split} ({config.protocol}) of {config.dataset} "
            f"with lists {metadata['split']}, not {data.split_id}; test it on the lists it was "
            "trained on"
        )


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint, which has ``config``, ``classes`` and ``split``."""
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train one with `python -m hstlib train`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = unpack_metadata(file)
        return {name: metadata[name] for name in ("config", "classes", "split")}
    except Exception as error:
        raise ValueError(f"{path}: not a checkpoint of hstlib ({error})") from error
