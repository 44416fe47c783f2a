"""Write constraints.lock: the versions of constraints.txt, and the SHA-256 of what pip installs.

    .venv/bin/python .ci/lock.py   # on Linux, x86-64, with CPython 3.11 and torch's CPU build

Every version is downloaded, nothing is installed.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Written by .ci/lock.py, for Linux on x86-64 with CPython 3.11 and the CPU build of torch
# (https://download.pytorch.org/whl/cpu). `make LOCKED=1` installs from it.
"""
REPORT = "--dry-run --ignore-installed --no-deps --quiet --report -".split()


def locked(package: dict) -> str:
    """Return the line of a package in pip's installation report."""
    name, version = package["metadata"]["name"], package["metadata"]["version"]
    digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={version} --hash=sha256:{digest}\n"


command = [sys.executable, "-m", "pip", "install", *REPORT, "--requirement", "constraints.txt"]
report = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
lines = sorted(map(locked, json.loads(report)["install"]), key=str.lower)
(ROOT / "constraints.lock").write_text(HEADER + "".join(lines))
