"""How often training fails in the readings of the paper, with each alternative and without it."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hstlib.book.specification import curve
from hstlib.book.statistics import holm
from hstlib.model.readings import READINGS
from hstlib.training.rows import Row


@dataclass(frozen=True)
class Failures:
    """How often training fails with an alternative, and without it.

    Attributes:
        reading: Name of the alternative.
        kind: ``stops``: loss or weights stop being finite; ``does not fit``: training ends, below
            the accuracy that a verdict needs.
        present: Number of readings that take it and fail, and of those that take it.
        absent: The same of the readings that do not take it.
        corrected: p-value of Fisher's exact test after Holm's correction, for all alternatives and
            both kinds.
    """

    reading: str
    kind: str
    present: tuple[int, int]
    absent: tuple[int, int]
    corrected: float

    @property
    def sentence(self) -> str:
        """The counts, in one sentence."""
        (fails, taken), (others, rest) = self.present, self.absent
        return (
            f"Training {self.kind} in {fails} of {taken} readings with {self.reading}, and in "
            f"{others} of {rest} without (corrected p {self.corrected:.3f})."
        )


def failures(rows: Iterable[Row], stopped: Collection[str]) -> list[Failures]:
    """Count how often training fails with each alternative and without it.

    Args:
        rows: Runs of one data set and protocol. Only those that all readings share count.
        stopped: Faithful readings whose training stopped being finite, so that they have no run.

    Returns:
        For each alternative, first those whose training stops, out of all readings; then those
        that have not fitted, out of the readings whose training ended.
    """
    ended = {result.rows[0].config.reading: result.fitted for result in curve(rows)}
    groups = {
        "stops": {**dict.fromkeys(ended, False), **dict.fromkeys(stopped, True)},
        "does not fit": {reading: not fitted for reading, fitted in ended.items()},
    }
    counts = {}
    for kind, outcomes in groups.items():
        for name in (name for name, reading in READINGS.items() if reading.factor):
            parts = [
                [
                    fails
                    for reading, fails in outcomes.items()
                    if (name in reading.split("+")) == has
                ]
                for has in (True, False)
            ]
            if all(parts):
                counts[name, kind] = [(sum(part), len(part)) for part in parts]
    corrected = holm({key: fisher_exact(*both) for key, both in counts.items()})
    return [Failures(*key, *both, corrected[key]) for key, both in counts.items()]


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the p-value of Fisher's exact test, two-sided, that two shares are equal.

    Args:
        first: Number of events, and number of trials, of one group.
        second: The same of the other group.

    >>> round(fisher_exact((3, 4), (1, 4)), 4)
    0.4857
    """
    (events, trials), (others, rest) = first, second
    ways = {
        here: math.comb(trials, here) * math.comb(rest, events + others - here)
        for here in range(min(trials, events + others) + 1)
    }
    observed = ways[events]
    return sum(way for way in ways.values() if way <= observed) / sum(ways.values())
