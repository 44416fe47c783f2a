"""State of an interrupted training run: one safetensors file with JSON metadata, no pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hstlib.config import LoopConfig, refuse_nested_settings
from hstlib.files import complete

STATE = "state.safetensors"
SAME_RESULT = {"num_workers"}
"""Settings that may change when a run is resumed: they do not affect the weights."""


@dataclass
class TrainingState:
    """Everything needed to resume a run after an epoch, bit for bit.

    The order of the samples, the clips drawn and the noise of an epoch depend on (seed, epoch)
    alone, so no state of a random generator is stored.

    Attributes:
        settings: All settings of the run, by name.
        records: One per finished epoch.
        scaler: State of the gradient scaler, fp16 only.
        model: Weights.
        optimiser: Adam's moments and step of each parameter, by the parameter's number.
        average: Moving average of the weights; empty without one.
        best: Weights of the epoch with the best validation accuracy; empty without validation.
    """

    settings: dict[str, Any]
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
    metadata = {"config": state.settings, "records": state.records, "scaler": state.scaler}
    with complete(path) as unfinished:
        save_file(tensors, str(unfinished), pack_metadata(metadata))


def load_state(path: Path, config: LoopConfig) -> TrainingState:
    """Read the state of a run that is to be resumed.

    Args:
        path: File written by :func:`save_state`.
        config: Settings of the run now. ``num_workers`` may differ from the stored settings.

    Raises:
        ValueError: If the file is no state, an earlier version of hstlib wrote it, or it belongs
            to a run with other settings; the message lists each of them with both values.
    """
    try:
        metadata, tensors = _read(path)
        settings = dict(metadata["config"])
        records, scaler = metadata["records"], metadata["scaler"]
        optimiser = _by_number(tensors.pop("optimiser"))
    except Exception as error:
        raise ValueError(f"{path}: not the state of a run ({error}); remove it") from error
    refuse_nested_settings(settings, path)
    if differences := differing_settings(settings, config.model_dump()):
        raise ValueError(
            f"{path} belongs to a run with other settings ({differences}); move it away or choose "
            "another results folder"
        )
    return TrainingState(settings, records, scaler, optimiser=optimiser, **tensors)


def differing_settings(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Describe the settings that would change the weights of a run.

    Returns:
        Each differing setting with its stored and its current value; empty if there are none.
    """
    names = [name for name in {**stored, **current} if name not in SAME_RESULT]
    return ", ".join(
        f"{name} {stored.get(name)!r} instead of {current.get(name)!r}"
        for name in names
        if stored.get(name) != current.get(name)
    )


def pack_metadata(metadata: dict[str, Any]) -> dict[str, str]:
    """Convert metadata to one JSON text: safetensors writes several keys in a changing order."""
    return {"hstlib": json.dumps(metadata)}


def unpack_metadata(file: safe_open) -> dict[str, Any]:
    """Return the metadata of a safetensors file that :func:`pack_metadata` converted."""
    return json.loads((file.metadata() or {})["hstlib"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Return the metadata, and the tensors of each part by name."""
    parts: dict[str, dict[str, Tensor]] = {
        "model": {}, "optimiser": {}, "average": {}, "best": {},
    }  # fmt: skip
    with safe_open(str(path), "pt") as file:
        for key in file.keys():  # noqa: SIM118, it is no dictionary
            part, _, name = key.partition(".")
            parts[part][name] = file.get_tensor(key)
        return unpack_metadata(file), parts


def _by_number(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Group the optimiser's tensors, named ``<number>.<name>``, by parameter number."""
    grouped: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        grouped.setdefault(int(number), {})[name] = value
    return grouped
