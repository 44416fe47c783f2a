"""Number the figures; end the build on one without caption or text, and on stale or wiped outputs.

A notebook's figure gets its caption and its text for screen readers from the metadata of its cell:
``mystnb: {figure: {caption, name}, image: {alt}}``. A directive makes one with
:func:`numbered_figure`. Every fault is a warning, which ``-W`` makes an error.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

from hstlib.book.origin import stale_inputs

log = logging.getLogger(__name__)
HASH = re.compile(r"[0-9a-f]{32,}")
SHOWING = "\nplt.show()", "show_table(", "describe_inputs("
NUMBERED = re.compile(r"^\s*\S+ [A-Z]?\d+\s")
VOID = {"img", "br", "hr", "input", "link", "meta", "source", "wbr", "col", "area", "base", "embed"}


def numbered_figure(directive, name, caption, html):
    """Return a figure of HTML with a caption; links with its name get its number.

    Args:
        directive: The Sphinx directive that makes the figure.
        name: Label, such as ``fig-leak``.
        caption: Text below the figure, with a full stop.
        html: The picture, with a text for screen readers.
    """
    figure = nodes.figure("", nodes.raw("", html, format="html"), names=[name])
    figure += nodes.caption("", caption)
    directive.state.document.note_explicit_target(figure, figure)
    return figure


class _Pictures(HTMLParser):
    """Collect every picture of the book with the caption of the figure around it.

    A picture is an image file, a drawing with a role (others are icons), or a player.
    """

    def __init__(self):
        super().__init__()
        self.stack, self.pictures, self.waiting, self.caption = [], [], [], None

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.stack.append(tag)
        values = dict(attributes)
        if tag == "figcaption":
            self.caption = ""
        if tag == "img" and "_images/" in (values.get("src") or ""):
            self._add(values.get("alt"))
        elif tag == "svg" and values.get("role") in ("img", "group"):
            self._add(values.get("aria-label") or values.get("aria-labelledby"))
        elif values.get("class") == "hst-player":
            self._add(values.get("aria-label"))

    def _add(self, text):
        picture = [text or "", None]
        self.pictures.append(picture)
        if "figure" in self.stack:
            self.waiting.append(picture)

    def handle_endtag(self, tag):
        if tag not in self.stack:
            return
        while self.stack.pop() != tag:
            pass
        if tag == "figcaption":
            for picture in self.waiting:
                picture[1] = self.caption
            self.caption = None
        if tag == "figure":
            self.waiting = []

    def handle_data(self, data):
        if self.caption is not None:
            self.caption += data


def find_faults(html):
    """Return what is wrong with the pictures of a built page, one line each."""
    parser = _Pictures()
    parser.feed(html)
    faults = []
    for number, (alt, caption) in enumerate(parser.pictures, 1):
        name = f"picture {number}"
        if caption is None:
            faults.append(f"{name} has no caption; give its cell mystnb: figure: caption")
        elif not NUMBERED.match(caption):
            faults.append(f"{name} has no number: {caption.strip()!r}")
        if not alt or HASH.search(alt):
            faults.append(f"{name} has no text that says what it shows; use mystnb: image: alt")
        elif caption and alt.strip() in caption:
            faults.append(f"{name} has its caption as text: {alt!r}; say what it shows")
    return faults


def output_faults(notebook):
    """Return what is wrong with the stored outputs of a notebook, one line each.

    Args:
        notebook: Parsed JSON of the notebook.
    """
    faults, texts = [], []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        shows = "mystnb" in cell["metadata"] or any(call in source for call in SHOWING)
        if shows and not cell["outputs"]:
            faults.append(f"a cell that shows results has no output: {source.splitlines()[-1]!r}")
        texts += ["".join(output.get("text", "")) for output in cell["outputs"]]
    return faults + stale_inputs("\n".join(texts))


def _check_outputs(app, docname, source):
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        for fault in output_faults(json.loads(path.read_text())):
            log.warning("%s; execute the notebook again", fault, location=docname)


def _outdated(app, env, added, changed, removed):
    """Read every notebook anew: what its output was made of may have changed."""
    return [name for name in env.found_docs if env.doc2path(name).endswith(".ipynb")]


def _check_pictures(app, exception):
    if exception or app.builder.format != "html":
        return
    for docname in sorted(app.env.found_docs):
        page = Path(app.outdir) / f"{docname}.html"
        if page.is_file():
            for fault in find_faults(page.read_text()):
                log.warning(fault, location=docname)


def setup(app):
    """Register the checks."""
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _check_outputs)
    app.connect("build-finished", _check_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
