"""The paper's model and its baselines, all called as ``model(clips, flow)``.

* ``ops``: the paper's equations as functions of tensors; ``fused``: three of them with hand-written
  backward passes that save memory;
* ``reformer`` (section 3.1) and ``attention`` (sections 3.2 and 3.3): the modules of ``hst``;
* ``baselines``: C3D, R2Plus1D and R3D as the paper prints them, built from ``residual``;
* ``standard``: the networks that the field calls R3D and R(2+1)D; ``fusion``: R3D with flow;
* ``readings``: other interpretations of the paper, to be trained beside HST; their steps are in
  ``alternatives`` and ``three_modules``, for parts left out in ``ablations``, and for additions of
  ours in ``mends``;
* ``inputs``: checks that every model makes; ``registry``: models by name.
"""

from hstlib.model.baselines import C3D, R3D, R2Plus1D
from hstlib.model.hst import HST

__all__ = ["C3D", "HST", "R3D", "R2Plus1D"]
