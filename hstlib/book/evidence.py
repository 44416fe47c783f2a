"""Predicates of the claims ledger: those on result rows and benchmarks, and the list of all.

A predicate takes the arguments that ``book/claims.yml`` gives it and returns a
:class:`hstlib.book.verdicts.Finding`. It computes the verdict from code, rows or the paper's own
figures; it raises an exception if what it reads is missing.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from hstlib.book import citations, evidence_equations, evidence_networks, evidence_paper
from hstlib.book.evidence_networks import multiply_adds_of, paper_row
from hstlib.book.findings import decisions
from hstlib.book.paper import BACKBONE_TITLES, DATASET_TITLES, MODEL_TITLES, PAPER_ROWS
from hstlib.book.selection import paper_rows
from hstlib.book.specification import changes, describe_changes
from hstlib.book.statistics import ALPHA, Interval, confidence_interval, hits_by_group
from hstlib.book.study import differences_from_hst, runs_on
from hstlib.book.tables import NOT_RUN
from hstlib.book.verdicts import CONTRADICTED, HOLDS, UNCHECKABLE, Finding, decide
from hstlib.config import project_path
from hstlib.data.overlay import draw_text, put_text
from hstlib.training.rows import Row, load_rows

PUBLISHED = "results/published"
NO_ROWS = "no rows of fitted models are published yet."


def published_rows(folder: str) -> list[Row]:
    """Read the published rows of a folder under ``results/published``; [] if it has none."""
    path = project_path(PUBLISHED) / folder
    files = tuple(sorted((p, p.stat().st_mtime_ns) for p in path.glob("*.jsonl")))
    return list(_read_rows(path, files)) if files else []


@cache
def _read_rows(folder: Path, _: tuple[tuple[Path, int], ...]) -> tuple[Row, ...]:
    return tuple(load_rows(folder))


def study_rows() -> list[Row]:
    """Read the rows of the study on real video: its official splits of J-HMDB; [] without any."""
    return runs_on(published_rows("study"), "jhmdb")


def study_comparison(baselines: list[str]) -> Finding:
    """In the study on real video, HST is more accurate than these baselines.

    The paper's own data sets are not what the study was run on, and its networks are small. Where
    the study decides nothing, the experiment counts as not run.
    """
    titles = [MODEL_TITLES[name] for name in baselines]
    differences = [d for d in differences_from_hst(study_rows()) if d.other.title in titles]
    if len(differences) < len(baselines):
        return Finding(NOT_RUN, {"study": NO_ROWS})
    sentences = " ".join(d.sentence for d in differences)
    values = {"study": f"J-HMDB, demo size: {sentences}"}
    found = decisions(differences)
    if found["not fitted"]:
        return Finding(NOT_RUN, values)
    if found["less accurate"]:
        return Finding(CONTRADICTED, values)
    return Finding(NOT_RUN if found["undecided"] else HOLDS, values)


def _paper_runs(table: int, model: str) -> list[Row]:
    """Return the published runs that fill a cell of Table 2 or 4, if no file was missing."""
    chosen, _ = paper_rows(table, published_rows(""))
    return [row for row in chosen[model] if row.missing == 0]


def accuracy(table: int, model: str) -> Finding:
    """The interval of the runs in the paper's settings contains the paper's accuracy."""
    paper, runs = paper_row(table, model), _paper_runs(table, model)
    values = {"printed": paper.accuracy, "model": paper.title, "runs": len(runs)}
    values |= {"data": DATASET_TITLES[paper.dataset], "backbone": BACKBONE_TITLES[paper.backbone]}
    if not runs:
        return Finding(NOT_RUN, values)
    interval = confidence_interval(hits_by_group(runs))
    inside = interval.low <= float(paper.accuracy) <= interval.high
    return decide(inside, **values, found=str(interval))


def ranking() -> Finding:
    """HST has the highest accuracy in the paper's settings, on both data sets."""
    means: dict[tuple[int, str], Interval] = {}
    for row in PAPER_ROWS:
        runs = _paper_runs(row.table, row.model)
        if not runs:
            return Finding(NOT_RUN, {"found": f"{row.title} on {DATASET_TITLES[row.dataset]}"})
        means[row.table, row.model] = confidence_interval(hits_by_group(runs))
    best = [max(MODEL_TITLES, key=lambda name, t=t: means[t, name].mean) for t in (2, 4)]
    return decide(best == ["hst", "hst"], found=", ".join(map(MODEL_TITLES.get, best)))


def reading_effect(reading: str) -> Finding:
    """With this change, HST is less accurate: what the change replaces adds something."""
    rows = published_rows("readings")
    found, values = changes(rows), {"outcome": describe_changes(rows)[reading]}
    if reading not in found or found[reading][1] >= ALPHA:
        return Finding(NOT_RUN, values)
    return decide(found[reading][0].mean < 0, **values)


def fastest_rate(models: list[str], rate: float) -> Finding:
    """This learning rate gives the models the least loss of all rates tried on held-out videos.

    Networks at demo size do not decide about the paper's; the values say what they show.
    """
    losses: dict[str, dict[float, list[float]]] = {model: {} for model in models}
    rows = [row for row in published_rows("rates") if row.config.reading == "paper"]
    rows = [row for row in rows if row.config.model in models]
    for row in rows:
        by_rate = losses[row.config.model]
        by_rate.setdefault(row.config.learning_rate, []).append(float(row.epochs[-1]["loss"]))
    if any(rate not in by_rate or len(by_rate) < 2 for by_rate in losses.values()):
        return Finding(NOT_RUN, {"rate": rate, "small": "no published rows compare it with others"})
    fastest = {
        MODEL_TITLES[model]: min(by_rate, key=lambda value, r=by_rate: np.mean(r[value]))
        for model, by_rate in losses.items()
    }
    best = ", ".join(f"{value:g} for {name}" for name, value in fastest.items())
    tried = ", ".join(f"{value:g}" for value in sorted({v for r in losses.values() for v in r}))
    values = {"rate": rate, "best": best, "tried": tried}
    if any(row.config.backbone == "demo" for row in rows):
        small = f"at demo size, of {tried}, the lowest training loss is reached at {best}"
        return Finding(NOT_RUN, values | {"small": small})
    return decide(set(fastest.values()) == {rate}, **values)


def _benchmark(name: str) -> dict:
    return json.loads(project_path(f"benchmarks/results/{name}.json").read_text())


def latency(model: str) -> Finding:
    """How long one clip of one second takes on one CPU core, as measured by the benchmark."""
    measured = {}
    for backbone in ("resnet21", "vgg13"):
        rows = _benchmark(f"train_step_cpu_{backbone}_224")["inference"]
        times = [row["latency_milliseconds"] for row in rows if row["model"] == model]
        measured[backbone] = min(times) / 1000
    return Finding(UNCHECKABLE, measured)


def smaller(table: int) -> Finding:
    """HST has the fewest printed parameters; beside it, the multiply-adds of the built networks."""
    rows = [row for row in PAPER_ROWS if row.table == table]
    fewest = min(rows, key=lambda row: float(row.parameters))
    counts = {row.model: multiply_adds_of(row) / 1e9 for row in rows}
    others = sorted(float(row.parameters) for row in rows if row.model != "hst")
    share = float(paper_row(table, "hst").parameters) / others[0]
    cheapest = min(counts, key=counts.__getitem__)
    return decide(fewest.model == "hst", share=share, **counts, cheapest=MODEL_TITLES[cheapest])


def gpu_memory(gigabytes: int, clips: int, hours: int) -> Finding:
    """Whether a quarter of the batch fits on a GPU in float32, for the book's construction."""
    kept = {}
    for backbone in ("resnet21", "vgg13"):
        models = _benchmark(f"train_step_cpu_{backbone}_224")["models"]
        (hst,) = (m["kept_gigabytes_float32"] for m in models if m["model"] == "hst")
        kept[backbone] = hst * clips
    values = {**kept, "gigabytes": gigabytes, "clips": clips, "hours": hours}
    return Finding(UNCHECKABLE, values)


def label_place() -> Finding:
    """The label that the book draws on a frame is in its upper left corner."""
    height, width = 240, 320
    frame = np.full((height, width, 3), 128, np.uint8)
    changed = (put_text(frame.copy(), draw_text("walk 0.98", width, height)) != frame).any(2)
    down, right = np.argwhere(changed).max(0) + 1
    values = {"down": down / height, "right": right / width}
    return decide(values["down"] <= 0.5 and values["right"] <= 0.5, **values)


def official_sizes(dataset: str) -> tuple[int, int]:
    """Return the official number of videos of a data set, and of test videos in split 1."""
    counts = _benchmark("leakage")
    total = sum(int(size) * groups for size, groups in counts["group_sizes"][dataset].items())
    (tested,) = (
        row["test"][0]
        for row in counts["rows"]
        if (row["dataset"], row["protocol"], row["rule"]) == (dataset, "official", "group")
    )
    return total, tested


def videos(dataset: str, printed: int) -> Finding:
    """The printed number of videos is the official one, rounded to its first digit."""
    total, _ = official_sizes(dataset)
    step = 10 ** (len(str(printed)) - 1)
    return decide(round(total / step) * step == printed, total=total, printed=printed)


def passes(batch: int, iterations: int, dataset: str) -> Finding:
    """How often the steps show the training set of split 1, if an iteration is a step."""
    total, tested = official_sizes(dataset)
    clips, trained = batch * iterations, total - tested
    return Finding(UNCHECKABLE, {"clips": clips, "passes": clips / trained, "videos": trained})


def leakage(dataset: str, protocol: str) -> Finding:
    """What a split by random would leak; the paper does not say how it split."""
    (row,) = (
        r
        for r in _benchmark("leakage")["rows"]
        if (r["dataset"], r["protocol"], r["rule"]) == (dataset, protocol, "group")
    )
    return Finding(UNCHECKABLE, {"share": row["mean"], "splits": len(row["test"])})


def _predicates(module: ModuleType, but: Sequence[str] = ()) -> dict[str, Callable[..., Finding]]:
    """Return the functions of a module that are annotated to return a finding."""
    return {
        name: function
        for name, function in vars(module).items()
        if getattr(function, "__module__", "") == module.__name__
        and getattr(function, "__annotations__", {}).get("return") is Finding
        and name not in but
    }


_HERE = (
    study_comparison, accuracy, ranking, reading_effect, fastest_rate, latency, smaller,
    gpu_memory, label_place, videos, passes, leakage,
)  # fmt: skip

PREDICATES: dict[str, Callable[..., Finding]] = (
    _predicates(evidence_equations)
    | _predicates(evidence_networks)
    | _predicates(evidence_paper)
    | _predicates(citations, but=["judge"])
    | {function.__name__: function for function in _HERE}
)
"""Predicates by the name that ``book/claims.yml`` uses."""
