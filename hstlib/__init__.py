"""HST: the Hierarchy Spatial-Temporal Transformer of Cai & Cai, its baselines and its data code.

The public entry points live in the modules, one concept each:

* ``hstlib.hst.HST`` and ``hstlib.baselines.{C3D, R2Plus1D, R3D}`` -- the four models;
* ``hstlib.ops`` -- the paper's equations without parameters;
* ``hstlib.video``, ``hstlib.flow``, ``hstlib.datasets``, ``hstlib.store`` -- files to tensors;
* ``hstlib.train``, ``hstlib.evaluate``, ``hstlib.results`` -- tensors to rows of Tables 2 and 4.

``python -m hstlib --help`` lists what can be done from a shell.
"""

__version__ = "0.1.0"
