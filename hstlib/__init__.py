"""HST, the Hierarchy Spatial-Temporal Transformer of Cai & Cai, with its baselines and data code.

Six packages on three shared modules (``config``, ``files``, ``processes``):

* ``hstlib.model``: ``from hstlib.model import HST, C3D, R2Plus1D, R3D``;
* ``hstlib.data``: from video files to clips;
* ``hstlib.training``: from clips to result rows;
* ``hstlib.inference``: from trained weights to predictions, and export;
* ``hstlib.book``: tables, figures and diagrams of the book;
* ``hstlib.commands``: the commands of ``python -m hstlib``.

``python -m hstlib --help`` lists what can be done from a shell.
"""

import os

__version__ = "0.1.0"

# OpenCV reads these when it is imported. The errors of hstlib.data.video name the file and what is
# wrong with it, which OpenCV's own lines on stderr do not.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
