"""Weights, and the state of an unfinished run: safetensors files with JSON inside, no pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn

from hstlib.config import TrainConfig
from hstlib.datasets import VideoSet
from hstlib.files import complete
from hstlib.models import build_model, lay_channels_last


def save_checkpoint(
    path: Path, model: nn.Module, config: TrainConfig, data: VideoSet, manifest: str | None = None
) -> None:
    """Write the weights, and what they were trained on, atomically.

    Args:
        path: The .safetensors file.
        model: Whose weights.
        config: Of the run.
        data: At the split that it was trained on.
        manifest: sha256 of the verified data set, if it was verified.
    """
    metadata = {
        "config": config.model_dump(),
        "classes": data.classes,
        "split": data.split_id,
        "manifest": manifest,
    }
    with complete(path) as unfinished:
        save_model(model, str(unfinished), _pack(metadata))


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[nn.Module, TrainConfig, list[str]]:
    """Read a model back from :func:`save_checkpoint`'s file.

    Returns:
        The model in evaluation mode, the settings it was trained with, and its class names.

    Raises:
        ValueError: If the file is missing or is no checkpoint of this package.
    """
    config, classes, _ = _metadata(path)
    model = build_model(config.model, len(classes), config.backbone, config.reading)
    try:
        load_model(model, str(path), device=device)
    except RuntimeError as error:
        raise ValueError(f"{path}: not a checkpoint of hstlib as it is now ({error})") from error
    if config.loop.channels_last:
        lay_channels_last(model)
    return model.to(device).eval(), config, classes


def check_split(path: Path, data: VideoSet) -> None:
    """Refuse to test a checkpoint on anything but the test set of its own split.

    On another split, most test videos were trained on; in another order of the classes, every
    answer has a wrong name.

    Raises:
        ValueError: If classes, their order or the lists differ from those of the training.
    """
    config, classes, split = _metadata(path)
    if list(data.classes) != classes:
        raise ValueError(f"{path} was trained on classes {classes}, not {list(data.classes)}")
    if data.split_id != split:
        raise ValueError(
            f"{path} was trained on split {config.split} ({config.protocol}) of {config.dataset} "
            f"with lists {split}, not {data.split_id}; test it on the lists it was trained on"
        )


def _metadata(path: Path) -> tuple[TrainConfig, list[str], str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train one with `python -m hstlib train`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = _unpack(file)
        return TrainConfig(**metadata["config"]), metadata["classes"], metadata["split"]
    except Exception as error:
        raise ValueError(f"{path}: not a checkpoint of hstlib ({error})") from error


def _pack(metadata: dict[str, Any]) -> dict[str, str]:
    """Put everything under one key: safetensors writes several in an order that changes."""
    return {"hstlib": json.dumps(metadata)}


def _unpack(file: safe_open) -> dict[str, Any]:
    return json.loads((file.metadata() or {})["hstlib"])


@dataclass
class TrainingState:
    """All that a run needs to go on after an epoch as if nothing had happened.

    The order of the samples, the clips drawn and the noise of an epoch depend on (seed, epoch)
    alone, so that no state of a random generator is in it.

    Attributes:
        config: Of the run.
        records: Of the epochs so far.
        scaler: Of the loss, in fp16.
        model: Weights.
        optimiser: Adam's moments and step of each parameter, by its number.
        average: Running average of the weights.
        best: Weights of the epoch that is best in validation.
    """

    config: TrainConfig
    records: list[dict[str, Any]]
    scaler: dict[str, float]
    model: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    average: dict[str, Tensor]
    best: dict[str, Tensor]


def save_state(path: Path, state: TrainingState) -> None:
    """Write a state atomically."""
    tensors = {
        f"{part}.{name}": value.contiguous()
        for part in ("model", "average", "best")
        for name, value in getattr(state, part).items()
    }
    for number, entries in state.optimiser.items():
        for name, value in entries.items():
            tensors[f"optimiser.{number}.{name}"] = value.contiguous()
    metadata = {
        "config": state.config.model_dump(),
        "records": state.records,
        "scaler": state.scaler,
    }
    with complete(path) as unfinished:
        save_file(tensors, str(unfinished), _pack(metadata))


def load_state(path: Path, config: TrainConfig) -> TrainingState:
    """Read a state back.

    Args:
        path: Of :func:`save_state`'s file.
        config: Of the run that is to go on. It may differ in the number of loader processes.

    Raises:
        ValueError: If the file is no state, or one of other settings.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}}
    optimiser: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(str(path), "pt") as file:
            metadata = _unpack(file)
            for key in file.keys():  # noqa: SIM118, it is no dictionary
                part, _, name = key.partition(".")
                if part == "optimiser":
                    number, _, name = name.partition(".")
                    optimiser.setdefault(int(number), {})[name] = file.get_tensor(key)
                else:
                    tensors[part][name] = file.get_tensor(key)
        found = TrainConfig(**metadata["config"])
        records, scaler = metadata["records"], metadata["scaler"]
    except Exception as error:
        raise ValueError(f"{path}: not the state of a run ({error}); remove it") from error
    if not same_run(found, config):
        raise ValueError(
            f"{path} belongs to a run with other settings; move it away or name another results "
            "folder"
        )
    return TrainingState(found, records, scaler, optimiser=optimiser, **tensors)


def same_run(one: TrainConfig, other: TrainConfig) -> bool:
    """Tell whether two settings give the same weights: the loader processes do not matter."""
    return one == other.model_copy(update={"num_workers": one.num_workers})
