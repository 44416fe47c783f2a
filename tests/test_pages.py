"""Commands of the pages are real, and their numbers are those of the code."""

import functools
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import hstlib
import hstlib.__main__ as cli
from hstlib.book.cost import LISTED_VIDEOS, Measurements, describe_cost, store_gigabytes
from hstlib.book.paper import DAYS, EQUATIONS, GPUS, PAPER_ROWS
from hstlib.config import TrainConfig
from hstlib.training.plan import planned_runs, read_plan

ROOT = Path(__file__).resolve().parents[1]
PAPER, RUN = (ROOT / "book/paper.md").read_text(), (ROOT / "book/run.md").read_text()
README = (ROOT / "README.md").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def command_lines(text: str) -> list[list[str]]:
    """The words of each line of the bash blocks, and of inline commands without placeholders."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(python -m hstlib \w+ (?!--help)[^`<>]*[^`<>.])`", text)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = {"run": command_lines(RUN), "README": command_lines(README)}
HSTLIB = [
    pytest.param(words[words.index("hstlib") + 1 :], id=f"{page}-{shlex.join(words)}")
    for page, lines in COMMANDS.items()
    for words in lines
    if "hstlib" in words
]


@pytest.fixture
def parsed(monkeypatch):
    """Parse the words of a command line as main does; returns the command and its arguments."""
    calls = []

    def recorder(command):
        @functools.wraps(command)
        def record(*args, **kwargs):
            calls.append((command.__name__, inspect.signature(command).bind(*args, **kwargs)))

        return record

    def parse(words):
        monkeypatch.setattr(sys, "argv", ["hstlib", *words])
        cli.main()
        ((name, bound),) = calls
        return name, bound.arguments

    monkeypatch.setattr(cli, "COMMANDS", tuple(recorder(command) for command in cli.COMMANDS))
    return parse


@pytest.mark.parametrize("words", HSTLIB)
def test_every_command_of_the_pages_has_known_options_and_values(parsed, words):
    name, arguments = parsed(words)
    assert name == words[0]
    if name == "train":
        TrainConfig.from_flat(vars(arguments["settings"]))


def test_the_pages_show_every_command():
    shown = {words[words.index("hstlib") + 1] for words in COMMANDS["run"] if "hstlib" in words}
    assert {"demo", "download", "adopt", "verify", "leakage", "train", "predict"} <= shown
    listed = re.search(r"lists the commands: ((?:`\w+`[,.\s]*)+)", README)[1]
    assert re.findall(r"`(\w+)`", listed) == [command.__name__ for command in cli.COMMANDS]


def test_a_wrong_option_is_found(parsed):
    with pytest.raises(SystemExit):
        parsed(["train", "--epoch", "3"])


def example_runs(words: list[str]) -> dict[str, TrainConfig]:
    """The runs of the paper's plan after the changes at the end of a command."""
    content = read_plan(ROOT / "workflow/params/paper.yaml")
    changes = dict(word.split("=") for word in words if re.fullmatch(r"[a-z]+=\w+", word))
    return planned_runs(content, {name: yaml.safe_load(text) for name, text in changes.items()})


def test_check_training_and_slurm_are_the_same_run_of_the_plan(parsed):
    (training,) = [words for words in COMMANDS["run"] if "hmdb51" in words and "--seed" in words]
    name, arguments = parsed(training[training.index("hstlib") + 1 :])
    config = TrainConfig.from_flat(vars(arguments["settings"]))
    changed = [words for words in COMMANDS["run"] if "dataset=hmdb51" in words]
    assert {words[0] for words in changed} == {"python", "snakemake"}
    assert all(example_runs(words) == {config.run_id: config} for words in changed)
    assert set(re.findall(r"(?<!-)\bhmdb51-\w+-\w+-s\d-seed\d", RUN)) == {config.run_id}


def test_the_printed_cost_is_the_one_that_the_command_prints():
    (words,) = [words for words in COMMANDS["run"] if "check" in words and "hstlib" in words]
    (run,) = example_runs(words).values()
    cost = describe_cost([run], Measurements.load(ROOT / "benchmarks/results"))
    size = store_gigabytes(run.clip, LISTED_VIDEOS["hmdb51"])
    (shown,) = re.findall(r"```text\n(corpus .*?)\n```", RUN, re.DOTALL)
    *lines, clips = shown.splitlines()
    assert lines == [line.rstrip() for line in cost.splitlines()]
    assert clips.startswith(f"clips of hmdb51: {size:.1f} GB, {LISTED_VIDEOS['hmdb51']} videos")


def test_workflow_commands_name_profiles_that_exist():
    lines = [words for page in COMMANDS.values() for words in page if words[0] == "snakemake"]
    assert lines
    for words in lines:
        for option, folder in zip(words, words[1:], strict=False):
            if option in ("--profile", "--workflow-profile"):
                assert (ROOT / folder / "config.yaml").is_file(), folder


def test_papermill_commands_name_parameters_of_their_notebooks():
    lines = re.findall(r"`(papermill [^`]+)`", RUN + README)
    assert len(lines) >= 2
    for words in map(shlex.split, lines):
        cells = json.loads((ROOT / words[1]).read_text())["cells"]
        (cell,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        known = re.findall(r"(?m)^(\w+) = ", "".join(cell["source"]))
        named = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
        assert named and named <= set(known), words


def cells_of(path: Path) -> list[tuple[str, dict]]:
    """Source and cell of each cell of a notebook."""
    return [("".join(cell["source"]), cell) for cell in json.loads(path.read_text())["cells"]]


CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLOSING = "## What the paper claims, and what was measured"
WITH_EXERCISES = [path for path in CHAPTERS if "## Exercises" in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_exercises_have_a_folded_solution_each_and_stand_before_the_end(path):
    cells = cells_of(path)
    sources = [source for source, _ in cells]
    (at,) = [i for i, source in enumerate(sources) if source.startswith("## Exercises")]
    solution, cell = cells[at + 1]
    questions = re.findall(r"(?m)^\d\. ", sources[at])
    assert len(re.findall(r"(?m)^# \d\. ", solution)) == len(questions) >= 3
    assert solution.count("assert") >= 2 and "hide-cell" in cell["metadata"]["tags"]
    assert any(CLOSING in source for source in sources[at:])


def test_most_chapters_have_exercises_and_say_what_is_checked_and_what_came_out():
    assert len(WITH_EXERCISES) >= 8
    for path in WITH_EXERCISES:
        (opening, _), *_ = cells_of(path)
        assert "you will have" in " ".join(opening.split()), path.stem


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_cell_has_one_stream_of_each_name(path):
    for _, cell in cells_of(path):
        streams = [o["name"] for o in cell.get("outputs", []) if o["output_type"] == "stream"]
        assert len(streams) == len(set(streams)), f"cell {cell['id']}: run make notebooks"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)`", RUN + README))
    targets |= {words[1] for page in COMMANDS.values() for words in page if words[0] == "make"}
    assert {"book", "lab", "test"} <= targets
    assert [target for target in targets if f"\n{target}: " not in makefile] == []


def test_the_papers_page_prints_the_papers_numbers():
    rows = re.findall(r"(?m)^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAPER)
    cells = {(row.table, row.title): (row.parameters, row.accuracy) for row in PAPER_ROWS}
    titles = dict.fromkeys(row.title for row in PAPER_ROWS)
    assert rows == [(title, *cells[2, title], *cells[4, title]) for title in titles]
    assert f"{GPUS} Tesla P100 GPUs for {DAYS} days" in PAPER


def test_the_papers_page_links_each_equation_to_its_chapter_and_readings():
    rows = re.findall(r"(?m)^\| \[\((\d+)\)\]\(\.\./notebooks/(\w+)\.ipynb#eq-(\d+)\) \|.*$", PAPER)
    assert rows == [(str(e.number), e.notebook, str(e.number)) for e in EQUATIONS]
    lines = [line for line in PAPER.splitlines() if line.startswith("| [(")]
    for equation, line in zip(EQUATIONS, lines, strict=True):
        assert re.findall(r"#reading-r(\d+)\)", line) == [str(r) for r in equation.readings]


def test_the_citation_file_has_what_its_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert all(author.keys() == {"name"} for author in CITATION["authors"])
    (paper,) = CITATION["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Cai", "Cai"]


def test_the_citation_file_agrees_with_the_package_and_the_pages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CITATION["version"] == hstlib.__version__
    assert CITATION["license"] == project["license"]
    site = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert [author["name"] for author in CITATION["authors"]] == [site["author"]]
    index = (ROOT / "book/index.md").read_text()
    assert CITATION["title"] in index
    for page in (index, README, PAPER, (ROOT / "book/references.bib").read_text()):
        assert CITATION["references"][0]["title"] in " ".join(page.split())


def test_both_tables_of_contents_list_the_same_pages():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    places = [(Path("book") / f"{name}.md", Path(f"{name}.ipynb")) for name in names]
    ours = [str(page if (ROOT / page).exists() else notebook) for page, notebook in places]
    root, *parts = yaml.safe_load((ROOT / "myst.yml").read_text())["project"]["toc"]
    listed = [root["file"], *(child["file"] for part in parts for child in part["children"])]
    generated = {f"book/{name}.md" for name in ("claims", "citations", "equations")}  # by Sphinx
    assert listed == [page for page in ours if page not in generated]
    assert [part["title"] for part in parts] == [part["caption"] for part in toc["parts"]]


def test_the_foot_of_a_page_has_the_commit_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    from edition import edition

    when = {f"GIT_{who}_DATE": "2020-02-02T12:00:00" for who in ("AUTHOR", "COMMITTER")}
    alone = f"Version {hstlib.__version__}, MIT licence"
    assert edition(tmp_path) == alone
    for command in (
        ["init"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "--allow-empty", "-m", "c"],
    ):
        command = ["git", "-C", str(tmp_path), *command, "--quiet"]
        subprocess.run(command, check=True, env=os.environ | when)
    commit = rf"Version {re.escape(hstlib.__version__)}, commit [0-9a-f]+ of 2020-02-02"
    assert re.fullmatch(f"{commit}, MIT licence", edition(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert edition(tmp_path) == alone
