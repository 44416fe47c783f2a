"""HST, the Hierarchy Spatial-Temporal Transformer of Cai & Cai, with its baselines and data code.

Six packages on three shared modules (``config``, ``files``, ``processes``):

* ``hstlib.model``: ``from hstlib.model import HST, C3D, R2Plus1D, R3D``;
* ``hstlib.data``: from video files to clips;
* ``hstlib.training``: from clips to result rows;
* ``hstlib.inference``: from trained weights to predictions, and export;
* ``hstlib.book``: tables, figures and diagrams of the book;
* ``hstlib.commands``: the commands of ``python -m hstlib``.

``hstlib.load(checkpoint)`` returns a predictor for video files; ``python -m hstlib --help`` lists
what can be done from a shell.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# OpenCV reads these when it is imported. The errors of hstlib.data.video name the file and what is
# wrong with it, which OpenCV's own lines on stderr do not.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")


def load(checkpoint: str | Path, device: str = "auto") -> Any:
    """Load a trained model, to classify videos with.

    >>> predictor = hstlib.load("last.safetensors")  # doctest: +SKIP
    >>> predictor("clip.mp4").label  # doctest: +SKIP
    'wave'

    Args:
        checkpoint: A .safetensors file written by training.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.

    Returns:
        A :class:`hstlib.inference.predictor.Predictor`.

    Raises:
        ValueError: If the file is no checkpoint, was damaged, or there is no such device.
    """
    # Imported here, so that `import hstlib` stays light.
    return import_module("hstlib.inference.predictor").load_predictor(checkpoint, device)
