"""Directives ``claims-ledger``, ``claims-summary`` and ``citation-audit``: generated pages.

Everything is computed by :mod:`hstlib.book.ledger` while Sphinx reads the page. An error, such
as a dead link or a verdict without a sentence, ends the build.
"""

import re
from functools import cache
from itertools import groupby
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from hstlib.book.citations import judge, load_citations
from hstlib.book.evidence import PREDICATES
from hstlib.book.ledger import (
    CITATION_PAGE,
    Entry,
    citation_anchor,
    count_verdicts,
    evaluate,
    find_page,
    load_claims,
    page_anchors,
    write_csv,
)
from hstlib.book.verdicts import VERDICTS

PAGE, DOWNLOAD = "claims", "_static/claims.csv"


@cache
def _entries() -> list[Entry]:
    return evaluate(load_claims().claims)


class _Generated(SphinxDirective):
    """Base of the directives: reads the page anew in every build, and reports errors in a line."""

    def run(self):
        """Return the nodes of the directive."""
        self.env.note_reread()
        try:
            return self.build()
        except ValueError as error:
            raise ExtensionError(str(error)) from error

    def text(self, markdown, classes=()):
        """Parse one line of Markdown as a paragraph."""
        children, messages = self.state.inline_text(markdown, self.lineno)
        return nodes.paragraph("", "", *children, *messages, classes=list(classes))

    def link(self, page, anchor, title):
        """Return a link to an anchor of another page of the book."""
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return nodes.reference("", title, refuri=f"{uri}#{anchor}" if anchor else uri)


class ClaimsSummary(_Generated):
    """Counts by verdict, and what each verdict means."""

    def build(self):
        """Return a table."""
        counts = count_verdicts(_entries())
        rows = [
            [nodes.paragraph("", "", _badge(verdict)), _paragraph(str(counts[verdict])),
             _paragraph(VERDICTS[verdict])]
            for verdict in VERDICTS
        ]  # fmt: skip
        total = _paragraph(f"{sum(counts.values())} claims were checked.")
        if self.env.docname != PAGE:
            total += nodes.Text(" ")
            total += self.link(PAGE, "", "All of them, with what was found.")
        return [total, _table(["verdict", "claims", "meaning"], rows, ["claims-summary"])]


class ClaimsLedger(_Generated):
    """All claims by section, as cards with anchors."""

    def build(self):
        """Return a section per section of the paper."""
        sections = load_claims().sections
        order = list(sections)
        entries = sorted(_entries(), key=lambda e: order.index(e.claim.section))
        return [
            self._section(sections[key], list(group))
            for key, group in groupby(entries, key=lambda entry: entry.claim.section)
        ]

    def _section(self, title, entries):
        name = f"claims-{nodes.make_id(title)}"
        section = nodes.section("", nodes.title("", title), ids=[name], names=[name])
        for entry in entries:
            section += self._card(entry, name)
        return section

    def _card(self, entry, section):
        claim, verdict = entry.claim, entry.finding.verdict
        head = nodes.paragraph("", "", classes=["claim-head"])
        head += nodes.reference("", claim.id, refuri=f"#{entry.anchor}", classes=["claim-id"])
        head += nodes.Text(f" {claim.place} ")
        head += _badge(verdict)
        classes = ["claim", f"verdict-{nodes.make_id(verdict)}", f"in-{section}"]
        return nodes.container(
            "",
            head,
            self.text(f"“{_as_markdown(claim.words)}”", ["claim-words"]),
            self.text(self._with_links(entry.sentence), ["claim-found"]),
            self._evidence(entry),
            classes=classes,
            ids=[entry.anchor],
        )

    def _with_links(self, sentence):
        """Link entries of the register (R14) and other claims (N16) that a sentence names."""
        register = self.env.app.builder.get_relative_uri(self.env.docname, "readings")

        def link(match):
            name = match[0]
            if name in {entry.claim.id for entry in _entries()}:
                return f'<a href="#claim-{name.lower()}">{name}</a>'
            if f"reading-{name.lower()}" in page_anchors("readings"):
                return f'<a href="{register}#reading-{name.lower()}">{name}</a>'
            return name

        return re.sub(r"\b[A-Z][0-9]{1,2}\b", link, sentence)

    def _evidence(self, entry):
        checked = PREDICATES[entry.claim.predicate].__doc__.partition("\n\n")[0]
        text = f"Checked: {' '.join(checked.split())} Shown by "
        paragraph = nodes.paragraph("", text, classes=["claim-evidence"])
        name, _, anchor = entry.claim.evidence.partition("#")
        if name.startswith(("tests/", "hstlib.")):
            paragraph += nodes.literal("", entry.claim.evidence)
        else:
            title, page = page_anchors(name)[anchor], find_page(name)
            chapter = page.removeprefix("notebooks/").partition("_")[0]
            prefix = f"chapter {chapter}, " if page.startswith("notebooks/") else ""
            paragraph += self.link(page, anchor, f"{prefix}{title}")
        paragraph += nodes.Text("; made by ")
        paragraph += nodes.literal("", entry.command)
        return paragraph


class CitationAudit(_Generated):
    """The paper's citations, number by number."""

    def build(self):
        """Return a table."""
        citations = load_citations()
        rows = []
        for use in citations.uses:
            finding = judge(use, citations)
            values = finding.values
            number = _paragraph(values["number"])
            number["ids"] = [citation_anchor(use.name)]
            entry = values["entry"] + (f": {values['fact']}" if values["fact"] else "")
            meant = f"{values['meant']}: {values['right']}" if use.works else values["said"]
            words = f"“{use.words}” (section {use.section})"
            verdict = nodes.paragraph("", "", _badge(finding.verdict))
            rows.append([number, verdict, *map(_paragraph, (words, entry, meant))])
        header = [
            "number",
            "verdict",
            "the paper's words",
            "the list has",
            "the work or topic meant",
        ]
        return [_table(header, rows, ["citation-audit"])]


def _as_markdown(words):
    """Join the lines of a quote; a formula that is quoted without its dollars gets them."""
    line = " ".join(words.split())
    formula = "$" not in line and re.search(r"\\[a-z]|_\{", line)
    return f"${line}$" if formula else line


def _paragraph(text):
    return nodes.paragraph("", text)


def _badge(verdict):
    return nodes.inline("", verdict, classes=["verdict", f"verdict-{nodes.make_id(verdict)}"])


def _table(header, rows, classes):
    """Return a table of cells that are nodes."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    titles = [nodes.entry("", _paragraph(title)) for title in header]
    group += nodes.thead("", nodes.row("", *titles))
    body = nodes.tbody()
    for cells in rows:
        body += nodes.row("", *(nodes.entry("", cell) for cell in cells))
    group += body
    return nodes.container("", nodes.table("", group), classes=classes)


def _register_anchors(app, env):
    """Let other pages link to a claim or a citation, as ``claims.md#claim-t05``."""
    anchors = {PAGE: {entry.anchor: entry.claim.id for entry in _entries()}}
    anchors[CITATION_PAGE] = page_anchors(CITATION_PAGE)
    for page, titles in anchors.items():
        if page in env.all_docs:
            slugs = {anchor: (1, anchor, title) for anchor, title in titles.items()}
            env.metadata[page].setdefault("myst_slugs", {}).update(slugs)


def _finish(app, exception):
    """Write the table to download, and check that every link of the ledger has its target."""
    if exception or app.builder.format != "html" or PAGE not in app.env.all_docs:
        return
    write_csv(_entries(), Path(app.outdir) / DOWNLOAD)
    for entry in _entries():
        name, _, anchor = entry.claim.evidence.partition("#")
        if name.startswith(("tests/", "hstlib.")):
            continue
        built = Path(app.outdir) / f"{find_page(name)}.html"
        if not built.is_file() or (anchor and f'id="{anchor}"' not in _html(built)):
            raise ExtensionError(
                f"claim {entry.claim.id}: the site has no {entry.claim.evidence}; is "
                f"{find_page(name)} in the table of contents?"
            )


@cache
def _html(path):
    return path.read_text()


def setup(app):
    """Register the directives and the check."""
    app.add_directive("claims-summary", ClaimsSummary)
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_directive("citation-audit", CitationAudit)
    app.connect("env-updated", _register_anchors)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
