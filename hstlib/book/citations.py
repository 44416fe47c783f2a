"""The paper's list of references, and what each number in its text is used for."""

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hstlib.book.verdicts import CONTRADICTED, HOLDS, UNCHECKABLE, WRONG_CITATION, Finding
from hstlib.config import project_path

CITATIONS = "book/citations.yml"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(_Entry):
    """An entry of the paper's list.

    Attributes:
        number: Number of the entry.
        work: Key of the work.
        authors: Authors as printed, or the beginning of their list.
        title: Title as printed.
        year: Year of the identifier or of the proceedings, as printed.
    """

    number: int
    work: str
    authors: str
    title: str
    year: int


class Work(_Entry):
    """A work that the paper's list has or should have.

    Attributes:
        name: Short name with authors and year.
        facts: What the work itself says, by topic, as far as the paper describes it.
    """

    name: str
    facts: dict[str, str] = {}


class Use(_Entry):
    """A place of the text that names a work, with a number or without.

    Attributes:
        name: Name of the use; claims refer to it.
        section: Section of the paper.
        words: The paper's words.
        number: Number printed there. None: the work is named without one.
        said: What the sentence says the number is.
        works: Keys of the works that the sentence means. Empty: it names none.
        described: What the sentence says about the work, by topic of :attr:`Work.facts`.
    """

    name: str
    section: str
    words: str
    number: int | None
    said: str
    works: tuple[str, ...] = ()
    described: dict[str, str] = {}


class Citations(_Entry):
    """Contents of ``book/citations.yml``."""

    references: tuple[Reference, ...]
    works: dict[str, Work]
    uses: tuple[Use, ...]

    @model_validator(mode="after")
    def _check(self) -> "Citations":
        keys = [r.work for r in self.references] + [w for use in self.uses for w in use.works]
        unknown = sorted({key for key in keys if key not in self.works})
        if unknown:
            raise ValueError(f"works has no {unknown[0]!r}; add it or correct the key")
        return self

    def work_of(self, number: int) -> str:
        """Return the key of a reference's work.

        Raises:
            ValueError: If the list has no such number.
        """
        for reference in self.references:
            if reference.number == number:
                return reference.work
        raise ValueError(f"reference [{number}] is not among the references")

    def number_of(self, work: str) -> str:
        """Return the number that a work has in the paper's list, or that it is missing there."""
        numbers = [reference.number for reference in self.references if reference.work == work]
        return f"[{numbers[0]}]" if numbers else "not in the list"


def load_citations(path: Path | None = None) -> Citations:
    """Read the citations; None for those of the book.

    Raises:
        ValueError: If the file has an unknown key or a reference to a missing work.
    """
    path = path or project_path(CITATIONS)
    return _load(path, path.stat().st_mtime_ns)


@cache
def _load(path: Path, _: int) -> Citations:
    try:
        return Citations.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problems = (": ".join([*map(str, d["loc"]), d["msg"]]) for d in error.errors())
        raise ValueError(f"{path}: {'; '.join(problems)}") from None


def judge(use: Use, citations: Citations) -> Finding:
    """Compare the work that a number points to with the work that the sentence names."""
    cited = citations.work_of(use.number) if use.number else None
    meant = [citations.works[key].name for key in use.works]
    differing = {
        topic: citations.works[cited].facts[topic]
        for topic, said in use.described.items()
        if cited and citations.works[cited].facts[topic] != said
    }
    values = {
        "number": f"[{use.number}]" if use.number else "no number",
        "said": use.said,
        "entry": citations.works[cited].name if cited else "no entry",
        "meant": " and ".join(meant) or "no work",
        "right": " and ".join(citations.number_of(key) for key in use.works) or "unclear",
        "fact": "; ".join(differing.values()),
    }
    if not use.works:
        return Finding(UNCHECKABLE, values)
    if set(use.works) != {cited}:
        return Finding(WRONG_CITATION, values)
    return Finding(CONTRADICTED if differing else HOLDS, values)


def find_use(name: str, citations: Citations) -> Use:
    """Return a use by name.

    Raises:
        ValueError: If there is none.
    """
    for use in citations.uses:
        if use.name == name:
            return use
    raise ValueError(f"{CITATIONS} has no use {name!r}; correct the name or add the use")


def citation(use: str) -> Finding:
    """The number in the text points to the work that the sentence names."""
    citations = load_citations()
    return judge(find_use(use, citations), citations)


def citations_right(uses: list[str]) -> Finding:
    """All of these numbers point to the works that their sentences name."""
    citations = load_citations()
    findings = {name: judge(find_use(name, citations), citations) for name in uses}
    wrong = [finding for finding in findings.values() if finding.verdict == WRONG_CITATION]
    values = {
        "wrong": len(wrong),
        "all": len(uses),
        "listed": ", ".join(f"{f.values['said']} ({f.values['number']})" for f in wrong),
    }
    return Finding(WRONG_CITATION if wrong else HOLDS, values)


def swapped(first: int, second: int) -> Finding:
    """No two numbers are exchanged: each of them is used for the other's work."""
    citations = load_citations()
    meant = {use.number: use.works for use in citations.uses if use.number in (first, second)}
    works = citations.work_of(first), citations.work_of(second)
    exchanged = (meant[first], meant[second]) == ((works[1],), (works[0],))
    numbered = [use for use in citations.uses if use.number is not None]
    wrong = sum(judge(use, citations).verdict == WRONG_CITATION for use in numbered)
    values = {"first": first, "second": second, "wrong": wrong, "numbered": len(numbered)}
    return Finding(WRONG_CITATION if exchanged else HOLDS, values)


def author_initial(number: int, printed: str) -> Finding:
    """The author as printed has the initial that the book's bibliography gives for this work."""
    initial, surname = printed.replace(".", "").split()
    key = load_citations().work_of(number)
    entries = project_path("book/references.bib").read_text().split("@")
    entry = next((text for text in entries if f"{{{key}," in text), "")
    given = next(
        (
            name.split(",")[1].strip()
            for name in entry.partition("author = {")[2].partition("},")[0].split(" and ")
            if name.strip().startswith(f"{surname},")
        ),
        "",
    )
    if not given:
        raise ValueError(f"book/references.bib: entry {key!r} has no author {surname}")
    verdict = HOLDS if given.startswith(initial) else WRONG_CITATION
    return Finding(verdict, {"printed": printed, "given": given, "surname": surname})


def arxiv_year(number: int, identifier: str) -> Finding:
    """The printed year is not before the year of the arXiv identifier."""
    reference = next(r for r in load_citations().references if r.number == number)
    year = 2000 + int(identifier[:2])
    verdict = HOLDS if year <= reference.year else WRONG_CITATION
    return Finding(verdict, {"year": year, "printed": reference.year})


def described(work: str, topic: str, said: str) -> Finding:
    """A sentence describes a work as the work describes itself."""
    entry = load_citations().works[work]
    verdict = HOLDS if entry.facts[topic] == said else CONTRADICTED
    return Finding(verdict, {"said": said, "fact": entry.facts[topic], "name": entry.name})
