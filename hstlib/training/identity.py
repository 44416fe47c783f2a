"""What a run is: its settings, its lists and the contents of its videos."""

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


def differing_settings(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    but: Collection[str] = (*SAME_RUN, "epochs"),
) -> str:
    """Describe the settings in which two runs differ.

    Args:
        stored: Settings of one run.
        current: Settings of the other.
        but: Settings that are not compared. The number of epochs is one of them, because a run can
            be trained longer.

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


def _differing_classes(stored: Sequence[str], current: Sequence[str]) -> str:
    if len(stored) != len(current):
        return f"{len(stored)} classes instead of {len(current)}"
    number = next(i for i, pair in enumerate(zip(stored, current, strict=True)) if len({*pair}) > 1)
    return f"class {number} {stored[number]!r} instead of {current[number]!r}"
