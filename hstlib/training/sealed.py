"""Safetensors files that are sealed with a SHA-256: checkpoints and states, no pickle."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hstlib.files import UNFINISHED, complete, remove

METADATA = "hstlib"
"""Key of the metadata: the SHA-256, a space, and one JSON text."""


class SealError(ValueError):
    """A file that is no sealed file of hstlib, or whose content changed since it was written."""


class NotFiniteError(ValueError):
    """Weights, optimiser state or scores of a model that are NaN or infinite."""


def save_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Write tensors and metadata atomically, with a SHA-256 over both.

    Returns:
        The SHA-256, in hexadecimal digits.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(metadata)
    digest = _sha256(text, tensors)
    with complete(path) as unfinished:
        # In a folder, since safetensors writes to a file beside its target, with a random name.
        folder = unfinished.with_name(f"{unfinished.name}{UNFINISHED}")
        folder.mkdir()
        try:
            save_file(tensors, str(folder / path.name), {METADATA: f"{digest} {text}"})
            (folder / path.name).rename(unfinished)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        finally:
            remove(folder)
    return digest


def load_sealed(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Read a file of :func:`save_sealed` and verify its SHA-256.

    Returns:
        The metadata, the tensors on the CPU, and the SHA-256.

    Raises:
        SealError: If the file is not sealed, or its content changed. The message does not name the
            file.
    """
    with _opened(path) as file:
        digest, text = _seal(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest != _sha256(text, tensors):
        raise SealError("its content changed since it was written: the SHA-256 differs")
    return json.loads(text), tensors, digest


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file of :func:`save_sealed` in a moment, without verifying it.

    Raises:
        SealError: If the file is not sealed.
    """
    with _opened(path) as file:
        return json.loads(_seal(file)[1])


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file; whatever makes it unreadable is a SealError."""
    try:
        with safe_open(str(path), "pt") as file:
            yield file
    except SealError:
        raise
    except Exception as error:
        raise SealError(" ".join(str(error).split()) or type(error).__name__) from error


def _seal(file: safe_open) -> tuple[str, str]:
    """Return the SHA-256 and the text of the metadata."""
    metadata = file.metadata() or {}
    if METADATA not in metadata:
        raise SealError("it has no metadata of hstlib")
    digest, _, text = metadata[METADATA].partition(" ")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise SealError("it was written by an earlier version of hstlib, without a SHA-256")
    return digest, text


def differing_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describe tensors that are missing, unexpected, or of another type or shape.

    Returns:
        One line; empty if there are no differences.
    """
    lines = [f"{name} is missing" for name in expected if name not in tensors]
    for name, value in tensors.items():
        if name not in expected:
            lines.append(f"{name} is unexpected")
        elif (found := _type_and_shape(value)) != (wanted := _type_and_shape(expected[name])):
            lines.append(f"{name} is {found} instead of {wanted}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return ", ".join(lines[:3]) + more


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; None without one."""
    floating = [(name, value) for name, value in tensors if value.is_floating_point()]
    sums: dict[torch.device, list[Tensor]] = defaultdict(list)
    for _, value in floating:
        sums[value.device].append(value.sum().double())
    if all(torch.stack(values).isfinite().all() for values in sums.values()):
        return None
    # A sum of large numbers may be infinite too.
    return next((name for name, value in floating if not value.isfinite().all()), None)


def _type_and_shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _sha256(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash metadata and tensors: their names, types, shapes and values."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {_type_and_shape(value)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
