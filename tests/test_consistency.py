"""Pages say the same about the same rows; one changed row changes all of them or ends the build."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from hstlib.book.efficiency import differences_at_equal_multiply_adds
from hstlib.book.findings import Evidence, decisions, sentences
from hstlib.book.ledger import evaluate, load_claims, write_csv
from hstlib.book.origin import stale_inputs
from hstlib.book.specification import held_out_runs
from hstlib.book.study import (
    differences_from_hst,
    differences_from_reading,
    differences_from_references,
    results,
)
from hstlib.training.rows import Row, load_rows, publish_rows

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = ROOT / "results/published"
VERDICT = re.compile(
    r"(?:HST|[Tt]he chosen reading) "
    r"(?:and .*? cannot be told apart|is (?:more|less) accurate than|and .*?: no verdict)"
)


def cells(path: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def outputs(path: Path) -> str:
    """All that a notebook printed."""
    stored = [output for cell in cells(path, "code") for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in stored)


def groups(rows: list[Row]) -> list[list[Row]]:
    """Rows of one data set, protocol and variant each."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        key = row.config.dataset, row.config.protocol, row.config.variant
        found.setdefault(key, []).append(row)
    return list(found.values())


def computed(evidence: Evidence, readings: list[Row]) -> set[str]:
    """Every sentence about HST and another model, or a reference, that follows from the rows."""
    full_size = load_rows(PUBLISHED / "full-size")
    compared = [
        *groups(evidence.rows),
        *groups(full_size),
        [r for r in readings if r.config.reading == "paper"],
    ]
    found = set()
    for rows in compared:
        found |= {d.sentence for d in differences_from_hst(rows)}
        found |= {d.sentence for d in differences_from_references(rows, evidence.references)}
    retested = [(held_out_runs(readings), readings)]
    for dataset in ("jhmdb", "folder"):
        equal = evidence.runs(dataset)
        longer = evidence.runs(dataset, variant="equal-multiply-adds")
        found |= {d.sentence for d in differences_at_equal_multiply_adds(longer, equal)}
        retested.append((evidence.runs(dataset, variant="chosen-reading"), equal))
    for chosen, rows in retested:
        found |= {d.sentence for d in differences_from_reading(chosen, rows)}
    return found


def typed_verdicts(text: str, allowed: set[str]) -> list[str]:
    """Lines with a verdict about HST that does not follow from the rows."""
    for sentence in sorted(allowed, key=len, reverse=True):
        text = text.replace(sentence, "").replace(sentence[:-1], "")
    return [line for line in text.splitlines() if VERDICT.search(line)]


@pytest.fixture(scope="module")
def extension():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book/_ext"))
        import findings

        yield findings


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence.load(ROOT)


@pytest.fixture(scope="module")
def allowed(evidence) -> set[str]:
    return computed(evidence, load_rows(PUBLISHED / "readings"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_verdict_of_a_chapter_follows_from_the_rows(path, allowed):
    assert typed_verdicts(outputs(path), allowed) == []


def test_a_verdict_that_does_not_follow_is_found(allowed):
    sentence = next(s for s in allowed if "cannot be told apart" in s)
    assert typed_verdicts(f"Here: {sentence} So it is.", allowed) == []
    other = sentence.replace("points", "points more")
    assert typed_verdicts(other, allowed) == [other]
    assert typed_verdicts("HST is more accurate than C3D.", allowed)


def test_ledger_register_and_first_page_have_the_sentences_of_the_chapter(
    evidence, allowed, extension
):
    chapter = outputs(ROOT / "notebooks/11_real_video.ipynb")
    differences = differences_from_hst(evidence.runs("jhmdb"))
    assert differences and all(d.sentence in chapter for d in differences)
    claims = [c for c in load_claims().claims if c.predicate == "study_comparison"]
    for entry in evaluate(claims):
        assert typed_verdicts(entry.sentence, allowed) == []
        assert any(d.sentence in entry.sentence for d in differences)
    for outcome in extension._outcomes().values():
        assert typed_verdicts(outcome, allowed) == []
    first = sentences(evidence)[1]
    for name, titles in decisions(differences).items():
        assert f"{name}: {'; '.join(titles) or 'none'}" in chapter
        assert all(title in first for title in titles)


def test_both_chapters_read_the_same_runs_on_ut_interaction(evidence):
    study = {row.run_id: row for row in evidence.runs("folder")}
    readings = {row.run_id: row for row in load_rows(PUBLISHED / "readings")}
    assert {run for run, row in readings.items() if row.config.model != "hst"} <= study.keys()
    for run in study.keys() & readings.keys():
        assert study[run].videos == readings[run].videos, run
        assert study[run].commit == readings[run].commit, run
    chapter = (ROOT / "notebooks/11_real_video.ipynb").read_text()
    assert all(str(result.accuracy) in chapter for result in results(study.values()))


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *sorted(ROOT.glob("book/*.md"))], ids=lambda path: path.stem
)
def test_no_verdict_is_typed_in_the_text(path):
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    claims = re.sub(r"(?m)^\|[^|]*\|", "", text)  # the paper's words, in the first column
    assert typed_verdicts(claims, set()) == []


def flipped(row: Row) -> Row:
    """A run with its right answers wrong, and its wrong ones right."""
    videos = [(label, -1 if label == guess else label, group) for label, guess, group in row.videos]
    return row.model_copy(update={"videos": videos})


def generated(folder: Path, extension) -> dict[str, str]:
    """What is made of the rows of the project in the working directory."""
    evidence = Evidence.load(folder)
    claims = [c for c in load_claims(ROOT / "book/claims.yml").claims if c.id in ("T17", "C01")]
    entries = evaluate(claims)
    write_csv(entries, folder / "claims.csv")
    with (folder / "claims.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    register = extension._outcomes.__wrapped__()
    return {
        "ledger": entries[0].sentence,
        "table to download": table[1]["found"],
        "first page": sentences(evidence)[1],
        "figure of the first page": extension._picture(evidence),
        "register": register["trunk-alone"],
    }


def test_one_row_changes_ledger_page_chart_table_and_sentence_or_ends_the_build(
    extension, tmp_path, monkeypatch
):
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib/__init__.py").touch()
    for name in ("book", "notebooks", "tests", "benchmarks", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(PUBLISHED, tmp_path / "results/published")
    monkeypatch.chdir(tmp_path)
    chapter = outputs(ROOT / "notebooks/11_real_video.ipynb")
    assert stale_inputs(chapter) == []

    path = tmp_path / "results/published/study/rows.jsonl"
    rows = [row.model_copy(update={"training_top1": 1.0}) for row in load_rows(path.parent)]
    publish_rows(rows, path, curves=True)
    before = generated(tmp_path, extension)
    (number, *_) = [
        i for i, r in enumerate(rows)
        if (r.config.model, r.config.reading, r.config.dataset, r.config.protocol)
        == ("hst", "paper", "jhmdb", "official")
    ]  # fmt: skip
    rows[number] = flipped(rows[number])
    publish_rows(rows, path, curves=True)
    after = generated(tmp_path, extension)
    assert [name for name in before if before[name] == after[name]] == []
    (stale,) = stale_inputs(chapter)
    assert stale.startswith("results/published/study has sha256")


def test_ledger_and_chapter_count_the_same_multiply_adds():
    (table,) = [
        "".join(output["data"]["text/plain"])
        for cell in cells(ROOT / "notebooks/05_architecture.ipynb", "code")
        for output in cell["outputs"]
        if '"multiply-adds", digits' in "".join(cell["source"]) and "data" in output
    ]
    _, *rows = [line.split() for line in table.splitlines()]
    (entry,) = evaluate([c for c in load_claims().claims if c.id == "C03"])
    assert len(rows) == 4
    for model, resnet21, _ in rows:
        assert f"{model} needs {float(resnet21):.0f}" in entry.sentence or (
            f"{model} {float(resnet21):.0f}" in entry.sentence
        ), model
