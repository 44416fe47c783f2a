"""Directives ``model-map``, the model as a diagram, and ``equation-index``, a section per equation.

Everything comes from :mod:`hstlib.book.model_map` and :mod:`hstlib.book.equations`. A renamed
function, a missing test or an equation that its chapter no longer has ends the build.
"""

import os

from docutils import nodes
from docutils.statemachine import StringList
from figures import numbered_figure
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from hstlib.book.equations import load_index
from hstlib.book.ledger import load_claims
from hstlib.book.model_map import model_map

CAPTION = "HST from frames and flow to classes, with the shape of every output for one clip."


class ModelMap(SphinxDirective):
    """The whole model; its boxes lead to the sections of this page and to the register."""

    def run(self):
        """Return the diagram."""
        self.env.note_reread()
        readings = self.env.app.builder.get_relative_uri(self.env.docname, "readings")
        diagram = model_map(lambda n: f"#equation-{n}", lambda n: f"{readings}#reading-r{n}")
        return [numbered_figure(self, "fig-model-map", CAPTION, diagram.svg())]


class EquationIndex(SphinxDirective):
    """All equations with the paper's words, readings, source, tests and claims."""

    def run(self):
        """Return a section per equation."""
        self.env.note_reread()
        try:
            return [self._section(entry) for entry in load_index()]
        except ValueError as error:
            raise ExtensionError(str(error)) from error

    def _section(self, entry):
        number = entry.equation.number
        name = f"equation-{number}"
        section = nodes.section("", nodes.title("", f"Equation ({number})"), ids=[name])
        section["names"] = [name]
        equation = f"{entry.tex} \\tag*{{({number})}}"
        lines = [f"> {entry.words}", "", "\\begin{equation*}", equation, "\\end{equation*}", ""]
        lines += [f"- {line}" for line in self._facts(entry)]
        for source in entry.sources:
            lines += ["", *self._folded(source)]
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), 0, section)
        return section

    def _facts(self, entry):
        number, readings = entry.equation.number, entry.equation.readings
        chapter = entry.equation.notebook.partition("_")[0]
        yield f"Derived in chapter {chapter}, {entry.chapter}: [{entry.heading}](#eq-{number})"
        links = ", ".join(f"[R{reading}](#reading-r{reading})" for reading in readings)
        yield f"{'Readings' if len(readings) > 1 else 'Reading'}: {links}"
        yield f"Compared with a transcription by {', '.join(f'`{test}`' for test in entry.tests)}"
        claims = [c.id for c in load_claims().claims if c.place == f"Equation ({number})"]
        if claims and "claims" in self.env.found_docs:
            page = self.env.app.builder.get_relative_uri(self.env.docname, "claims")
            links = ", ".join(f'<a href="{page}#claim-{c.lower()}">{c}</a>' for c in claims)
            yield f"Claims of the paper about it: {links}"

    def _folded(self, source):
        """Return the lines of a folded listing of the source."""
        self.env.note_dependency(str(source.file))
        path = os.path.relpath(source.file, self.env.srcdir).replace(os.sep, "/")
        return [
            f"::::{{admonition}} {source.name}", ":class: dropdown", "",
            f":::{{literalinclude}} /{path}", f":pyobject: {source.first}", ":language: python",
            ":lineno-match:", ":::", "::::",
        ]  # fmt: skip


def setup(app):
    """Register with Sphinx."""
    app.add_directive("model-map", ModelMap)
    app.add_directive("equation-index", EquationIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
