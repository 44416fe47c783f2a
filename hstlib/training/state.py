"""State of an interrupted training run, in two generations of one sealed file."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from hstlib.config import LoopConfig
from hstlib.training.epochs import Progress
from hstlib.training.identity import RunIdentity, differing_identity, differing_settings
from hstlib.training.sealed import (
    SealError,
    differing_tensors,
    first_not_finite,
    load_metadata,
    load_sealed,
    save_sealed,
)
from hstlib.training.step import learning_rate_factor

log = logging.getLogger("hstlib")

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"
"""The last state, after an epoch or within one, and the one before it."""


@dataclass
class TrainingState:
    """Everything needed to resume a run after an epoch or a step of one, bit for bit.

    The order of the samples, the clips drawn and the noise of an epoch depend on (seed, epoch)
    alone, so states of random generators are stored within an epoch only.

    Attributes:
        settings: All settings of the run, by name.
        data: Lists and contents of the run's data, and its first weights; None: not known.
        records: One per finished epoch.
        replanned: Numbers of finished epochs at which ``epochs`` was changed.
        scaler: State of the gradient scaler, fp16 only.
        model: Weights.
        optimiser: Adam's moments and step of each parameter, by the parameter's number.
        average: Moving average of the weights; empty without one.
        best: Weights of the epoch with the best validation accuracy; empty without validation.
        progress: Progress of the current epoch; None after a complete one.
    """

    settings: dict[str, Any]
    data: RunIdentity | None
    records: list[dict[str, Any]]
    replanned: list[int]
    scaler: dict[str, int | float]
    model: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    progress: Progress | None = None

    @property
    def place(self) -> str:
        """Where a run resumes from this state, such as ``in epoch 2, after step 7``."""
        return _place(self.settings, self.records, self.progress)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by part and name, such as ``optimiser.0.step``."""
        tensors = {
            f"{part}.{name}": value
            for part in ("model", "average", "best")
            for name, value in getattr(self, part).items()
        }
        for number, entries in self.optimiser.items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in entries.items()}
        return tensors


class _Metadata(BaseModel):
    """Everything of a state that is no tensor."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]
    data: RunIdentity | None
    records: list[dict[str, Any]]
    replanned: list[int]
    scaler: dict[str, int | float]
    progress: Progress | None = None


def has_state(folder: Path) -> bool:
    """Return whether a run's folder has a state, of either generation."""
    return any((folder / name).is_file() for name in (STATE, PREVIOUS))


def save_state(folder: Path, state: TrainingState, keep_last: bool = True) -> None:
    """Write a state to a run's folder, atomically.

    Args:
        folder: Folder of the run.
        state: State after an epoch or a step.
        keep_last: Keep the last state as the older generation, in place of the one before it.
            False if the last state cannot be used.
    """
    if keep_last and (folder / STATE).is_file():
        (folder / STATE).rename(folder / PREVIOUS)
    metadata = _Metadata(
        config=state.settings,
        data=state.data,
        records=state.records,
        replanned=state.replanned,
        scaler=state.scaler,
        progress=state.progress,
    )
    save_sealed(folder / STATE, state.tensors, metadata.model_dump(mode="json"))


def load_state(
    folder: Path, config: LoopConfig, expected: Mapping[str, Tensor], data: RunIdentity | None
) -> tuple[TrainingState, Path]:
    """Read the state of a run that is to be resumed, or trained longer.

    If the newer generation cannot be used, the older one is, and a warning names the reason.

    Args:
        folder: Folder of the run, which has a state.
        config: Settings of the run now; the settings that :data:`hstlib.training.identity.SAME_RUN`
            names, and the number of epochs, may differ from the stored ones.
        expected: Tensors of the names, types and shapes that the state must have.
        data: Lists and contents of the run's data, and the weights it starts from, now.

    Returns:
        The state and its file.

    Raises:
        ValueError: If no generation is a whole and finite state, or if it belongs to a run with
            other settings, lists or contents, or has been trained for more epochs; the message
            lists each difference with both values.
    """
    problems = []
    for path in (folder / STATE, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            metadata, tensors = _read(path)
        except (SealError, ValidationError) as error:
            problems.append(f"{path}: not the state of a run ({_one_line(error)})")
            continue
        _check_identity(path, metadata, config, data)
        if reason := _unusable(metadata, tensors, expected):
            problems.append(f"{path}: {reason}")
            continue
        if problems:
            log.warning("%s; resuming from %s, one save earlier", problems[0], path.name)
        return _state(metadata, tensors), path
    raise ValueError(f"{'; '.join(problems)}; remove it to train from the first epoch")


def refuse_other_run(folder: Path, config: LoopConfig, data: RunIdentity | None) -> None:
    """Refuse the state in a run's folder if it belongs to another run, before anything is written.

    Tensors are not read; :func:`load_state` verifies them.

    Raises:
        ValueError: As :func:`load_state` does.
    """
    for path in (folder / STATE, folder / PREVIOUS):
        try:
            metadata = _Metadata.model_validate(load_metadata(path))
        except ValueError:
            continue
        return _check_identity(path, metadata, config, data)


def describe_place(folder: Path) -> str:
    """Return where a run resumes, such as ``in epoch 2, after step 7``, without reading tensors."""
    return next((place for _, place in _places(folder, STATE, PREVIOUS)), "after epoch 0")


def describe_state(folder: Path, last_is_usable: bool = True) -> str:
    """Return the path and the place of the state to resume from; ``none`` without one.

    Args:
        folder: Folder of the run.
        last_is_usable: Whether the last state can be loaded, or else only the one before it.
    """
    names = (STATE, PREVIOUS) if last_is_usable else (PREVIOUS,)
    return next((f"{path}, {place}" for path, place in _places(folder, *names)), "none")


def _places(folder: Path, *names: str) -> Iterator[tuple[Path, str]]:
    """Yield the states of a run's folder whose header can be read, and their places."""
    for path in (folder / name for name in names):
        with suppress(ValueError):
            metadata = _Metadata.model_validate(load_metadata(path))
            yield path, _place(metadata.config, metadata.records, metadata.progress)


def _place(
    settings: Mapping[str, Any], records: list[dict[str, Any]], progress: Progress | None
) -> str:
    if not progress:
        return f"after epoch {len(records)}"
    steps = len(progress.losses) // settings["accumulation_steps"]
    return f"in epoch {len(records) + 1}, after step {steps}"


def _read(path: Path) -> tuple[_Metadata, dict[str, Tensor]]:
    metadata, tensors, _ = load_sealed(path)
    return _Metadata.model_validate(metadata), tensors


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors())
    return str(error)


def _check_identity(
    path: Path, metadata: _Metadata, config: LoopConfig, data: RunIdentity | None
) -> None:
    """Refuse the state of another run, or of this one after more epochs."""
    # A setting that is newer than the state had its default.
    earlier = {name: field.default for name, field in type(config).model_fields.items()}
    settings = differing_settings(earlier | metadata.config, config.model_dump())
    if differences := ", ".join(filter(None, (settings, differing_identity(metadata.data, data)))):
        raise ValueError(
            f"{path} belongs to another run ({differences}); move it away or choose another "
            "results folder"
        )
    if len(metadata.records) + bool(metadata.progress) > config.epochs:
        part = " and a part" * bool(metadata.progress)
        raise ValueError(
            f"{path} is trained for {len(metadata.records)} epochs{part}, more than the "
            f"{config.epochs} asked for; raise epochs or choose another results folder"
        )


def _unusable(
    metadata: _Metadata, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> str:
    """Return why a state cannot be resumed from; empty if it can."""
    if not metadata.records and not metadata.progress:
        return "it has neither a complete epoch nor a step"
    if not metadata.records:  # no epoch can be the best
        expected = {name: t for name, t in expected.items() if not name.startswith("best.")}
    if differing := differing_tensors(tensors, expected):
        return f"not a state of this model ({differing})"
    if name := first_not_finite(tensors.items()):
        return f"{name} is not finite"
    epochs = [record.get("epoch") for record in metadata.records]
    if epochs != list(range(len(epochs))):
        return f"its epochs are {epochs} and not {list(range(len(epochs)))}"
    return ""


def _state(metadata: _Metadata, tensors: Mapping[str, Tensor]) -> TrainingState:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}}
    optimiser: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        if part == "optimiser":
            number, _, name = name.partition(".")
            optimiser.setdefault(int(number), {})[name] = value
        else:
            parts[part][name] = value
    return TrainingState(
        settings=metadata.config,
        data=metadata.data,
        records=metadata.records,
        replanned=metadata.replanned,
        scaler=metadata.scaler,
        optimiser=optimiser,
        progress=metadata.progress,
        **parts,
    )


def replanned(state: TrainingState, config: LoopConfig) -> list[int]:
    """Return when the number of epochs was changed; log what a change means for the rates."""
    done, planned, epochs = len(state.records), state.settings["epochs"], config.epochs
    if planned == epochs:
        return state.replanned
    log.info("epochs is %d instead of %d from here on", epochs, planned)
    if config.schedule != "constant":
        first = config.learning_rate * learning_rate_factor("cosine", done, epochs)
        log.warning(
            "schedule %s: the learning rate of the first %d epochs fell as for %d epochs, and "
            "now continues at %.3g as for %d; the result differs from a run of %d epochs",
            *(config.schedule, done, planned, first, epochs, epochs),
        )
    return [*state.replanned, done]
