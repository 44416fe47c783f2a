"""Fine-tuning: a model that starts from the weights of another run."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hstlib.config import TrainConfig, project_path
from hstlib.model.registry import build_model
from hstlib.training.checkpoint import Checkpoint, read_checkpoint
from hstlib.training.identity import differing_ancestors, differing_settings
from hstlib.training.rows import ROW, load_row
from hstlib.training.sealed import differing_tensors

FITTING = ("model", "backbone", "reading")
"""Settings that a run needs in common with the checkpoint that it starts from."""


@dataclass(frozen=True)
class Transfer:
    """The tensors of a model that came from a checkpoint, and the others.

    Attributes:
        taken: Names of the tensors that were copied.
        made_anew: Names of the model's tensors that kept their random values.
        not_used: Names of the checkpoint's tensors that were not copied.
    """

    taken: tuple[str, ...]
    made_anew: tuple[str, ...]
    not_used: tuple[str, ...]


def open_start(config: TrainConfig) -> Checkpoint | None:
    """Read the checkpoint that a run starts from; None if it starts from random weights.

    Raises:
        ValueError: If the file is no usable checkpoint, or is one of another model, backbone or
            reading; the message names each with both values.
    """
    if not config.from_:
        return None
    checkpoint = read_checkpoint(project_path(config.from_))
    settings = (c.model_dump(include=set(FITTING)) for c in (checkpoint.config, config))
    if differences := differing_settings(*settings):
        raise ValueError(
            f"{checkpoint.path} does not fit this run ({differences}); set the same "
            f"{', '.join(FITTING)}, or start from another checkpoint"
        )
    return checkpoint


def refuse_other_start(folder: Path, start: Checkpoint | None) -> None:
    """Refuse the row of a finished run that started from other weights.

    Raises:
        ValueError: If there is such a row in the folder; the message names both weights.
    """
    if not (folder / ROW).is_file():
        return
    current = start.ancestor if start else None
    if differences := differing_ancestors(load_row(folder / ROW).ancestor, current):
        raise ValueError(
            f"{folder} holds another run ({differences}); set variant to give this one its own "
            "name, or choose another results folder"
        )


def start_from(model: nn.Module, checkpoint: Checkpoint, classes: Sequence[str]) -> Transfer:
    """Copy the weights of a checkpoint into a model, in place.

    The last layer is copied only if the classes are the same in the same order.

    Args:
        model: Model of the checkpoint's settings :data:`FITTING`.
        checkpoint: Weights to copy.
        classes: Class names of the model, in the order of the labels.

    Raises:
        ValueError: If a tensor of the checkpoint other than the last layer's is missing, unexpected
            or of another shape.
    """
    state, tensors = model.state_dict(), checkpoint.tensors
    head: Collection[str] = ()
    if tuple(classes) != checkpoint.data.class_names:
        head = _head_names(checkpoint.config, len(classes))
    body = {name: value for name, value in tensors.items() if name not in head}
    expected = {name: value for name, value in state.items() if name not in head}
    if differing := differing_tensors(body, expected):
        raise ValueError(f"{checkpoint.path}: not a checkpoint of this model ({differing})")
    model.load_state_dict(body, strict=False)
    return Transfer(
        taken=tuple(body),
        made_anew=tuple(name for name in state if name not in body),
        not_used=tuple(name for name in tensors if name not in body),
    )


def _head_names(config: TrainConfig, num_classes: int) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    with torch.device("meta"):
        few, many = (
            build_model(config.model, number, config.backbone, config.reading).state_dict()
            for number in (num_classes, num_classes + 1)
        )
    return {name for name in few if few[name].shape != many[name].shape}


def describe_transfer(
    checkpoint: Checkpoint, transfer: Transfer, config: TrainConfig
) -> Iterator[str]:
    """Describe what a run starts from, one line for each kind of tensor.

    Args:
        checkpoint: Weights to start from.
        transfer: Result of :func:`start_from`.
        config: Settings of the run, whose clips may be cut differently.
    """
    ancestor = checkpoint.ancestor
    yield f"starts from {checkpoint.path} of {ancestor.run_id}, SHA-256 {ancestor.sha256}"
    blocks = Counter(name.partition(".")[0] for name in transfer.taken)
    counts = ", ".join(f"{block} {count}" for block, count in blocks.items())
    yield f"tensors taken: {len(transfer.taken)} ({counts})"
    yield f"tensors made anew: {', '.join(transfer.made_anew) or 'none'}"
    yield f"tensors of the checkpoint not used: {', '.join(transfer.not_used) or 'none'}"
    clips = (c.clip.model_dump() for c in (checkpoint.config, config))
    if differences := differing_settings(*clips):
        yield f"its clips were cut differently: {differences}"
    if checkpoint.trained_on is None:
        yield "an old checkpoint, without the hashes of its training videos: evaluate cannot warn"
