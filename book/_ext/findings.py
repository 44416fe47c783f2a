"""Directives ``findings`` and ``outcome``: what was found, in sentences made of stored results."""

import io
from functools import cache

import matplotlib.pyplot as plt
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from hstlib.book.findings import Evidence, sentences
from hstlib.book.plots import show_leak
from hstlib.book.specification import describe_changes
from hstlib.book.study import differences_from_hst
from hstlib.config import project_root
from hstlib.model.readings import READINGS
from hstlib.training.rows import load_rows

TRAINED = "results/published/readings"

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


class Outcome(SphinxDirective):
    """Say what came out of each reading that it names: a reading of the paper or an ablation."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a list; a reading that the library does not have stops the build."""
        items = []
        for name in " ".join(self.content).split():
            if name not in READINGS:
                raise self.error(f"{name} is no reading; use some of {[*READINGS]}")
            text = nodes.Text(f": {_outcomes()[name]}.")
            text = nodes.paragraph("", "", nodes.literal("", name), text)
            items.append(nodes.list_item("", text))
        return [nodes.paragraph("", "", nodes.strong("", "What came out.")), _bullets(items)]


def _bullets(items: list[nodes.Node]) -> nodes.Node:
    return nodes.bullet_list("", *items, bullet="*")


@cache
def _outcomes() -> dict[str, str]:
    """Return what came out of each trained reading, on UT-Interaction and on J-HMDB."""
    root = project_root()
    rows = load_rows(root / TRAINED)
    said = {name: [text] for name, text in describe_changes(rows).items()}
    for difference in differences_from_hst(Evidence.load(root).runs("jhmdb")):
        if (first := difference.other.rows[0].config).model == "hst":
            said[first.reading].append(f"on J-HMDB: {difference.sentence[:-1]}")
    return {name: "; ".join(texts) for name, texts in said.items()}


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
    caption = f'<figcaption style="color: black">{CAPTION}</figcaption>'
    return f'<figure style="background: white">{svg}{caption}</figure>'


def setup(app):
    """Register with Sphinx."""
    app.add_directive("findings", Findings)
    app.add_directive("outcome", Outcome)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
