"""What a run is: its settings, its lists, the contents of its videos, its first weights."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SAME_RUN = {"data_dir", "num_workers", "device", "activation_checkpointing"}
"""Settings that may change while a run stays the same: place of the data, processes, device, and
memory against time."""

FIELDS = {
    "split_id": "lists",
    "train_contents": "contents of the training videos",
    "test_contents": "contents of the test videos",
}
"""What each hash of :class:`DataIdentity` stands for."""


class DataIdentity(BaseModel):
    """Lists and contents of a data set at the split of a run.

    Attributes:
        class_names: Class names, in the order of the labels.
        split_id: Hash of the lists, :attr:`hstlib.data.datasets.VideoSet.split_id`.
        train_contents: SHA-256 over the training and validation files, wherever they are stored.
        test_contents: SHA-256 over the test files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: tuple[str, ...] = Field(min_length=1)
    split_id: str
    train_contents: str
    test_contents: str


class Ancestor(BaseModel):
    """The checkpoint that a run starts from.

    Attributes:
        sha256: SHA-256 of its weights and metadata, wherever the file is stored.
        run_id: Name of the run that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    run_id: str


class RunIdentity(DataIdentity):
    """What a run is, beside its settings.

    Attributes:
        ancestor: Checkpoint that the run starts from; None: random weights.
    """

    ancestor: Ancestor | None = None


def differing_settings(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    but: Collection[str] = (*SAME_RUN, "epochs", "from_"),
) -> str:
    """Describe the settings in which two runs differ.

    Args:
        stored: Settings of one run.
        current: Settings of the other.
        but: Settings that are not compared. The number of epochs is one of them, because a run can
            be trained longer, and so is the path of the weights to start from, whose content
            :func:`differing_ancestors` compares.

    Returns:
        Each differing setting with its stored and its current value; empty if there are none.
    """
    names = [name for name in {**stored, **current} if name not in but]
    return ", ".join(
        f"{name} {stored.get(name)!r} instead of {current.get(name)!r}"
        for name in names
        if stored.get(name) != current.get(name)
    )


def differing_data(stored: DataIdentity | None, current: DataIdentity | None) -> str:
    """Describe how the data of two runs differ, with the stored and the current value.

    Returns:
        One line; empty if there are no differences, or if one of the two is not known.
    """
    if stored is None or current is None:
        return ""
    parts = []
    if stored.class_names != current.class_names:
        parts.append(_differing_classes(stored.class_names, current.class_names))
    for name, title in FIELDS.items():
        pair = getattr(stored, name), getattr(current, name)
        if pair[0] != pair[1]:
            parts.append(f"{title} {pair[0]} instead of {pair[1]}")
    return ", ".join(parts)


def differing_identity(stored: RunIdentity | None, current: RunIdentity | None) -> str:
    """Describe how the data of two runs and the weights they start from differ.

    Returns:
        One line; empty if there are no differences, or if one of the two is not known.
    """
    if stored is None or current is None:
        return ""
    start = differing_ancestors(stored.ancestor, current.ancestor)
    return ", ".join(filter(None, (differing_data(stored, current), start)))


def differing_ancestors(stored: Ancestor | None, current: Ancestor | None) -> str:
    """Describe the checkpoints that two runs start from; empty if their content is the same."""
    if (stored and stored.sha256) == (current and current.sha256):
        return ""
    return f"start from {_describe(stored)} instead of {_describe(current)}"


def _describe(ancestor: Ancestor | None) -> str:
    if ancestor is None:
        return "random weights"
    return f"weights {ancestor.sha256[:16]} of {ancestor.run_id}"


def _differing_classes(stored: Sequence[str], current: Sequence[str]) -> str:
    if len(stored) != len(current):
        return f"{len(stored)} classes instead of {len(current)}"
    number = next(i for i, pair in enumerate(zip(stored, current, strict=True)) if len({*pair}) > 1)
    return f"class {number} {stored[number]!r} instead of {current[number]!r}"
