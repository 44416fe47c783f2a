"""The claims ledger: its verdicts follow from code, rows and bibliography; dead links fail."""

import csv
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from docutils.nodes import make_id
from example_rows import make_row, paper_settings
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from hstlib.book import evidence
from hstlib.book.citations import find_use, judge, load_citations
from hstlib.book.cost import P100
from hstlib.book.ledger import (
    COLUMNS,
    Claim,
    count_verdicts,
    evaluate,
    find_page,
    load_claims,
    main,
    page_anchors,
    write_csv,
)
from hstlib.book.paper import DAYS, GPUS, PAPER_ROWS
from hstlib.book.selection import OFFICIAL_LISTS
from hstlib.book.specification import design
from hstlib.book.verdicts import VERDICTS
from hstlib.config import TrainConfig, project_path
from hstlib.training.rows import publish_rows

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PAPER = SHARED / "paper/hst-paper.md"
IDS = {"A": 6, "I": 15, "W": 15, "F": 7, "M": 52, "D": 8, "X": 15, "N": 20, "T": 24, "G": 6,
       "C": 4, "B": 6}  # fmt: skip
CLAIMS = {claim.id: claim for claim in load_claims(ROOT / "book/claims.yml").claims}
needs_paper = pytest.mark.skipif(not PAPER.is_file(), reason="the paper is not at hand")


@pytest.fixture(scope="module")
def extension():
    sys.path.insert(0, str(ROOT / "book/_ext"))
    yield __import__("claims")
    sys.path.remove(str(ROOT / "book/_ext"))


@pytest.fixture(scope="module")
def entries(extension):
    """The evaluated claims by id, as the site has them."""
    return {entry.claim.id: entry for entry in extension._entries()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the book's pages and tests, and no result rows."""
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib/__init__.py").touch()
    for name in ("book", "notebooks", "tests", "benchmarks", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entry_of(name: str, **changes):
    """Evaluate one claim of the book, with fields replaced."""
    (entry,) = evaluate([Claim(**(CLAIMS[name].model_dump() | changes))])
    return entry


def words(text: str) -> str:
    return " ".join(text.split())


def test_all_claims_are_there_and_have_a_verdict(entries):
    ids = {f"{letter}{n:02}" for letter, count in IDS.items() for n in range(1, count + 1)}
    assert len(ids) == 178
    assert set(entries) == ids
    counts = count_verdicts(entries.values())
    assert list(counts) == list(VERDICTS)
    assert sum(counts.values()) == 178
    assert all(counts.values()), counts


def test_every_cell_of_tables_2_and_4_has_a_claim():
    cells = {
        (claim.predicate, claim.arguments["table"], claim.arguments["model"]): claim.words
        for claim in CLAIMS.values()
        if claim.id[0] == "T" and claim.predicate in ("accuracy", "parameters")
    }
    printed = {("parameters", row.table, row.model): f"{row.parameters}M" for row in PAPER_ROWS}
    printed |= {("accuracy", row.table, row.model): f"{row.accuracy}%" for row in PAPER_ROWS}
    assert cells == printed


@needs_paper
def test_quotes_are_the_papers():
    paper = words(PAPER.read_text())
    for claim in CLAIMS.values():
        for quote in (claim.words, claim.arguments.get("other", "")):
            assert words(quote) in paper, claim.id
        for absent in claim.arguments.get("absent", ()):
            assert absent.lower() not in paper.lower(), (claim.id, absent)
        for symbol, count in claim.arguments.get("only", {}).items():
            assert paper.count(symbol) == count, (claim.id, symbol)


@needs_paper
def test_citations_are_the_papers():
    paper = words(PAPER.read_text())
    body, _, listed = paper.partition("## Reference")
    citations = load_citations()
    for reference in citations.references:
        entry = listed.partition(f"[{reference.number}] ")[2].partition(" - [")[0]
        assert reference.authors in entry and reference.title in entry, reference.number
    assert all(use.words in body for use in citations.uses)
    numbers = sorted(use.number for use in citations.uses if use.number)
    assert numbers == sorted(int(number) for number in re.findall(r"\[(\d+)\]", body))
    assert numbers == [reference.number for reference in citations.references]


def test_numbers_in_sentences_are_computed():
    """Digits stand in names, in places of the paper and in placeholders, and nowhere else."""
    names = (
        r"\{[^}]*\}|\$[^$]*\$|Eqs?\. \(\d+\)|Tables? \d( and (Table )?\d)?|section \d(\.\d)?"
        r"|\[\d+\]|top-1|\b[A-Z]\d\d\b|HMDB51|UCF101|ResNet-21|VGG-13|R2Plus1D|[RC]3D|P100"
    )
    for claim in CLAIMS.values():
        for sentence in claim.found.values():
            assert not re.search(r"\d", re.sub(names, "", sentence)), (claim.id, sentence)


def test_every_predicate_is_used_and_described():
    assert {claim.predicate for claim in CLAIMS.values()} == set(evidence.PREDICATES)
    assert all(predicate.__doc__ for predicate in evidence.PREDICATES.values())
    used = {claim.arguments.get("use") for claim in CLAIMS.values()}
    used |= {use for claim in CLAIMS.values() for use in claim.arguments.get("uses", ())}
    assert {use.name for use in load_citations().uses} - used == {"eco"}


@pytest.mark.parametrize(
    "change", [{"verdict": "holds"}, {"expect": "holds"}, {"id": "T5"}, {"words": ""}]
)
def test_a_typed_verdict_is_refused(change, tmp_path):
    claim = CLAIMS["T05"].model_dump() | change
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"sections": {"results": "Results"}, "claims": [claim]}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: claims: 0: {next(iter(change))}")):
        load_claims(path)


def test_ids_are_unique_and_sections_known(tmp_path):
    path = tmp_path / "claims.yml"
    claims = [CLAIMS["T05"].model_dump()] * 2
    path.write_text(yaml.safe_dump({"sections": {"results": "Results"}, "claims": claims}))
    with pytest.raises(ValueError, match="claim T05 is there twice"):
        load_claims(path)
    path.write_text(yaml.safe_dump({"sections": {}, "claims": claims[:1]}))
    with pytest.raises(ValueError, match="claim T05 has the unknown section 'results'"):
        load_claims(path)


def test_a_renamed_heading_is_suggested():
    with pytest.raises(ValueError, match="did you mean #equation-2-windows-of-two-frames"):
        entry_of("T05", evidence="reformer#equation-2-windows-of-frames")


@pytest.mark.parametrize(
    "dead",
    [
        "reformed#frames-and-flow",
        "reformer#frames-and-flows",
        "02_reformer#frames-and-flow",
        "readings#reading-r99",
        "citations#citation-nobody",
        "tests/test_ops.py::test_nothing",
        "tests/test_nothing.py::test_nothing",
        "hstlib.book.evidence.nothing",
        "hstlib.nothing.at_all",
        "",
    ],
)
def test_a_dead_link_fails(dead):
    with pytest.raises(
        ValueError, match=f"claim T05: there is no {dead}; (correct the ev|did you m)"
    ):
        entry_of("T05", evidence=dead)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"found": {"holds": "It is so."}}, "the verdict is 'not run', but .* for 'holds' only"),
        ({"found": {"not run": "{nothing}"}}, "its sentence needs 'nothing', but accuracy gives"),
        ({"found": {"maybe": "Perhaps."}}, "'maybe' is not a verdict"),
        ({"predicate": "nothing"}, "there is no predicate 'nothing'"),
        ({"arguments": {"table": 3, "model": "c3d"}}, "accuracy failed: StopIteration"),
        ({"arguments": {"model": "c3d"}}, "accuracy failed: TypeError"),
    ],
)
def test_a_claim_without_a_verdict_or_a_sentence_fails(change, message):
    with pytest.raises(ValueError, match=f"claim T05: {message}"):
        entry_of("T05", **change)


def runs(correct: int, **settings):
    """Runs of HST in the paper's settings on 100 videos of 20 sources, with two seeds."""
    dataset, model = settings.get("dataset", "hmdb51"), settings.get("model", "hst")
    settings = paper_settings(dataset, model).model_dump(exclude={"seed"}) | settings
    split_id = min(OFFICIAL_LISTS[dataset][1])
    videos = [(0, int(i % 100 >= correct), i % 20) for i in range(100)]
    return [
        make_row(correct / 100, videos=videos, split_id=split_id, seed=seed, **settings)
        for seed in (0, 1)
    ]


def publish(project: Path, rows, folder: str = "") -> None:
    path = project / "results/published" / folder / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_rows(rows, path)


def test_a_row_changes_verdict_and_sentence(project):
    assert entry_of("T08").finding.verdict == "not run"
    assert entry_of("T08").sentence == "Not run: HST (ResNet-21) on HMDB51 in the paper's settings."
    publish(project, runs(86))
    near = entry_of("T08")
    assert near.finding.verdict == "holds"
    assert near.sentence.startswith("Runs: 2; top-1 86.0 [")
    publish(project, runs(40))
    far = entry_of("T08")
    assert far.finding.verdict == "contradicted"
    assert far.sentence.startswith("Runs: 2; top-1 40.0 [")
    assert entry_of("T07").finding.verdict == "not run"


@pytest.mark.parametrize(
    "other", [{"epochs": 5}, {"size": 112}, {"reading": "mean-over-time"},
              {"protocol": "random-by-video"}, {"missing": 3}],
)  # fmt: skip
def test_rows_of_other_settings_are_not_the_papers(project, other):
    publish(project, runs(86, **other))
    assert entry_of("T08").finding.verdict == "not run"


def test_the_ranking_needs_all_eight(project):
    accuracies = {"c3d": 50, "r2plus1d": 60, "r3d": 70, "hst": 80}
    rows = [
        row
        for paper in PAPER_ROWS
        for row in runs(
            accuracies[paper.model],
            dataset=paper.dataset, model=paper.model, backbone=paper.backbone,
        )
    ]  # fmt: skip
    publish(project, rows[:-2])
    assert entry_of("A05").sentence.startswith("Not run: no rows of HST on UCF101")
    publish(project, rows)
    assert entry_of("A05").finding.verdict == "holds"
    publish(project, [row for row in rows if row.config.model != "r3d"] + [
        row for table in ("hmdb51", "ucf101")
        for row in runs(95, dataset=table, model="r3d",
                        backbone={"hmdb51": "resnet21", "ucf101": "vgg13"}[table])
    ])  # fmt: skip
    worse = entry_of("A05")
    assert (worse.finding.verdict, worse.sentence[-9:]) == ("contradicted", "R3D, R3D.")


def study(accuracies: dict[str, float], train: float = 1.0, dataset: str = "jhmdb"):
    """Runs of the study: 200 videos of 40 sources, for two splits."""
    rows = []
    for model, accuracy in accuracies.items():
        for split in (1, 2):
            order = np.random.default_rng((split, len(model))).permutation(200)
            videos = [(0, int(place >= 200 * accuracy), i // 5) for i, place in enumerate(order)]
            row = make_row(accuracy, videos=videos, split=split, model=model, dataset=dataset,
                           backbone="demo", epochs=40)  # fmt: skip
            rows.append(row.model_copy(update={"epochs": [{**row.epochs[0], "train_top1": train}]}))
    return rows


def test_the_study_decides_the_ranking_where_it_can(project):
    assert "no rows of fitted models are published yet" in entry_of("T17").sentence
    behind = {"c3d": 0.3, "r2plus1d": 0.3, "r3d": 0.3}
    publish(project, study({"hst": 0.8} | behind), "study")
    assert entry_of("T17").finding.verdict == "holds"
    assert "HST is more accurate than R3D" in entry_of("T17").sentence
    publish(project, study({"hst": 0.4} | behind | {"r3d": 0.9}), "study")
    assert entry_of("T17").finding.verdict == "contradicted"
    publish(project, study({"hst": 0.31} | behind), "study")
    assert entry_of("T17").finding.verdict == "not run"
    publish(project, study({"hst": 0.8} | behind, train=0.5), "study")
    assert entry_of("T17").finding.verdict == "not run"
    assert "no verdict" in entry_of("C01").sentence
    publish(project, study({"hst": 0.8} | behind, dataset="folder"), "study")
    assert "no rows of fitted models" in entry_of("T17").sentence


def test_rates_are_compared_where_there_are_several(project):
    def searched(losses: dict[float, float], backbone: str = "resnet21"):
        for model in ("r3d", "r2plus1d"):
            for rate, loss in losses.items():
                row = make_row(0.5, model=model, dataset="jhmdb", backbone=backbone,
                               protocol="validation", learning_rate=rate)  # fmt: skip
                yield row.model_copy(update={"epochs": [{**row.epochs[0], "loss": loss}]})

    def found(*search) -> tuple[str, str]:
        publish(project, list(searched(*search)), "rates")
        entry = entry_of("X11")
        return entry.finding.verdict, entry.sentence

    assert found({0.001: 1.0})[0] == "not run"
    assert found({0.001: 1.0, 0.01: 2.0})[0] == "holds"
    verdict, sentence = found({0.001: 1.0, 0.01: 0.5})
    assert (verdict, "0.01 for R3D, not at 0.001" in sentence) == ("contradicted", True)
    verdict, sentence = found({0.001: 1.0, 0.01: 0.5}, "demo")
    assert (verdict, "is reached at 0.01 for R2Plus1D" in sentence) == ("not run", True)


def test_what_a_part_adds_is_read_from_the_rows(project):
    def trained(reading: str, correct: int):
        """A run that is right about so many of 10 videos of each of 16 sources."""
        videos = [(0, int(i // 16 >= correct), i % 16) for i in range(160)]
        return make_row(correct / 10, videos=videos, reading=reading, train_top1=1.0)

    def verdicts(without_trunk: int) -> tuple[str, str]:
        rows = [trained(reading, 7) for reading in design()[:32]]
        publish(project, [*rows, trained("trunk-alone", without_trunk)], "readings")
        return entry_of("I13").finding.verdict, entry_of("I14").finding.verdict

    assert verdicts(2) == ("not run", "holds")
    assert verdicts(10) == ("not run", "contradicted")
    assert "undecided, " in entry_of("I13").sentence
    (project / "results/published/readings/rows.jsonl").unlink()
    assert entry_of("I14").sentence.endswith("at demo size: not trained.")


def test_a_benchmark_that_is_missing_or_changed_is_seen(project):
    before = entry_of("I01").sentence
    (project / "benchmarks").unlink()
    shutil.copytree(ROOT / "benchmarks/results", project / "benchmarks/results")
    path = project / "benchmarks/results/train_step_cpu_resnet21_224.json"
    changed = re.sub(r'("latency_milliseconds": )[\d.]+', r"\g<1>1500", path.read_text())
    path.write_text(changed)
    assert "takes our HST 1.5 s (ResNet-21)" in entry_of("I01").sentence != before
    path.unlink()
    with pytest.raises(ValueError, match="claim I01: latency failed: FileNotFoundError"):
        entry_of("I01")


def test_a_register_without_the_entry_is_seen(project):
    (project / "book").unlink()
    shutil.copytree(ROOT / "book", project / "book", symlinks=True,
                    ignore=shutil.ignore_patterns("_build"))  # fmt: skip
    register = project / "book/readings.md"
    register.write_text(register.read_text().replace("(reading-r18)=", "(reading-x)="))
    with pytest.raises(ValueError, match=r"claim F06: register failed: .* no entry R18"):
        entry_of("F06")


def judged(name: str, **changes) -> str:
    citations = load_citations()
    use = find_use(name, citations)
    return judge(use.model_copy(update=changes), citations).verdict


def test_a_citation_is_judged_by_the_work_it_points_to():
    assert judged("c3d") == "wrong citation"
    assert judged("c3d", number=8) == "holds"
    assert judged("ucf101") == "wrong citation"
    assert judged("r2plus1d-related") == "contradicted"
    assert judged("r2plus1d-related", described={}) == "holds"
    assert judged("p3d", works=()) == "cannot be checked from the paper"
    with pytest.raises(ValueError, match=r"reference \[25\] is not among the references"):
        judged("p3d", number=25)


def test_ten_numbers_of_the_text_point_to_another_work(entries):
    citations = load_citations()
    wrong = {
        use.number
        for use in citations.uses
        if use.number and judge(use, citations).verdict == "wrong citation"
    }
    assert wrong == {3, 4, 5, 8, 9, 12, 13, 18, 19, 21}
    assert f"{len(wrong)} of the 24 numbers" in entries["B05"].sentence


def test_citations_of_an_unknown_work_are_refused(tmp_path):
    path = tmp_path / "citations.yml"
    text = (ROOT / "book/citations.yml").read_text()
    path.write_text(text.replace("number: 10, work: qiu2017p3d", "number: 10, work: qiu"))
    with pytest.raises(ValueError, match="works has no 'qiu'; add it or correct the key"):
        load_citations(path)


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("M07", {"temporal": [1, 1, 3], "spatial": [3, 3, 1]}, "holds"),
        ("M11", {"size": 16}, "holds"),
        ("M33", {"part": "hierarchy.units.0.mask", "size": [1, 3, 3], "channels": 2},
         "contradicted"),
        ("A03", {"parts": ["hierarchy", "windows"]}, "contradicted"),
        ("A02", {"parts": ["hierarchy", "memory"]}, "contradicted"),
        ("D01", {"dataset": "hmdb51", "printed": 9000}, "contradicted"),
        ("N02", {"text": [4, 6, 6, 3], "table": 1}, "holds"),
        ("N08", {"table": 2, "model": "r3d"}, "holds"),
        ("N17", {"sizes": [224, 100]}, "contradicted"),
        ("N18", {"kernel": 7, "size": 7}, "holds"),
        ("N19", {"work": "simonyan2014vgg", "text": [2, 2, 2, 2, 2]}, "holds"),
        ("X02", {"seconds": 1, "rate": 16}, "holds"),
        ("X03", {"name": "size", "value": 112}, "contradicted"),
        ("G01", {"dataset": "UCF101", "names": {"ApplyLipstick": "UCF101"}}, "holds"),
    ],
)  # fmt: skip
def test_other_words_would_get_another_verdict(name, arguments, verdict):
    found = dict.fromkeys(VERDICTS, "A sentence.")
    assert entry_of(name, arguments=arguments, found=found).finding.verdict == verdict


def test_a_reason_that_no_longer_holds_fails():
    with pytest.raises(ValueError, match="R3D is a row of Tables 2 and 4"):
        entry_of("A06", arguments={"models": ["R3D"]})
    with pytest.raises(ValueError, match="pairs of rows differ in accuracy only"):
        entry_of("W05", arguments={"differ": "accuracy", "same": ["dataset"]})
    with pytest.raises(ValueError, match="several readings are needed"):
        entry_of("G03", arguments={"readings": ["one"]})
    with pytest.raises(ValueError, match="needs words that are absent"):
        entry_of("X13", arguments={"topic": "the loss"})


def test_the_table_to_download_has_a_line_per_claim(entries, tmp_path):
    path = tmp_path / "claims.csv"
    write_csv(entries.values(), path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["id"] for row in rows] == list(entries)
    assert {row["id"]: row["verdict"] for row in rows} == {
        name: entry.finding.verdict for name, entry in entries.items()
    }
    assert all(row["found"] and row["evidence"] and row["command"] for row in rows)


def test_commands_exist(entries):
    for entry in entries.values():
        verb, *_, last = entry.command.split()
        assert verb in ("pytest", "make", "python", "snakemake"), entry.claim.id
        if verb == "snakemake":
            plan = Path(entry.command.split()[2]).name
            assert (ROOT / f"workflow/params/{plan}.yaml").is_file(), entry.claim.id
        if verb == "make":
            assert project_path(last.partition("=")[2]).is_file(), entry.claim.id


def test_arguments_are_what_the_book_has_elsewhere():
    for table, dataset in {2: "hmdb51", 4: "ucf101"}.items():
        _, tested = evidence.official_sizes(dataset)
        assert CLAIMS["T18"].arguments["videos"][table] == tested
    settings = CLAIMS["X09"].arguments
    assert settings["gigabytes"] == P100.gigabytes
    assert settings["clips"] * GPUS == CLAIMS["X07"].arguments["batch"] == TrainConfig().batch_size
    assert settings["hours"] == GPUS * DAYS * 24
    assert {c: CLAIMS[c].arguments["rate"] for c in ("X11", "X12")} == {
        "X11": TrainConfig(model="r3d").learning_rate,
        "X12": TrainConfig(model="hst").learning_rate,
    }


def test_the_verdict_of_one_claim_can_be_printed(capsys):
    main(["N18"])
    assert capsys.readouterr().out.startswith("N18: contradicted. A global pool averages all 49")


def test_classes_of_the_figures_are_those_of_the_lists():
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the official lists are not at hand")
    lists = (folder / "ucf101/ucfTrainTestlist/classInd.txt").read_text().split()
    hmdb51 = {p.name.rpartition("_test_split")[0] for p in folder.glob("hmdb51/*/*_split1.txt")}
    assert len(hmdb51) == 51
    for name in CLAIMS["G01"].arguments["names"]:
        assert name in lists
        assert name.lower() not in {other.replace("_", "") for other in hmdb51}


def test_names_of_classes_are_those_of_the_lists():
    folder = SHARED / "data/hmdb51"
    if not folder.is_dir():
        pytest.skip("the official lists are not at hand")
    hmdb51 = {p.name.rpartition("_test_split")[0] for p in folder.glob("*/*_split1.txt")}
    assert set(CLAIMS["D07"].arguments["names"]) <= hmdb51
    assert max(name.count("_") for name in hmdb51) + 1 == 2


# The site: the two pages with the directives, and stubs of the pages that they link to.


def make_site(folder: Path, claims: list[Claim]) -> Path:
    """Build a site of the ledger's pages with Sphinx; return its folder."""
    source = folder / "source"
    shutil.copytree(ROOT / "book/_static", source / "_static")
    for name in ("claims.md", "citations.md"):
        page, _, _ = (ROOT / "book" / name).read_text().partition("\nNext: ")
        (source / name).write_text(page)
    stubs = {c.evidence.partition("#")[0] for c in claims} - {"citations"}
    stubs = {s for s in stubs if not s.startswith(("tests/", "hstlib."))} | {"readings"}
    for stub in stubs:
        anchors = page_anchors(stub)
        text = [f"# {anchors.pop('')}"]
        labels = {a: f"({a})=\n" for a, title in anchors.items() if make_id(title) != a}
        text += [f"\n{labels.get(a, '')}## {title}\n" for a, title in anchors.items()]
        path = source / f"{find_page(stub)}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text))
    link = "[a claim](claims.md#claim-t08), [a citation](citations.md#citation-c3d)"
    (source / "index.md").write_text(f"# Start\n\n{link}\n\n```{{claims-summary}}\n```\n")
    settings = {"extensions": ["myst_parser", "claims"], "html_theme": "basic",
                "source_suffix": {".md": "markdown"},
                "myst_enable_extensions": ["dollarmath", "amsmath"],
                "html_static_path": ["_static"], "mathjax_path": "mathjax.js"}  # fmt: skip
    out, warnings = folder / "html", StringIO()
    Sphinx(source, None, out, folder / "trees", "html", settings, status=None,
           warning=warnings).build(force_all=True)  # fmt: skip
    expected = re.compile("toctree|already registered")  # no contents; several sites in a process
    assert [w for w in warnings.getvalue().splitlines() if not expected.search(w)] == []
    return out


@pytest.fixture(scope="module")
def site(extension, tmp_path_factory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"), list(CLAIMS.values()))


def test_the_page_has_every_claim_with_verdict_sentence_and_links(site, entries):
    html = (site / "claims.html").read_text()
    for entry in entries.values():
        card = html.partition(f'id="{entry.anchor}"')[2].partition('class="claim-evidence"')[0]
        assert f">{entry.finding.verdict}<" in card, entry.claim.id
    assert html.count('class="claim-found"') == 178
    assert len((site / "_static/claims.csv").read_text().splitlines()) >= 179
    for target in re.findall(r'href="([^"#:]+\.html)#([^"]+)"', html):
        page, anchor = target
        assert f'id="{anchor}"' in (site / page).read_text(), target


def test_counts_are_the_same_on_the_page_the_start_and_in_the_table(site, entries):
    counts = count_verdicts(entries.values())
    for page in ("claims.html", "index.html"):
        html = (site / page).read_text()
        table = html.partition("claims-summary")[2].partition("</table>")[0]
        assert re.findall(r"<p>(\d+)</p>", table) == [str(n) for n in counts.values()]
    with (site / "_static/claims.csv").open(newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert {verdict: verdicts.count(verdict) for verdict in VERDICTS} == counts


def test_other_pages_can_link_to_a_claim(site):
    html = (site / "index.html").read_text()
    assert 'href="claims.html#claim-t08"' in html
    assert 'href="citations.html#citation-c3d"' in html


def test_the_audit_has_a_row_per_use(site):
    html = (site / "citations.html").read_text()
    for use in load_citations().uses:
        assert f'id="citation-{use.name}"' in html


def test_pages_need_no_network(site):
    for page in ("claims.html", "citations.html"):
        html = (site / page).read_text()
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="https?://', html)
    for name in ("claims.css", "claims.js"):
        assert "http" not in (site / "_static" / name).read_text()


def test_a_row_changes_page_and_table(extension, project, monkeypatch):
    monkeypatch.setattr(extension, "_entries", lambda: evaluate([CLAIMS["T08"]]))
    publish(project, runs(86))
    site = make_site(project, [CLAIMS["T08"]])
    for name in ("claims.html", "_static/claims.csv"):
        assert "top-1 86.0 [" in (site / name).read_text()
    publish(project, runs(40))
    site = make_site(project / "again", [CLAIMS["T08"]])
    for name in ("claims.html", "_static/claims.csv"):
        text = (site / name).read_text()
        assert "top-1 40.0 [" in text and "contradicted" in text


def test_sentences_link_to_the_register_and_to_other_claims(site):
    html = (site / "claims.html").read_text()
    assert '<a href="readings.html#reading-r18">R18</a>' in html
    assert '<a href="#claim-n16">N16</a>' in html


def test_all_problems_are_listed():
    broken = [c.model_copy(update={"evidence": "nothing#at-all"}) for c in CLAIMS.values()][:3]
    with pytest.raises(ValueError, match="claim A01: .*\nclaim A02: .*\nclaim A03: "):
        evaluate(broken)


def test_the_build_ends_on_a_dead_link(extension, tmp_path, monkeypatch):
    claims = list(CLAIMS.values())
    broken = claims[0].model_copy(update={"evidence": "nothing#at-all"})
    monkeypatch.setattr(extension, "_entries", lambda: evaluate([broken]))
    with pytest.raises(ExtensionError, match="claim A01: there is no nothing#at-all"):
        make_site(tmp_path, claims[1:2])


def test_the_build_ends_on_a_page_that_the_site_lacks(extension, tmp_path, monkeypatch):
    entries = evaluate([CLAIMS["N11"]])
    monkeypatch.setattr(extension, "_entries", lambda: entries)
    with pytest.raises(
        ExtensionError, match="claim N11: the site has no architecture#what-is-built"
    ):
        make_site(tmp_path, [CLAIMS["I02"]])
