"""What the paper claims and what was found, in sentences and one figure made of stored results."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hstlib.book.audit import PUBLIC_SPLIT, protocol_table
from hstlib.book.paper import PAPER_ROWS
from hstlib.book.specification import comparable, held_out_runs, standings
from hstlib.book.statistics import ALPHA, confidence_interval, hits_by_group, holm, same_videos
from hstlib.book.study import (
    Difference,
    describe_runs,
    differences_from_hst,
    differences_from_reading,
    results,
    runs_on,
)
from hstlib.config import TrainConfig
from hstlib.training.identity import SAME_RUN
from hstlib.training.rows import Row, load_rows

OFFICIAL, RANDOM = "official splits", "random splits by video"
BY_CLIP = "random splits by clip"
PROTOCOLS = {OFFICIAL: "official", RANDOM: "random-by-video", BY_CLIP: "random-by-clip"}


@dataclass(frozen=True)
class Evidence:
    """The study on real video, and what needs no network on the same splits.

    Attributes:
        rows: Runs of the study.
        references: Entries of ``benchmarks/results/no_network.json`` by split and reference.
        splits: Its entries by split, with test videos and those that leak.
        readings: Runs of the readings of the paper, beside the baselines, on UT-Interaction.
        leakage: Content of ``benchmarks/results/leakage.json``.
    """

    rows: list[Row]
    references: list[dict[str, Any]]
    splits: list[dict[str, Any]]
    readings: list[Row] = field(default_factory=list)
    leakage: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path, results_dir: str = "results/published/study") -> "Evidence":
        """Read the rows and the measurements of a checkout."""
        measured, leakage = (
            json.loads((root / f"benchmarks/results/{name}.json").read_text())
            for name in ("no_network", "leakage")
        )
        readings = load_rows(root / "results/published/readings")
        study = load_rows(root / results_dir)
        return cls(study, measured["rows"], measured["splits"], readings, leakage)

    @property
    def ceiling(self) -> float:
        """Highest top-1 on HMDB51 that a leak explains at the public code's split, in percent."""
        table = protocol_table(self.leakage, "hmdb51")
        return 100 * table.loc[PUBLIC_SPLIT, "ceiling, highest"]

    def runs(self, dataset: str, protocol: str = "official", variant: str = "") -> list[Row]:
        """Return the runs on a data set, at a protocol and a variant of the settings."""
        return runs_on(self.rows, dataset, protocol, variant)

    def leaked_share(self, protocol: str, dataset: str = "jhmdb") -> float:
        """Return the share of a data set's test videos whose source is also in training."""
        shares = [
            split["leaked"] / split["test"]
            for split in self.splits
            if (split["dataset"], split["protocol"]) == (dataset, protocol)
        ]
        return float(np.mean(shares))

    def leak_table(
        self, dataset: str = "jhmdb", random: str = RANDOM, variant: str = ""
    ) -> pd.DataFrame:
        """Return top-1 in percent on a data set, a row per model or reference, by protocol.

        What was not run is NaN. References are averaged over the splits that HST was run on. The
        title of a model says so if it has not fitted its training videos at both protocols.

        Args:
            dataset: Name of the data set.
            random: Title of the protocol beside the official one, of :data:`PROTOCOLS`.
            variant: Variant of the settings, the same at both.
        """
        at_both = {
            title: results(self.runs(dataset, PROTOCOLS[title], variant))
            for title in (OFFICIAL, random)
        }
        columns = {}
        for title, models in at_both.items():
            tested = {row.split_id for result in models[:1] for row in result.rows}
            table = pd.DataFrame(self.references)
            table = table[table["split_id"].isin(tested)]
            top1 = 100 * table.groupby("reference", sort=False)["top1"].mean()
            columns[title] = {r.title: r.accuracy.mean for r in models} | dict(top1)
        table = pd.DataFrame(columns)
        table["added"] = table[random] - table[OFFICIAL]
        unfitted = {
            result.title: f"{result.title}, not fitted"
            for models in at_both.values()
            for result in models
            if not result.fitted
        }
        return table.rename(index=unfitted)


def decisions(differences: Iterable[Difference]) -> dict[str, list[str]]:
    """Sort the models that HST was compared with by what the comparison shows.

    Returns:
        Titles by decision: ``more accurate``, ``less accurate``, ``undecided``, ``not fitted``.
    """
    sorted_: dict[str, list[str]] = {
        name: [] for name in ("more accurate", "less accurate", "undecided", "not fitted")
    }
    for d in differences:
        if not d.fitted:
            name = "not fitted"
        elif d.corrected >= ALPHA:
            name = "undecided"
        else:
            name = "more accurate" if d.interval.mean > 0 else "less accurate"
        sorted_[name].append(d.other.title)
    return sorted_


def describe_setting(rows: Sequence[Row], name: str, value: object) -> str:
    """Say in a clause what another value of a setting adds to top-1.

    Runs with the value are compared with runs that have the default and differ in nothing else, for
    each model and data set; the p-values are corrected for all of them.

    Args:
        rows: Finished runs.
        name: Name of the setting.
        value: Its value.
    """
    default = TrainConfig.model_fields[name].default
    changed = [row for row in rows if getattr(row.config, name) == value]
    usual = {_key(row, name): row for row in rows if getattr(row.config, name) == default}
    pairs: dict[tuple[str, ...], list[tuple[Row, Row]]] = {}
    for row in changed:
        if twin := usual.get(_key(row, name)):
            group = row.config.model, row.config.reading, row.config.dataset, row.config.protocol
            pairs.setdefault(group, []).append((row, twin))
    found = {}
    for (model, reading, dataset, _), compared in pairs.items():
        own, others = ([pair[i] for pair in compared] for i in (0, 1))
        if same_videos(first := hits_by_group(own), second := hits_by_group(others)):
            title = f"{model} ({reading}) on {dataset}, {describe_runs(own)}"
            found[title] = confidence_interval(first, second)
    if not found:
        return "no published run differs in it alone" if changed else "not trained"
    corrected = holm({title: interval.p_value for title, interval in found.items()})
    return "; ".join(
        f"{title}: {interval.points}, corrected p {corrected[title]:.2f}"
        for title, interval in found.items()
    )


def _key(row: Row, but: str) -> str:
    """Return what runs have in common that differ in one setting alone."""
    settings = row.config.model_dump(exclude={but, *SAME_RUN})
    return json.dumps([row.split_id, settings], sort_keys=True, default=str)


def sentences(evidence: Evidence) -> list[str]:
    """Say what the paper claims, what was found and what was not run, one item each."""
    return [
        _claim(),
        _comparison(evidence),
        _readings(evidence.readings),
        _leak(evidence),
        _no_network(evidence),
        _not_run(evidence.rows),
    ]


def _claim() -> str:
    hst = {row.dataset: row for row in PAPER_ROWS if row.model == "hst"}
    others = {row.dataset: [] for row in PAPER_ROWS}
    for row in PAPER_ROWS:
        if row.model != "hst":
            others[row.dataset].append(float(row.accuracy))
    parts = [
        f"{hst[name].accuracy} % on {title} (its three baselines: {min(others[name]):g} to "
        f"{max(others[name]):g} %)"
        for name, title in (("hmdb51", "HMDB51"), ("ucf101", "UCF101"))
    ]
    return f"The paper prints for HST {' and '.join(parts)}."


def _comparison(evidence: Evidence) -> str:
    settings = {
        "jhmdb": "On J-HMDB, real clips of HMDB51, at small size, tested on its official splits",
        "folder": "On UT-Interaction, in folds of sequences",
    }
    said = []
    for dataset, setting in settings.items():
        rows = evidence.runs(dataset)
        if differences := differences_from_hst(rows):
            hst = results(rows)[0]
            fewer = "; fewer for some models" * any(d.hst.runs != hst.runs for d in differences)
            top1 = f"HST has a top-1 of {hst.accuracy.mean:.1f} %"
            said.append(f"{setting} ({hst.runs}{fewer}), {top1} and {_decide(differences)}.")
    return " ".join(said) or "HST was not compared with its baselines on real video: not run."


def _decide(differences: Sequence[Difference]) -> str:
    verbs = {
        "more accurate": "is more accurate than {}",
        "less accurate": "is less accurate than {}",
        "undecided": "cannot be told apart from {}",
        "not fitted": "gets no verdict beside {}, where one of the two has not fitted its training",
    }
    found = decisions(differences).items()
    return "; it ".join(verbs[name].format(_join(titles)) for name, titles in found if titles)


def _readings(rows: Sequence[Row]) -> str:
    stands = standings(rows)
    if not stands:
        return "Other readings of the paper were not compared with other models: not run."
    best = max(stands, key=lambda standing: standing.other.accuracy.mean)
    found = comparable(rows)
    said = (
        f"Of {len(found)} faithful readings of the paper that were trained to the end on "
        f"UT-Interaction ({found[0].runs}), {best.ahead} have a higher top-1 there than the best "
        f"of the other models, {best.title}; {best.clearly_ahead} of these differences "
        f"{'is' if best.clearly_ahead == 1 else 'are'} left by the correction for all "
        f"{len(found) * len(stands)} comparisons of a reading and a model."
    )
    if retested := differences_from_reading(held_out_runs(rows), rows):
        runs = retested[0].hst.runs
        said += f" The most accurate, tested on the other folds ({runs}), {_decide(retested)}."
    return said


def _leak(evidence: Evidence) -> str:
    both = evidence.leak_table().dropna()
    models = {result.title for result in results(evidence.runs("jhmdb"))}
    networks = both[both.index.isin(models)]  # without those that have not fitted
    if networks.empty:
        return "The networks were not run on random splits: not run."
    leaked = 100 * evidence.leaked_share(PROTOCOLS[RANDOM])
    return (
        f"On random splits of the same clips, {leaked:.0f} % "
        f"of the test videos share a film with a training video, and the networks have "
        f"{_range(networks[RANDOM])} % instead of {_range(networks[OFFICIAL])} %; a colour "
        f"histogram without a network has {both.loc['colour histogram', RANDOM]:.0f} % instead of "
        f"{both.loc['colour histogram', OFFICIAL]:.0f} %."
    )


def _no_network(evidence: Evidence) -> str:
    fitted = [result for result in results(evidence.runs("jhmdb")) if result.fitted]
    if not fitted:
        return "No network was trained until it fitted its training videos: not run."
    table = evidence.leak_table()[OFFICIAL]
    references = list(dict.fromkeys(entry["reference"] for entry in evidence.references))
    best = table[references].idxmax()
    above = [result for result in fitted if result.accuracy.mean > table[best]]
    verb = "has" if len(above) == 1 else "have"
    return (
        f"On official splits the best method without a network, {best}, has {table[best]:.1f} %; "
        f"{len(above)} of {len(fitted)} fitted networks {verb} more."
    )


def _not_run(rows: Sequence[Row]) -> str:
    run = {row.config.dataset for row in rows}
    missing = [
        title for name, title in (("hmdb51", "HMDB51"), ("ucf101", "UCF101")) if name not in run
    ]
    if not missing:
        return "Both data sets of the paper were run."
    return (
        f"The paper's own experiment, at full size on {_join(missing)}, was not run, so its "
        "printed accuracies are neither confirmed nor refuted."
    )


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"


def _join(names: Sequence[str]) -> str:
    """Write names as ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
