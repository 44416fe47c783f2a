"""The claims ledger: every claim of the paper, its verdict, and a link to what shows it.

``book/claims.yml`` has the claims. A verdict is never written there: a predicate computes it, and
the sentence of a finding is filled with the predicate's values. A claim whose verdict has no
sentence is an error, so evidence that changes sides fails the build.
"""

import ast
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from docutils.nodes import make_id
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hstlib.book.citations import load_citations
from hstlib.book.evidence import PREDICATES
from hstlib.book.verdicts import VERDICTS, Finding
from hstlib.config import project_path

CLAIMS = "book/claims.yml"
CITATION_PAGE = "citations"
COLUMNS = ("id", "section", "place", "kind", "words", "verdict", "found", "evidence", "command")


class Claim(BaseModel):
    """A claim of the paper, as ``book/claims.yml`` has it.

    Attributes:
        id: A letter and two digits, such as T05.
        section: Key of :attr:`Claims.sections`.
        place: Section, table, equation or figure of the paper.
        words: The paper's words, copied.
        kind: What it is: architecture, equation, number, reference, result, training, or a
            qualitative claim.
        predicate: Key of :data:`hstlib.book.evidence.PREDICATES`.
        arguments: Arguments of the predicate.
        found: Sentence by verdict, with placeholders for the predicate's values.
        evidence: ``chapter#anchor`` with the name of a notebook without its number, ``page#anchor``
            of the book, a test such as ``tests/test_x.py::test_y``, or an object such as
            ``hstlib.book.evidence.accuracy``.
        command: What makes the evidence. Empty: the command that follows from the evidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Z][0-9]{2}$")
    section: str
    place: str
    words: str = Field(min_length=3)
    kind: str
    predicate: str
    arguments: dict[str, Any] = {}
    found: dict[str, str]
    evidence: str
    command: str = ""


class Claims(BaseModel):
    """Contents of ``book/claims.yml``.

    Attributes:
        sections: Title of each section, in the order of the page.
        claims: The claims.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sections: dict[str, str]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Entry:
    """A claim with what was found.

    Attributes:
        claim: The claim.
        finding: Verdict and values of the predicate.
        sentence: What was found, in one or two sentences.
        command: What makes the evidence.
    """

    claim: Claim
    finding: Finding
    sentence: str
    command: str

    @property
    def anchor(self) -> str:
        """Anchor of the claim on the page."""
        return f"claim-{self.claim.id.lower()}"


def load_claims(path: Path | None = None) -> Claims:
    """Read the claims; None for those of the book.

    Raises:
        ValueError: If a claim has an unknown field, an unknown section, or an id twice.
    """
    path = path or project_path(CLAIMS)
    try:
        claims = Claims.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problems = (": ".join([*map(str, d["loc"]), d["msg"]]) for d in error.errors())
        raise ValueError(f"{path}: {'; '.join(problems)}") from None
    repeated = [name for name, n in Counter(c.id for c in claims.claims).items() if n > 1]
    if repeated:
        raise ValueError(f"{path}: claim {repeated[0]} is there twice; give each its own id")
    for claim in claims.claims:
        if claim.section not in claims.sections:
            raise ValueError(f"{path}: claim {claim.id} has the unknown section {claim.section!r}")
    return claims


def evaluate(claims: Iterable[Claim]) -> list[Entry]:
    """Compute verdict, sentence and command of each claim.

    Raises:
        ValueError: If a link is dead, a predicate fails, or a verdict has no sentence; the message
            has a line for each claim that is concerned.
    """
    entries, problems = [], []
    for claim in claims:
        try:
            entries.append(_evaluate(claim))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return entries


def _evaluate(claim: Claim) -> Entry:
    check_evidence(claim)
    finding = _find(claim)
    if finding.verdict not in claim.found:
        raise ValueError(
            f"claim {claim.id}: the verdict is {finding.verdict!r}, but {CLAIMS} has a sentence "
            f"for {', '.join(map(repr, claim.found))} only; read the evidence and write one"
        )
    try:
        sentence = claim.found[finding.verdict].format(**finding.values)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ValueError(
            f"claim {claim.id}: its sentence needs {error}, but {claim.predicate} gives "
            f"{', '.join(finding.values) or 'no values'}"
        ) from None
    return Entry(claim, finding, sentence, claim.command or _command(claim))


def _find(claim: Claim) -> Finding:
    """Call the predicate of a claim."""
    if claim.predicate not in PREDICATES:
        raise ValueError(f"claim {claim.id}: there is no predicate {claim.predicate!r}")
    unknown = claim.found.keys() - VERDICTS.keys()
    if unknown:
        raise ValueError(f"claim {claim.id}: {min(unknown)!r} is not a verdict")
    try:
        return PREDICATES[claim.predicate](**claim.arguments)
    except Exception as error:
        raise ValueError(
            f"claim {claim.id}: {claim.predicate} failed: {type(error).__name__}: {error}"
        ) from error


def check_evidence(claim: Claim) -> None:
    """Check that the evidence of a claim exists.

    Raises:
        ValueError: If its file, heading, test or object does not exist. The message names it.
    """
    evidence = claim.evidence
    path, _, anchor = evidence.partition("#")
    if evidence.startswith("tests/"):
        file, _, test = evidence.partition("::")
        exists = test in _tests(project_path(file))
    elif evidence.startswith("hstlib."):
        exists = _is_object(evidence)
    else:
        exists = anchor in page_anchors(path)
    if not exists:
        similar = get_close_matches(anchor, page_anchors(path), n=1) if anchor else []
        advice = f"did you mean #{similar[0]}?" if similar else f"correct the evidence in {CLAIMS}"
        raise ValueError(f"claim {claim.id}: there is no {evidence}; {advice}")


def find_page(name: str) -> str:
    """Return the path of a page in ``book``, without suffix: ``notebooks/02_reformer`` of reformer.

    Notebooks are named without their numbers, which change when a chapter is inserted.

    Returns:
        The path; the name itself for a page that is generated or does not exist.
    """
    notebooks = sorted(project_path("notebooks").glob(f"[0-9][0-9]_{name}.ipynb"))
    return f"notebooks/{notebooks[0].stem}" if notebooks else name


def page_anchors(name: str) -> dict[str, str]:
    """Return the titles of a page of the book by anchor: its headings, its labels, its top ("").

    Args:
        name: Name of a page, as :func:`find_page` takes it.
    """
    if name == CITATION_PAGE:  # generated: an anchor per use
        return {citation_anchor(use.name): use.said for use in load_citations().uses}
    for suffix in (".ipynb", ".md"):
        path = project_path("book") / f"{find_page(name)}{suffix}"
        if path.is_file():
            return dict(_anchors(path, path.stat().st_mtime_ns))
    return {}


def citation_anchor(use: str) -> str:
    """Return the anchor of a use on the page of citations."""
    return f"citation-{use}"


@cache
def _anchors(path: Path, _: int) -> dict[str, str]:
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"(?m)^(?:\((.+)\)=\n)?#+ (.+)$", text)
    plain = [(label, re.sub(r"[$`*]", "", title)) for label, title in headings]
    labelled = {make_id(label): title for label, title in plain if label}
    return {"": plain[0][1] if plain else path.stem} | {make_id(t): t for _, t in plain} | labelled


def _tests(path: Path) -> set[str]:
    return _functions(path, path.stat().st_mtime_ns) if path.is_file() else set()


@cache
def _functions(path: Path, _: int) -> set[str]:
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}


def _is_object(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def _command(claim: Claim) -> str:
    """Return the command that makes the evidence of a claim."""
    page = find_page(claim.evidence.partition("#")[0])
    if claim.evidence.startswith("tests/"):
        return f"pytest {claim.evidence}"
    if page.startswith("notebooks/"):
        return f"make notebooks NOTEBOOKS={page}.ipynb"
    return f"python -m hstlib.book.ledger {claim.id}"


def count_verdicts(entries: Iterable[Entry]) -> dict[str, int]:
    """Count the entries by verdict, in the order of :data:`VERDICTS`."""
    counts = Counter(entry.finding.verdict for entry in entries)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def write_csv(entries: Iterable[Entry], path: Path) -> None:
    """Write the ledger as a table, one row per claim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_csv_row(entry) for entry in entries)


def _csv_row(entry: Entry) -> dict[str, str]:
    claim = entry.claim.model_dump(include=set(COLUMNS))
    return claim | {
        "words": " ".join(entry.claim.words.split()),
        "verdict": entry.finding.verdict,
        "found": entry.sentence,
        "command": entry.command,
    }


def main(ids: list[str]) -> None:
    """Print verdict and sentence of the claims named on the command line; of all without names."""
    for entry in evaluate(c for c in load_claims().claims if not ids or c.id in ids):
        print(f"{entry.claim.id}: {entry.finding.verdict}. {entry.sentence}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
