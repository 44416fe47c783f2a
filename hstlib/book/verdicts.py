"""The verdicts of the claims ledger, and what a predicate returns."""

from dataclasses import dataclass, field
from typing import Any

from hstlib.book.tables import NOT_RUN

HOLDS = "holds"
CONTRADICTED = "contradicted"
UNCHECKABLE = "cannot be checked from the paper"
WRONG_CITATION = "wrong citation"

VERDICTS = {
    HOLDS: "Code, counts or the paper's other statements agree with the words.",
    CONTRADICTED: "Code, counts or another statement of the paper disagree with the words.",
    NOT_RUN: "It takes an experiment whose result rows are not published yet.",
    UNCHECKABLE: "The paper leaves out what a check would need.",
    WRONG_CITATION: "The number points to another work than the sentence names, or to none.",
}
"""Verdicts in the order of the page, and what each means."""


@dataclass(frozen=True)
class Finding:
    """Result of a predicate.

    Attributes:
        verdict: A key of :data:`VERDICTS`.
        values: Values for the placeholders of a claim's sentence.
    """

    verdict: str
    values: dict[str, Any] = field(default_factory=dict)


def decide(condition: bool, **values: object) -> Finding:
    """Return :data:`HOLDS` if the condition is true, else :data:`CONTRADICTED`."""
    return Finding(HOLDS if condition else CONTRADICTED, values)
