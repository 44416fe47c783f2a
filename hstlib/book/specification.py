"""The specification curve: many combined readings of the paper, trained alike, and what each costs.

A fractional factorial design combines the free choices of :func:`hstlib.model.readings.combinable`,
so that a few runs tell the effect of every choice apart from those of the others.
"""

from dataclasses import dataclass

from hstlib.book.statistics import Interval
from hstlib.model.readings import combinable

RUNS = 64
"""Combined readings of the design; the first half is a design of its own."""


def design() -> list[str]:
    """Return the combined readings of the design, as values of the setting ``reading``.

    A reading is one row of a two-level design of resolution IV: a choice with one alternative has
    one column, which says whether the alternative is taken. A choice with two alternatives has two
    columns, each for one alternative; where both or neither is set, none is taken. So the effect of
    no choice is mixed up with that of another choice, or with what two choices do together.
    """
    columns = iter(_columns())
    choices = [
        [(name, next(columns)) for name in alternatives] for alternatives in combinable().values()
    ]
    readings = []
    for run in range(RUNS):
        taken = []
        for alternatives in choices:
            here = [name for name, column in alternatives if (run & column).bit_count() % 2]
            taken += here if len(here) == 1 else []
        readings.append("+".join(taken) or "paper")
    return readings


def _columns() -> list[int]:
    """Return columns as sets of bits of a run's number, whose parity is the column's level.

    The lower five bits of the first 16 are odd in number, and so are bits 0 and 5 in all of them:
    the first keeps choices and pairs of choices apart in the first half of the runs, the second in
    all of them.
    """
    low = [bits for bits in range(1, RUNS // 2) if bits.bit_count() % 2] + [3]
    return [bits if bits % 2 else bits | RUNS // 2 for bits in low]


@dataclass(frozen=True)
class Effect:
    """What one alternative adds to the accuracy, over all combinations with the other choices.

    Attributes:
        reading: Name of the alternative.
        interval: Top-1 with it minus top-1 with the paper's step, in percentage points.
    """

    reading: str
    interval: Interval
