"""Other readings of the paper than the one HST is built by, to be trained beside it.

HST itself has one reading of every sentence and no switches. Each entry of ``READINGS`` changes one
of them on a built model, so that everything else, initial weights included, stays equal;
``first+second`` changes two.
"""

from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn

from hstlib import ops
from hstlib.hst import HST
from hstlib.reformer import HResidualUnit, SpatialVisualWindows


def mean_over_time(model: HST) -> None:
    """Eq. (1): the mean over the frames instead of the maximum."""
    model.temporal.over_time = lambda features: features.mean(2)


def plain_instance_norm(model: HST) -> None:
    """Eqs. (3)-(5): mean and variance of the merged windows instead of the paper's."""

    def normalise(self: SpatialVisualWindows, features: Tensor) -> Tensor:
        merged = ops.merge_windows(features)
        variance, mean = torch.var_mean(merged, (1, 3, 4), correction=0, keepdim=True)
        noise = ops.window_noise(variance, self.training)
        return ops.normalise_windows(merged, mean, variance, noise)

    model.windows.normalise = MethodType(normalise, model.windows)


def same_window_residual(model: HST) -> None:
    """Eq. (7): the residual of a window is the window itself; the prior is added to the first."""

    def predecessors(windows: Tensor, prior: Tensor | None) -> Tensor:
        if prior is None:
            return windows
        first = windows[:, :1] + prior.unsqueeze(1)
        return torch.cat([first, windows[:, 1:]], dim=1)

    for unit in model.modules():
        if isinstance(unit, HResidualUnit):
            unit.predecessors = predecessors


def interleaved_windows(model: HST) -> None:
    """Convergence: s1 is the mean of the odd windows, s2 of the even ones."""
    model.hierarchy.converge = lambda windows: (windows[:, 0::2].mean(1), windows[:, 1::2].mean(1))


def maximum_over_windows(model: HST) -> None:
    """Convergence: s1 is the maximum over the first half of the windows, s2 over the second."""

    def converge(windows: Tensor) -> tuple[Tensor, Tensor]:
        first, second = windows.chunk(2, dim=1)
        return first.amax(1), second.amax(1)

    model.hierarchy.converge = converge


def split_by_column(model: HST) -> None:
    """Eqs. (13)-(16): b1 takes the odd columns, b2 the even ones; expand repeats the columns."""

    def split(features: Tensor) -> tuple[Tensor, Tensor]:
        odd, even = features[..., 0::2], features[..., 1::2]
        return tuple(torch.cat([half[..., 0::2, :], half[..., 1::2, :]], 1) for half in (odd, even))

    def expand(branch: Tensor) -> Tensor:
        upper, lower = branch.chunk(2, dim=1)
        rows = torch.stack([upper, lower], dim=3).flatten(2, 3)
        return rows.repeat_interleave(2, dim=3)

    model.hybrid_attention.split, model.hybrid_attention.expand = split, expand


def text_of_equation_17(model: HST) -> None:
    """Eq. (17): softmax over positions, times T, as the text has it; T is outside the softmax."""
    model.hybrid_attention.combine = lambda mix, temporal: ops.block_in_attention(
        mix, temporal, "text"
    )


def no_norm_after_phi(model: HST) -> None:
    """No batch norm between Phi and the windows."""
    model.windows.norm = nn.Identity()


def no_norm_on_gamma(model: HST) -> None:
    """No batch norm on gamma, Eq. (10)."""
    model.spatial_attention.norm = nn.Identity()


def no_norm_on_mix(model: HST) -> None:
    """No batch norm on the mix under the softmax of Eq. (17)."""
    model.hybrid_attention.norm = nn.Identity()


def no_norm_on_t(model: HST) -> None:
    """No batch norm on T, Eq. (1)."""
    model.temporal.norm = nn.Identity()


class _Mean(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first + second) / 2


class _Nothing(nn.Module):
    def forward(self, flow: Tensor, size: torch.Size) -> None:
        return None


class _GlobalPool(nn.Module):
    def forward(self, spatial: Tensor, temporal: None) -> Tensor:
        return spatial.mean((2, 3))


def trunk_alone(model: HST) -> None:
    """Without sections 3.2 and 3.3 and without flow: S, averaged, goes to the head."""
    model.spatial_attention, model.temporal = _Mean(), _Nothing()
    model.hybrid_attention = _GlobalPool()


READINGS: dict[str, Callable[[HST], None]] = {
    "mean-over-time": mean_over_time,
    "plain-instance-norm": plain_instance_norm,
    "same-window-residual": same_window_residual,
    "interleaved-windows": interleaved_windows,
    "maximum-over-windows": maximum_over_windows,
    "split-by-column": split_by_column,
    "text-of-equation-17": text_of_equation_17,
    "no-norm-after-phi": no_norm_after_phi,
    "no-norm-on-gamma": no_norm_on_gamma,
    "no-norm-on-mix": no_norm_on_mix,
    "no-norm-on-t": no_norm_on_t,
    "trunk-alone": trunk_alone,
}


def change_reading(model: HST, reading: str) -> None:
    """Change the reading of a built model.

    Args:
        model: Changed in place.
        reading: ``paper`` for none, a key of :data:`READINGS`, or several joined by ``+``.

    Raises:
        ValueError: If there is no such reading.
    """
    if reading == "paper":
        return
    for name in reading.split("+"):
        if name not in READINGS:
            raise ValueError(f"reading {name!r} is unknown; use 'paper' or some of {[*READINGS]}")
        READINGS[name](model)
