"""Read links that start at a file's own folder, where the site has the notebooks below the pages.

JupyterLab and GitHub follow ``../book/readings.md#reading-r3`` in a notebook, and
``../notebooks/02_reformer.ipynb`` in a page. Sphinx knows a label on every page by its name alone.
A link to a figure, such as ``[the figure below](#fig-leak)``, becomes the number of the figure.
"""

import re

LABEL = r"(?:reading-r\d+|eq-\d+|audit-\w+|real-\w+|run-\w+)"
RULES = (
    (re.compile(rf"(?<=\]\()[^()\s#]+\.(?:md|ipynb)(?=#{LABEL}\))"), ""),
    (re.compile(r"\[[^][]+\]\([^()\s]*#(fig-[a-z0-9-]+)\)"), r"{numref}`\1`"),
    (re.compile(r"(?<=\]\()\.\./book/"), "../"),
    (re.compile(r"(?<=\]\()\.\./notebooks/"), "notebooks/"),
)


def _rewrite(app, docname, source):
    for pattern, replacement in RULES:
        source[0] = pattern.sub(replacement, source[0])


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", _rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
