"""Show version, commit, date and licence at the foot of every page.

The date is the commit's, so that a site built twice from one commit is the same. Without git, or in
an unpacked archive, the version stands alone.
"""

import subprocess
from html import escape

import hstlib


def _git(folder, *arguments):
    command = ["git", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def edition(folder):
    """Return version, commit and date of the sources in a folder, as one line of text."""
    parts = [f"Version {hstlib.__version__}"]
    if commit := _git(folder, "show", "--no-patch", "--format=%h of %cs", "HEAD"):
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        parts.append(f"commit {commit}{', with changes' if changed else ''}")
    return ", ".join([*parts, "MIT licence"])


def _show(app, config):
    options = config.html_theme_options
    options["extra_footer"] = f"{options.get('extra_footer', '')}{escape(edition(app.srcdir))}"


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", _show)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
