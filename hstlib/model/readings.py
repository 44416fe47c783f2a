"""Other readings of the paper, to be trained beside HST.

HST has one reading of every sentence and no switches. A reading of :data:`READINGS` replaces single
steps of a built model, so that everything else, initial weights included, stays equal. The readings
register of the book (book/readings.md) says why each is allowed by the paper's words.

A step is an attribute of a module: a function that is defined at module level, so that a changed
model can be pickled and copied, or a module without parameters. The steps are defined in
:mod:`hstlib.model.alternatives`, for parts left out in :mod:`hstlib.model.ablations`, and for
additions of ours in :mod:`hstlib.model.mends`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hstlib.model.ablations import (
    Concatenation,
    GlobalAveragePool,
    MeanOfMaps,
    NoPrior,
    NoTemporalFeature,
    convolution_only,
    merge_only,
    no_mask,
    remove_flow,
    unshifted_windows,
    widen_head,
)
from hstlib.model.alternatives import (
    attention_over_positions,
    channel_correlation,
    converge_interleaved,
    converge_maximum,
    expand_columns,
    hard_mask,
    instance_norm,
    mean_over_time,
    product_of_maps,
    recur_over_outputs,
    same_windows,
    split_columns,
)
from hstlib.model.attention import HybridAttention, SpatialAttention
from hstlib.model.hst import HST
from hstlib.model.mends import (
    add_residual_connections,
    bounded_similarity,
    convolve_over_time,
    gelu_sum,
)
from hstlib.model.reformer import (
    HierarchyResidualNetwork,
    HResidualUnit,
    SpatialVisualWindows,
    TemporalConvolution,
    keep_size,
    pool_frames,
)
from hstlib.model.three_modules import add_modules_to_units


@dataclass(frozen=True)
class Change:
    """Replacement of one step of the model.

    Attributes:
        owner: Class of the modules that have the step; all of them are changed.
        step: Name of the attribute.
        replacement: Function, or class of a module without parameters.
    """

    owner: type[nn.Module]
    step: str
    replacement: Callable | type[nn.Module]


@dataclass(frozen=True)
class Reading:
    """Another interpretation of the paper, an ablation or a mend.

    Attributes:
        name: Value of the setting ``reading``.
        entry: Number of its entry in the readings register, 3 for R3.
        factor: Choice that it answers. Readings of one factor exclude each other; those of
            different factors can be combined freely. None marks a change that the paper's words do
            not allow: an ablation or a mend.
        sentence: Description of what it changes.
        changes: Steps that it replaces.
        rebuild: Function that changes the parameters of a model in place, or None.
    """

    name: str
    entry: int
    factor: str | None
    sentence: str
    changes: tuple[Change, ...] = ()
    rebuild: Callable[[HST], None] | None = None


_READINGS = (
    Reading(
        "mean-over-time", 3, "time",
        "Eq. (1): the mean over the frames instead of the maximum.",
        (Change(TemporalConvolution, "over_time", mean_over_time),),
    ),
    Reading(
        "flow-convolved-first", 3, "order-of-pooling",
        "Eq. (1): the flow is convolved, normalised and activated at full size, then pooled.",
        (
            Change(TemporalConvolution, "pool_flow", keep_size),
            Change(TemporalConvolution, "pool_features", pool_frames),
        ),
    ),
    Reading(
        "plain-instance-norm", 8, "statistics",
        "Eqs. (3)-(5): mean and variance of the merged windows instead of the paper's.",
        (Change(SpatialVisualWindows, "normalise", instance_norm),),
    ),
    Reading(
        "same-window-residual", 11, "residual",
        "Eq. (7): the residual of a window is the window itself; the prior is added to the first.",
        (Change(HResidualUnit, "predecessors", same_windows),),
    ),
    Reading(
        "recursion-over-outputs", 11, "residual",
        "Eq. (7): the residual of a window is the unit's output for the window before it.",
        (Change(HResidualUnit, "add", recur_over_outputs),),
    ),
    Reading(
        "weights-from-prior", 12, "weights",
        "Eq. (8): W is the parameter times the correlation of the prior's channels.",
        (Change(HResidualUnit, "prior_matrix", channel_correlation),),
    ),
    Reading(
        "hard-mask", 14, "mask",
        "Eq. (9): the mask is 0 or 1, with the soft mask's gradient.",
        (Change(HResidualUnit, "gate", hard_mask),),
    ),
    Reading(
        "interleaved-windows", 16, "convergence",
        "Convergence: s1 is the mean of the odd windows, s2 of the even ones.",
        (Change(HierarchyResidualNetwork, "converge", converge_interleaved),),
    ),
    Reading(
        "maximum-over-windows", 16, "convergence",
        "Convergence: s1 is the maximum over the first half of the windows, s2 over the second.",
        (Change(HierarchyResidualNetwork, "converge", converge_maximum),),
    ),
    Reading(
        "split-by-column", 18, "split",
        "Eqs. (13)-(16): b1 takes the odd columns, b2 the even ones; expand repeats the columns.",
        (
            Change(HybridAttention, "split", split_columns),
            Change(HybridAttention, "expand", expand_columns),
        ),
    ),
    Reading(
        "matrix-product", 20, "mat",
        "Eq. (17): mat is the matrix product of the maps, channel by channel; square maps only.",
        (Change(HybridAttention, "fuse", product_of_maps),),
    ),
    Reading(
        "text-of-equation-17", 20, "equation-17",
        "Eq. (17): softmax over positions, times T, as the text has it; T is outside the softmax.",
        (Change(HybridAttention, "combine", attention_over_positions),),
    ),
    Reading(
        "modules-in-each-unit", 21, "three-stages",
        "Tables 1 and 3: each unit has spatial and hybrid attention, which weight its channels.",
        rebuild=add_modules_to_units,
    ),
    Reading(
        "no-norm-after-phi", 6, "norm-after-phi",
        "No batch norm between Phi and the windows.",
        (Change(SpatialVisualWindows, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-gamma", 17, "norm-on-gamma",
        "No batch norm on gamma, Eq. (10).",
        (Change(SpatialAttention, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-mix", 20, "norm-on-mix",
        "No batch norm on the mix under the softmax of Eq. (17).",
        (Change(HybridAttention, "norm", nn.Identity),),
    ),
    Reading(
        "no-norm-on-t", 3, "norm-on-t",
        "No batch norm on T, Eq. (1).",
        (Change(TemporalConvolution, "norm", nn.Identity),),
    ),
)  # fmt: skip

_ABLATIONS = (
    Reading(
        "without-flow", 3, None,
        "Without optical flow: T is 1 everywhere.",
        rebuild=remove_flow,
    ),
    Reading(
        "without-svn", 8, None,
        "Without SVN, Eqs. (3)-(5): the merged windows are not normalised.",
        (Change(SpatialVisualWindows, "normalise", merge_only),),
    ),
    Reading(
        "without-prior", 10, None,
        "Without the initial prior: the first window is its own predecessor in every unit.",
        (Change(HierarchyResidualNetwork, "prior", NoPrior),),
    ),
    Reading(
        "without-shift", 11, None,
        "Without the shift of Eq. (7): each window is its own predecessor.",
        (Change(HResidualUnit, "predecessors", unshifted_windows),),
    ),
    Reading(
        "without-mask", 14, None,
        "Without mask and similarity, Eq. (9): delta is Phi.",
        (
            Change(HResidualUnit, "mask", nn.Identity),
            Change(HResidualUnit, "similarity", nn.Identity),
            Change(HResidualUnit, "gate", no_mask),
            Change(HResidualUnit, "delta", convolution_only),
        ),
    ),
    Reading(
        "trunk-alone", 17, None,
        "Without sections 3.2 and 3.3 and without flow: S, averaged, goes to the head.",
        (
            Change(HST, "spatial_attention", MeanOfMaps),
            Change(HST, "temporal", NoTemporalFeature),
            Change(HST, "hybrid_attention", GlobalAveragePool),
        ),
    ),
    Reading(
        "trunk-and-spatial-attention", 17, None,
        "Without section 3.3 and without flow: lambda, averaged, goes to the head.",
        (
            Change(HST, "temporal", NoTemporalFeature),
            Change(HST, "hybrid_attention", GlobalAveragePool),
        ),
    ),
    Reading(
        "trunk-and-hybrid-attention", 17, None,
        "Without section 3.2: hybrid attention reads S in place of lambda.",
        (Change(HST, "spatial_attention", MeanOfMaps),),
    ),
    Reading(
        "trunk-and-flow", 17, None,
        "Without sections 3.2 and 3.3: S and T, averaged and concatenated, go to the head.",
        (
            Change(HST, "spatial_attention", MeanOfMaps),
            Change(HST, "hybrid_attention", Concatenation),
        ),
        rebuild=widen_head,
    ),
)  # fmt: skip

_MENDS = (
    Reading(
        "convolution-over-time", 11, None,
        "With a convolution over three windows in time, added to the windows before the units.",
        rebuild=convolve_over_time,
    ),
    Reading(
        "bounded-similarity", 14, None,
        "Eq. (9): the features are multiplied by the sigmoid of W Phi(s), which has bounds.",
        (Change(HResidualUnit, "delta", bounded_similarity),),
    ),
    Reading(
        "sum-of-gelus", 17, None,
        "Eq. (10): the sum of the GELUs instead of their product.",
        (Change(SpatialAttention, "fuse", gelu_sum),),
    ),
    Reading(
        "residual-connections", 17, None,
        "With residual connections around sections 3.2 and 3.3: S is added to lambda, the means of "
        "lambda and T to the vector.",
        rebuild=add_residual_connections,
    ),
)  # fmt: skip

READINGS: dict[str, Reading] = {r.name: r for r in (*_READINGS, *_ABLATIONS, *_MENDS)}


def combinable() -> dict[str, tuple[str, ...]]:
    """Return the choices that can be combined freely: names of the readings by factor.

    The readings of one factor exclude each other. A model takes at most one of each factor; without
    one, it keeps the step of ``paper``. Ablations and mends are not among them.
    """
    factors: dict[str, tuple[str, ...]] = {}
    for reading in READINGS.values():
        if reading.factor is not None:
            factors[reading.factor] = (*factors.get(reading.factor, ()), reading.name)
    return factors


def apply_reading(model: HST, reading: str) -> None:
    """Change the reading of a built model, in place.

    Args:
        model: HST as built, with the paper's reading.
        reading: ``paper`` for no change, a key of :data:`READINGS`, or several joined by ``+``, in
            any order.

    Raises:
        ValueError: If a reading is unknown, changes a step that another one changes, too, or
            changes a part that another one removes.
    """
    names = [] if reading == "paper" else reading.split("+")
    for name in names:
        if name not in READINGS:
            raise ValueError(f"reading {name!r} is unknown; use 'paper' or some of {[*READINGS]}")
    _check_combination(reading, [READINGS[name] for name in names])
    for name in names:
        if rebuild := READINGS[name].rebuild:
            rebuild(model)
    changed = []
    for name in names:
        for change in READINGS[name].changes:
            owners = [part for part in model.modules() if isinstance(part, change.owner)]
            for owner in owners:
                new = change.replacement
                setattr(owner, change.step, new() if isinstance(new, type) else new)
            changed.append((name, change, owners))
    left = {*model.modules()}
    for name, change, owners in changed:
        if not owners or not left.issuperset(owners):
            raise ValueError(
                f"reading {reading!r}: {name!r} changes {change.owner.__name__}, "
                "which another reading removes"
            )


def _check_combination(reading: str, parts: list[Reading]) -> None:
    """Raise an error for two readings of one factor, or of one step."""
    taken: dict[object, str] = {}
    for part in parts:
        steps = [(change.owner, change.step) for change in part.changes]
        for choice in {part.rebuild, part.factor, *steps} - {None}:
            if choice in taken:
                raise ValueError(
                    f"reading {reading!r}: {taken[choice]!r} and {part.name!r} change the same "
                    "step; use one of them"
                )
            taken[choice] = part.name
