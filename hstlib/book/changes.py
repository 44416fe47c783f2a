"""Whether the code that trained a run is still the code of this checkout."""

import subprocess
from functools import cache
from pathlib import Path

from hstlib.config import project_root
from hstlib.training.rows import Row

RUN_CODE = (
    *(f"hstlib/{name}.py" for name in ("config", "files", "processes")),
    *(f"hstlib/{wing}" for wing in ("data", "model", "training")),
)
"""Files and folders that a run's result depends on."""


def code_since(row: Row) -> str:
    """Compare the code that trained a run with the code in the checkout.

    Returns:
        ``same``, ``changed since``, ``not committed`` if the run's code was in no commit, or
        ``unknown`` outside the project's own checkout or if it lacks the commit.
    """
    if row.commit == "unknown":
        return "unknown"
    return "not committed" if row.dirty else _since(project_root().resolve(), row.commit)


@cache
def _since(root: Path, commit: str) -> str:
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if top.returncode or Path(top.stdout.rstrip("\n")).resolve() != root:
            return "unknown"
        code = _git(root, "diff", "--quiet", commit, "--", *RUN_CODE).returncode
    except OSError:  # no git
        return "unknown"
    return {0: "same", 1: "changed since"}.get(code, "unknown")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True)
