"""Directives ``findings`` and ``outcome``: what was found, in sentences made of stored results."""

import io
from functools import cache

import matplotlib.pyplot as plt
from docutils import nodes
from figures import numbered_figure
from sphinx.util.docutils import SphinxDirective

from hstlib.book.evidence import published_rows, study_rows
from hstlib.book.findings import Evidence, describe_setting, sentences
from hstlib.book.plots import show_leak
from hstlib.book.specification import describe_changes
from hstlib.book.study import differences_from_hst
from hstlib.config import TrainConfig, project_root
from hstlib.model.readings import READINGS
from hstlib.training.rows import Row

CAPTION = (
    "Top-1 on J-HMDB, real clips of 21 classes of HMDB51, of networks and of what needs no "
    "network: the same clips at official splits and at random splits by video. Beside them, for "
    "all 51 classes of HMDB51: what others report on official splits, trained from scratch; what "
    "the public code reports on its random split, from pretrained weights; the most that a leak "
    "explains on that split; and what the paper prints."
)
TEXT = "A horizontal line for each model, from a dot, official splits, to a square, random splits."


class Findings(SphinxDirective):
    """Write the sentences as a numbered list, then the figure of the leak."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes; a missing result stops the build."""
        root = project_root()
        measured = ("benchmarks/results/no_network.json", "benchmarks/results/leakage.json")
        for file in ("results/published/study/rows.jsonl", *measured):
            self.env.note_dependency(str(root / file))
        evidence = Evidence.load(root)
        items = [nodes.list_item("", nodes.paragraph(text=text)) for text in sentences(evidence)]
        figure = numbered_figure(self, "fig-verdict", CAPTION, _picture(evidence))
        return [nodes.enumerated_list("", *items, enumtype="arabic"), figure]


class Outcome(SphinxDirective):
    """Say what came out of each reading, ablation or setting, such as ``fit=letterbox``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a list; a reading that the library does not have stops the build."""
        items = []
        for name in " ".join(self.content).split():
            setting, _, value = name.partition("=")
            if value and setting in TrainConfig.model_fields:
                outcome = describe_setting(_published(), setting, value)
            elif name in READINGS:
                outcome = _outcomes()[name]
            else:
                raise self.error(f"{name} is no reading and no setting; readings: {[*READINGS]}")
            text = nodes.Text(f": {outcome}.")
            text = nodes.paragraph("", "", nodes.literal("", name), text)
            items.append(nodes.list_item("", text))
        return [nodes.paragraph("", "", nodes.strong("", "What came out.")), _bullets(items)]


def _bullets(items: list[nodes.Node]) -> nodes.Node:
    return nodes.bullet_list("", *items, bullet="*")


def _published() -> list[Row]:
    """Return the rows of the study and of the readings."""
    return [*published_rows("readings"), *published_rows("study")]


@cache
def _outcomes() -> dict[str, str]:
    """Return what came out of each trained reading, on UT-Interaction and on J-HMDB."""
    changes = describe_changes(published_rows("readings"))
    said = {name: [text] for name, text in changes.items()}
    for difference in differences_from_hst(study_rows()):
        if (first := difference.other.rows[0].config).model == "hst":
            said[first.reading].append(f"on J-HMDB: {difference.sentence[:-1]}")
    return {name: "; ".join(texts) for name, texts in said.items()}


def _picture(evidence: Evidence) -> str:
    """Draw top-1 on official and on random splits; return HTML, on white paper in the dark, too."""
    table = evidence.leak_table()
    with plt.rc_context({"svg.hashsalt": "findings", "svg.fonttype": "path"}):
        size = 7.5, 0.36 * len(table.dropna()) + 2
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        show_leak(ax, table, evidence.ceiling)
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    style = "max-width: 100%; min-width: 32em; height: auto; background: white"
    return svg.replace("<svg", f'<svg role="img" aria-label="{TEXT}" style="{style}"', 1)


def setup(app):
    """Register with Sphinx."""
    app.add_directive("findings", Findings)
    app.add_directive("outcome", Outcome)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
