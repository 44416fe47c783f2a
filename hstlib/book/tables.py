"""Tables of results, and how every table of the book is shown."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from operator import itemgetter

import pandas as pd

from hstlib.book.changes import code_since
from hstlib.book.paper import ALL_TITLES, PAPER_ROWS
from hstlib.book.selection import paper_rows
from hstlib.book.statistics import Interval, confidence_interval, hits_by_group, same_videos
from hstlib.book.study import common_runs, title_of, training_top1
from hstlib.training.rows import Row

NOT_RUN = "not run"
NUMBER = re.compile(r"^[-+]?[\d.,]+(e[-+]?\d+)?\s*%?(\s*\*)?(\s*[\[(].*)?$")
"""Text of a cell that is aligned as a number, for example ``52.1 [48.0, 56.2]``."""


@dataclass(frozen=True)
class Table:
    """A table as notebooks and the site show it, with links to it as CSV and as LaTeX.

    The links contain the files, so they work without a network, a server or a script.

    Attributes:
        frame: Cells as text, without an index; see :func:`show_table`.
        name: File name of the downloads, without its ending.
        numeric: Columns that are aligned to the right.
    """

    frame: pd.DataFrame
    name: str
    numeric: frozenset[str]

    def __repr__(self) -> str:
        return self.frame.to_string(index=False)

    def _repr_html_(self) -> str:
        cells = self.frame.to_dict("split")
        head = "".join(self._cell("th", name, name) for name in cells["columns"])
        lines = [
            "".join(map(self._cell, ["td"] * len(row), cells["columns"], row))
            for row in cells["data"]
        ]
        nothing = f'<td colspan="{len(cells["columns"])}">{NOT_RUN}</td>'
        body = "\n".join(f"<tr>{line}</tr>" for line in lines or [nothing])
        files = (
            ("csv", "text/csv", self.frame.to_csv(index=False, lineterminator="\n")),
            ("tex", "text/plain", self.frame.to_latex(index=False, escape=True)),
        )
        links = " ".join(self._link(*file) for file in files)
        return (
            f'<div class="table-scroll" role="region" aria-label="Table {escape(self.name)}" '
            f'tabindex="0">\n<table class="dataframe">\n<thead><tr>{head}</tr></thead>\n'
            f'<tbody>\n{body}\n</tbody>\n</table>\n</div>\n<p class="table-files">{links}</p>'
        )

    def _cell(self, tag: str, column: str, text: str) -> str:
        numeric = column in self.numeric
        align = "right" if numeric else "left"
        scope = ' scope="col"' if tag == "th" else ""
        content = escape(text) if tag == "th" else _break_lines(escape(text), numeric)
        return f'<{tag}{scope} style="text-align: {align}">{content}</{tag}>'

    def _link(self, ending: str, kind: str, content: str) -> str:
        data = b64encode(content.encode()).decode()
        title = {"csv": "CSV", "tex": "LaTeX"}[ending]
        return (
            f'<a download="{escape(self.name)}.{ending}" '
            f'href="data:{kind};charset=utf-8;base64,{data}">{title}</a>'
        )


def _break_lines(html: str, numeric: bool) -> str:
    """Say in a cell's text where a narrow column may break it.

    A number is broken before a bracket only, anything else also after an underscore.
    """
    return re.sub(r" (?![\[(])", "&nbsp;", html) if numeric else html.replace("_", "_<wbr>")


def show_table(frame: pd.DataFrame, name: str, digits: int | None = None) -> Table:
    """Make a frame a table of the book.

    An index becomes the first columns, unless it only numbers the rows. Column names of several
    levels are joined. Missing values are empty.

    Args:
        frame: Values of any type; every level of an index other than row numbers needs a name.
        name: File name of the downloads, without its ending.
        digits: Decimal places of floating-point numbers; None: as many as they need.

    Raises:
        ValueError: If an index or a column has no name, or two columns have the same.
    """
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name:
        if None in frame.index.names:
            raise ValueError(f"table {name!r}: its index has no name; use rename_axis")
        frame = frame.reset_index()
    columns = [", ".join(part for part in map(str, _levels(c)) if part) for c in frame.columns]
    if "" in columns or len(set(columns)) < len(columns):
        raise ValueError(f"table {name!r}: columns {columns} need names that are all different")
    values = [[_as_text(value, digits) for value in frame.iloc[:, i]] for i in range(len(columns))]
    shown = pd.DataFrame(dict(zip(columns, values, strict=True)), columns=columns, dtype=object)
    numeric = frozenset(
        column
        for column, texts in zip(columns, values, strict=True)
        if any(texts) and all(NUMBER.match(text) for text in texts if text not in ("", NOT_RUN))
    )
    return Table(shown, name, numeric)


def _levels(column: object) -> tuple:
    return column if isinstance(column, tuple) else (column,)


def _as_text(value: object, digits: int | None) -> str:
    """Return a cell as text; missing values are empty, truth values are yes or no."""
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:g}" if digits is None else f"{value:.{digits}f}"
    return str(value)


def comparison_table(table: int, rows: Sequence[Row], parameters: dict[str, int]) -> pd.DataFrame:
    """Build Table 2 or Table 4: parameters and accuracy, the paper's and ours.

    Args:
        table: Number of the table, 2 or 4.
        rows: Finished runs; :func:`hstlib.book.selection.paper_rows` chooses among them, and
            :func:`left_out` lists the rest.
        parameters: Our parameter count of each model at this table's size.

    Returns:
        One row per model, as strings for display: our accuracy over all splits and seeds with its
        95 % interval, the mean of each split, the difference from R3D with its interval over the
        seeds and splits of both, and whether the code of the runs has changed since.
    """
    chosen, _ = paper_rows(table, rows)
    return pd.DataFrame(
        [
            {
                "model": row.title,
                "params, paper (M)": row.parameters,
                "params, ours (M)": f"{parameters[row.model] / 1e6:.2f}",
                "accuracy, paper (%)": row.accuracy,
                **_summarise_cell(chosen[row.model], chosen["r3d"]),
            }
            for row in PAPER_ROWS
            if row.table == table
        ]
    )


def left_out(rows: Sequence[Row]) -> list[str]:
    """List the rows on HMDB51 and UCF101 that are not in Table 2 and Table 4, with the reasons."""
    return [line for table in (2, 4) for line in paper_rows(table, rows)[1]]


def _summarise_cell(runs: Sequence[Row], baseline: Sequence[Row]) -> dict[str, str]:
    """Return the columns of a model that come from its runs."""
    names = ("accuracy, ours (%)", "by split (%)", "minus R3D (%)", "runs", "code")
    if not runs:
        return dict(zip(names, (NOT_RUN, *[""] * 4), strict=True))
    difference = "" if runs == baseline else paired_difference(runs, baseline) or NOT_RUN
    values = (
        confidence_interval(hits_by_group(runs)),
        describe_splits(runs),
        difference,
        len(runs),
        describe_code(runs),
    )
    return dict(zip(names, map(str, values), strict=True))


def describe_splits(rows: Sequence[Row]) -> str:
    """Return the mean top-1 of each split, in percent, such as ``1: 52.1, 2: 50.3``."""
    splits: dict[int, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.config.split, []).append(row)
    return ", ".join(f"{split}: {_mean_top1(splits[split]):.1f}" for split in sorted(splits))


def describe_code(rows: Sequence[Row]) -> str:
    """Return what :func:`hstlib.book.changes.code_since` says about runs, each value once."""
    return ", ".join(sorted({code_since(row) for row in rows}))


def paired_difference(rows: Sequence[Row], baseline: Sequence[Row]) -> Interval | None:
    """Estimate the difference of two models on the seeds and splits that both have.

    Args:
        rows: Runs of a model, every seed on the same splits.
        baseline: Runs of the model whose accuracy is subtracted, likewise.

    Returns:
        The difference with its interval; None if they have no seed and split in common, or were
        not tested on the same videos there.
    """
    runs = common_runs(rows, baseline)
    if not runs[0]:
        return None
    first, second = map(hits_by_group, runs)
    return confidence_interval(first, second) if same_videos(first, second) else None


def demo_tables(rows: Sequence[Row]) -> dict[str, pd.DataFrame]:
    """Summarise runs on the drawn corpora. They say nothing about HMDB51 or UCF101.

    Args:
        rows: Finished runs; those on other data are left out.

    Returns:
        Tables by name of the corpus, with one row per model and reading, in percent: top-1 over all
        seeds with its 95 % interval, the lowest training accuracy, and the means of the kinds of
        classes.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        c = row.config
        if c.dataset.startswith("demo-") and _is_official(row):
            order = c.dataset, list(ALL_TITLES).index(c.model), c.reading != "paper", c.reading
            groups.setdefault(order, []).append(row)
    return {
        corpus: pd.DataFrame([_summarise_demo(groups[order]) for order in orders])
        for corpus, orders in groupby(sorted(groups), key=itemgetter(0))
    }


def _summarise_demo(runs: Sequence[Row]) -> dict[str, str | int]:
    config = runs[0].config
    kinds = pd.DataFrame([row.kinds for row in runs]).mean() * 100
    return {
        "model": title_of((config.model, config.reading)),
        "runs": len(runs),
        "epochs": config.epochs,
        "training (%)": f"{100 * min(map(training_top1, runs)):.1f}",
        "top-1 (%)": str(confidence_interval(hits_by_group(runs))),
        "motion (%)": f"{kinds['motion']:.1f}",
        "appearance (%)": f"{kinds['appearance']:.1f}",
        "direction (%)": f"{kinds['direction']:.1f}",
        "direction, shuffled (%)": f"{kinds['direction_shuffled']:.1f}",
    }


def _is_official(row: Row) -> bool:
    """Return whether a run has all clips of an official split, and random weights at its start."""
    return row.config.protocol == "official" and not (row.config.limit or row.config.from_)


def _mean_top1(rows: Sequence[Row]) -> float:
    """Return the mean top-1 accuracy of runs, in percent."""
    return 100 * sum(row.test["top1"] for row in rows) / len(rows)
