"""Accuracy of trained models beside their size and the cost of training them."""

from collections.abc import Iterable
from functools import partial

import pandas as pd

from hstlib.book.architecture import multiply_adds
from hstlib.book.study import Difference, compare, group_by_model, results, title_of
from hstlib.model.registry import build_model
from hstlib.training.rows import Row

EQUAL = 0.02
"""Share by which two costs may differ and still be called equal."""


def efficiency_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Tabulate size and accuracy of every model.

    Args:
        rows: Runs on one data set and protocol.

    Returns:
        One row per model title: ``parameters``; ``multiply-adds`` of one clip; ``top-1`` with the
        ends of its interval, ``low`` and ``high``, in percent; and whether it has ``fitted``.
    """
    table = {}
    for result in results(rows):
        first, accuracy = result.rows[0], result.accuracy
        table[result.title] = {
            "parameters": first.parameters,
            "multiply-adds": clip_multiply_adds(first),
            "top-1": accuracy.mean,
            "low": accuracy.low,
            "high": accuracy.high,
            "fitted": result.fitted,
        }
    return pd.DataFrame.from_dict(table, "index").rename_axis("model")


def clip_multiply_adds(row: Row) -> int:
    """Return the multiply-adds of the forward pass of one clip through a run's model."""
    c = row.config
    return multiply_adds(
        partial(build_model, c.model, row.classes, c.backbone, c.reading), c.input_size
    )


def differences_at_equal_multiply_adds(
    longer: Iterable[Row], rows: Iterable[Row]
) -> list[Difference]:
    """Compare HST, trained longer, with the models whose training took as many multiply-adds.

    Args:
        longer: Runs of HST with more epochs.
        rows: Runs of all models with equal epochs, on the same data set and protocol.

    Returns:
        One difference for every model whose training costs within :data:`EQUAL` of HST's.
    """
    longer = list(longer)
    if not longer:
        return []
    budget = training_multiply_adds(longer[0])
    return compare(
        longer,
        {
            title_of(model): runs
            for model, runs in group_by_model(rows).items()
            if abs(training_multiply_adds(runs[0]) / budget - 1) <= EQUAL
        },
    )


def training_multiply_adds(row: Row) -> int:
    """Return the multiply-adds of the forward passes of one clip over all epochs of a run."""
    return row.config.epochs * clip_multiply_adds(row)
