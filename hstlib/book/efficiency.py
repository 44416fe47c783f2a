"""Accuracy of trained models beside their size."""

from collections.abc import Iterable
from functools import partial

import pandas as pd

from hstlib.book.architecture import multiply_adds
from hstlib.book.study import results
from hstlib.model.registry import build_model
from hstlib.training.rows import Row


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
        first = result.rows[0]
        c, accuracy = first.config, result.accuracy
        build = partial(build_model, c.model, first.classes, c.backbone, c.reading)
        table[result.title] = {
            "parameters": first.parameters,
            "multiply-adds": multiply_adds(build, c.input_size),
            "top-1": accuracy.mean,
            "low": accuracy.low,
            "high": accuracy.high,
            "fitted": result.fitted,
        }
    return pd.DataFrame.from_dict(table, "index").rename_axis("model")
