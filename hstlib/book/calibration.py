"""How sure models are of their answers, pooled over runs, and what right confidences would show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hstlib.book.statistics import ALPHA
from hstlib.training.metrics import bin_confidences, expected_calibration_error
from hstlib.training.rows import Row

DRAWS = 1000
"""Sets of answers drawn from the confidences of a model."""


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of one model's answers, over all test videos of its runs, in percent.

    Attributes:
        videos: Number of answers.
        confidence: Mean probability of the predicted class.
        accuracy: Share of correct answers.
        error: Expected calibration error, in ten bins.
        by_chance: The error that 95 % of the models with the same confidences stay below if each
            confidence is the probability of being right. It is above 0, as a bin holds few videos.
    """

    videos: int
    confidence: float
    accuracy: float
    error: float
    by_chance: float

    @property
    def verdict(self) -> str:
        """Whether the error is more than chance, and in which direction."""
        if self.error <= self.by_chance:
            return "as sure as it may be"
        return "too sure" if self.confidence > self.accuracy else "not sure enough"


def pooled_calibration(rows: Sequence[Row]) -> Calibration:
    """Measure the calibration of one model on the test videos of several runs together.

    A run of few videos has few in a bin, so that the mean of the runs' errors measures mostly the
    bins. Videos that cannot be read have no confidence and are left out.

    Args:
        rows: Runs of one model, on one or more splits and seeds.

    Raises:
        ValueError: If no video has a confidence.
    """
    pairs = [
        (confidence, label == prediction)
        for row in rows
        for (label, prediction, _), confidence in zip(row.videos, row.confidences, strict=True)
        if confidence is not None
    ]
    if not pairs:
        raise ValueError(f"no run of {rows[0].run_id if rows else 'none'} has a confidence")
    confidences, hits = (np.array(values, float) for values in zip(*pairs, strict=True))
    drawn = np.random.default_rng(0).random((DRAWS, len(hits))) < confidences
    errors = [_error(confidences, answers) for answers in drawn]
    return Calibration(
        len(hits),
        *(100 * float(value) for value in (confidences.mean(), hits.mean())),
        100 * _error(confidences, hits),
        100 * float(np.quantile(errors, 1 - ALPHA)),
    )


def _error(confidences: np.ndarray, hits: np.ndarray) -> float:
    return expected_calibration_error(bin_confidences(confidences, hits))
