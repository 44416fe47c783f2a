"""HST: the Hierarchy Spatial-Temporal Transformer of Cai & Cai, its baselines and its data code.

The public entry points live in the modules, one concept each:

* ``hstlib.hst.HST`` and ``hstlib.baselines.{C3D, R2Plus1D, R3D}`` -- the four models;
* ``hstlib.ops`` -- the paper's equations without parameters;
* ``hstlib.video``, ``hstlib.flow``, ``hstlib.datasets``, ``hstlib.store`` -- files to tensors;
* ``hstlib.train``, ``hstlib.evaluate``, ``hstlib.results`` -- tensors to rows of Tables 2 and 4.

``python -m hstlib --help`` lists what can be done from a shell.
"""

import os

__version__ = "0.1.0"

# OpenCV reads these when it is imported. The errors of hstlib.video name the file and say what is
# wrong with it, which OpenCV's own lines on stderr do not.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
