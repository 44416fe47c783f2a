"""Directives ``fine-tuning``, ``latency`` and ``probed``: what trained models did, from results.

A missing or inconsistent result ends the build.
"""

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from hstlib.book.evidence import published_rows
from hstlib.book.finetuning import (
    ROWS,
    describe_source,
    load_finetuning,
    rate_table,
    start_table,
)
from hstlib.book.in_use import (
    LATENCY,
    PROBED,
    latency_conditions,
    latency_table,
    probe_table,
    read_results,
)
from hstlib.book.origin import describe_inputs, provenance
from hstlib.book.tables import show_table
from hstlib.config import project_root
from hstlib.inference.probe import ABOUT


class _Measured(SphinxDirective):
    """Base of the directives: paragraphs and tables made of one file or folder of results."""

    source = ""

    def run(self):
        """Return the nodes."""
        self.env.note_reread()
        try:
            return [*self.build(project_root() / self.source), self.text(self.origin())]
        except ValueError as error:
            raise ExtensionError(str(error)) from error

    def text(self, text):
        """Return a paragraph."""
        return nodes.paragraph(text=text)

    def table(self, frame, name):
        """Return a table of the book."""
        return nodes.raw("", show_table(frame, name)._repr_html_(), format="html")

    def origin(self):
        """Name what was read, with its digest."""
        return describe_inputs(self.source)


class FineTuning(_Measured):
    """Compare training from trained and from random weights."""

    source = ROWS

    def build(self, path):
        """Return what the runs show, and what they are."""
        pairs, rows = load_finetuning(project_root())
        yield from (self.text(pair.sentence) for pair in pairs)
        yield self.table(start_table(pairs), "fine-tuning")
        yield self.text("Top-1 on held-out training sources, in percent, by learning rate:")
        yield self.table(rate_table(rows), "fine-tuning-rates")
        tested = [row for row in rows if row.config.protocol == "official"]
        yield self.table(provenance(tested), "fine-tuning-origin")
        studied = published_rows("study")
        yield from (self.text(describe_source(pair, studied)) for pair in pairs)


class Latency(_Measured):
    """Tabulate the speed of the models."""

    source = LATENCY

    def build(self, path):
        """Return the table, and how it was measured."""
        measured = read_results(path)
        yield self.table(latency_table(measured), "latency")
        yield self.text(latency_conditions(measured))


class Probed(_Measured):
    """Tabulate what remains of the accuracy under every probe."""

    source = PROBED

    def build(self, path):
        """Return the table."""
        yield self.table(probe_table(read_results(path), ABOUT), "probe")


def setup(app):
    """Register with Sphinx."""
    app.add_directive("fine-tuning", FineTuning)
    app.add_directive("latency", Latency)
    app.add_directive("probed", Probed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
