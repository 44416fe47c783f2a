"""Directive ``findings``: what the paper claims and what was found, made of stored results."""

import io

import matplotlib.pyplot as plt
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from hstlib.book.findings import Evidence, sentences
from hstlib.book.plots import show_leak
from hstlib.config import project_root

CAPTION = (
    "Top-1 on J-HMDB, real clips of HMDB51, of networks and of what needs no network: the same "
    "clips at official splits and at random splits by video."
)


class Findings(SphinxDirective):
    """Write the sentences as a numbered list, then the figure of the leak."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes; a missing result stops the build."""
        root = project_root()
        for folder in ("results/published/study/rows.jsonl", "benchmarks/results/no_network.json"):
            self.env.note_dependency(str(root / folder))
        evidence = Evidence.load(root)
        items = [nodes.list_item("", nodes.paragraph(text=text)) for text in sentences(evidence)]
        picture = nodes.raw("", _figure(evidence), format="html")
        return [nodes.enumerated_list("", *items, enumtype="arabic"), picture]


def _figure(evidence: Evidence) -> str:
    """Return the figure as HTML with its caption; what it shows is its text for screen readers."""
    table = evidence.leak_table()
    with plt.rc_context({"svg.hashsalt": "findings", "svg.fonttype": "path"}):
        figure, ax = plt.subplots(figsize=(7.5, 0.36 * len(table.dropna()) + 1.2))
        show_leak(ax, table)
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(
        "<svg", f'<svg role="img" aria-label="{CAPTION}" style="max-width: 100%; height: auto"', 1
    )
    return f'<figure style="background: white">{svg}<figcaption>{CAPTION}</figcaption></figure>'


def setup(app):
    """Register with Sphinx."""
    app.add_directive("findings", Findings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
