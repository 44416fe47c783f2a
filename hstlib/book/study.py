"""The comparison of trained models: chosen rates, paired differences, sentences made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hstlib.book.paper import ALL_TITLES
from hstlib.book.statistics import (
    ALPHA,
    DEFAULT_HST,
    Interval,
    ModelReading,
    confidence_interval,
    hits_by_group,
    holm,
    same_videos,
)
from hstlib.training.identity import differing_settings
from hstlib.training.rows import Row

FITTED = 0.95
"""Top-1 on its training videos that a run needs before a verdict is given on it."""

OWN = {"model", "reading", "learning_rate", "split", "seed", "variant", "data_dir"}
"""Settings that may differ between the runs of one comparison."""


@dataclass(frozen=True)
class Result:
    """The runs of one model on one data set and protocol that count; see :func:`counted`.

    Attributes:
        title: Title of the model, or of a reference that needs no network.
        rows: The runs. Those of a reference have no epochs.
        accuracy: Top-1 with its interval, in percent.
    """

    title: str
    rows: tuple[Row, ...]
    accuracy: Interval

    @property
    def training_top1(self) -> float:
        """Lowest top-1 on the training videos, as a fraction; 1 for a reference."""
        return min(training_top1(row) for row in self.rows)

    @property
    def fitted(self) -> bool:
        """Whether every run has fitted its training clips."""
        return self.training_top1 >= FITTED

    @property
    def runs(self) -> str:
        """The runs in words, such as ``splits 1 2, seed 0``."""
        return describe_runs(self.rows)


def counted(rows: Iterable[Row]) -> list[Row]:
    """Return the runs of one model that have fitted their training clips; without any, all."""
    rows = sorted(rows, key=lambda row: (row.config.split, row.config.seed))
    return [row for row in rows if training_top1(row) >= FITTED] or rows


def training_top1(row: Row) -> float:
    """Return top-1 on the training videos: of the final weights; in old rows, of the last epoch."""
    if row.training_top1 is not None:
        return row.training_top1
    return float((row.epochs or [{}])[-1].get("train_top1") or 0)


@dataclass(frozen=True)
class Difference:
    """HST, or one reading of it, minus another model, on the runs that both have.

    Attributes:
        hst: HST on these runs.
        other: The other model on these runs.
        interval: Difference of top-1 in percentage points, with its p-value.
        corrected: p-value after Holm's correction for the family of comparisons.
    """

    hst: Result
    other: Result
    interval: Interval
    corrected: float

    @property
    def fitted(self) -> bool:
        """Whether both have fitted their training clips, without which there is no verdict."""
        return self.hst.fitted and self.other.fitted

    @property
    def sentence(self) -> str:
        """What this comparison shows, in one sentence."""
        sentence = self._verdict()
        return sentence[0].upper() + sentence[1:]

    def _verdict(self) -> str:
        hst, name, d = self.hst.title, self.other.title, self.interval
        for result in (self.hst, self.other):
            if not result.fitted:
                return (
                    f"{hst} and {name}: no verdict, because the training accuracy of "
                    f"{result.title} ended at {100 * result.training_top1:.0f} %, below "
                    f"{100 * FITTED:.0f} %."
                )
        alone = ", so for these weights alone" * (len(self.other.rows) == 1)
        numbers = f"{d.points}, corrected p {self.corrected:.3f}; {self.other.runs}{alone}"
        if self.corrected >= ALPHA:
            return f"{hst} and {name} cannot be told apart ({numbers})."
        return f"{hst} is {'more' if d.mean > 0 else 'less'} accurate than {name} ({numbers})."


def runs_on(
    rows: Iterable[Row], dataset: str, protocol: str = "official", variant: str = ""
) -> list[Row]:
    """Return the runs on a data set, at a protocol and a variant of the settings."""
    key = dataset, protocol, variant
    return [r for r in rows if (r.config.dataset, r.config.protocol, r.config.variant) == key]


def title_of(model: ModelReading) -> str:
    """Return the title of a model in one reading of the paper."""
    name, reading = model
    return ALL_TITLES[name] if reading == "paper" else f"HST ({reading.replace('-', ' ')})"


def describe_runs(rows: Iterable[Row]) -> str:
    """Name the splits and the seeds of runs, and their number where splits have other seeds."""
    rows = list(rows)
    splits = sorted({row.config.split for row in rows})
    seeds = sorted({row.config.seed for row in rows})
    number = "" if len(rows) == len(splits) * len(seeds) else f", {len(rows)} runs"
    return f"{_count('split', splits)}, {_count('seed', seeds)}{number}"


def _count(noun: str, numbers: Sequence[int]) -> str:
    """Write numbers as ``split 1`` or ``splits 1 2 3``."""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {' '.join(map(str, numbers))}"


def group_by_model(rows: Iterable[Row]) -> dict[ModelReading, list[Row]]:
    """Group runs by model and reading: HST first, then the baselines, then HST's readings.

    Raises:
        ValueError: If the runs differ in more than model, reading, rate, split and seed.
    """
    models: dict[ModelReading, list[Row]] = {}
    for row in rows:
        models.setdefault((row.config.model, row.config.reading), []).append(row)
    _check_budget([row for runs in models.values() for row in runs])
    order = [DEFAULT_HST, *((name, "paper") for name in ALL_TITLES if name != "hst")]
    rank = {model: number for number, model in enumerate(order)}
    return dict(sorted(models.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _check_budget(rows: Sequence[Row]) -> None:
    for row in rows[1:]:
        settings = rows[0].config.model_dump(), row.config.model_dump()
        if differences := differing_settings(*settings, but=OWN):
            raise ValueError(
                f"{rows[0].run_id} and {row.run_id} cannot be compared: {differences}; compare "
                "runs of one plan and one data set"
            )


def common_runs(first: Iterable[Row], second: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the runs of two models at the splits and seeds that both have, in the same order."""
    both = [{(row.config.split, row.config.seed): row for row in rows} for rows in (first, second)]
    pairs = sorted(both[0].keys() & both[1].keys())
    one, other = ([rows[pair] for pair in pairs] for rows in both)
    return one, other


def results(rows: Iterable[Row]) -> list[Result]:
    """Summarise every model on its runs that count."""
    return [_result(title_of(of), counted(runs)) for of, runs in group_by_model(rows).items()]


def not_counted(rows: Iterable[Row]) -> list[Row]:
    """Return the runs that do not count, although others of their model do."""
    left = []
    for runs in group_by_model(rows).values():
        kept = {row.run_id for row in counted(runs)}
        left += [row for row in runs if row.run_id not in kept]
    return left


def _result(title: str, rows: Sequence[Row]) -> Result:
    return Result(title, tuple(rows), confidence_interval(hits_by_group(rows)))


def differences_from_hst(rows: Iterable[Row]) -> list[Difference]:
    """Compare HST with every other model, each on the splits and seeds that both have.

    The p-values are corrected by Holm's method for all comparisons returned.

    Args:
        rows: Runs on one data set and protocol.

    Raises:
        ValueError: If the runs differ in more than model, reading, rate, split and seed, or two
            models were not tested on the same videos.
    """
    models = group_by_model(rows)
    hst = models.pop(DEFAULT_HST, [])
    return compare(hst, {title_of(model): runs for model, runs in models.items()})


def differences_from_reading(chosen: Sequence[Row], rows: Iterable[Row]) -> list[Difference]:
    """Compare one reading of HST with HST as built and every other model, as a family of its own.

    Args:
        chosen: Runs of the reading.
        rows: Runs of the same data set and protocol; other readings of HST are ignored.

    Raises:
        ValueError: As :func:`differences_from_hst` does.
    """
    as_built = [row for row in rows if row.config.reading == "paper"]
    _check_budget([*as_built, *chosen])
    others = {_beside(model): runs for model, runs in group_by_model(as_built).items()}
    return compare(chosen, others, "the chosen reading")


def _beside(model: ModelReading) -> str:
    return "HST as built" if model == DEFAULT_HST else title_of(model)


def differences_from_references(
    rows: Iterable[Row], references: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    """Compare HST with what needs no network, on the splits that HST was run on.

    References with the same answers there are one comparison, such as ``length = geometry`` where
    all videos have one size.

    Args:
        rows: Runs on one data set and protocol.
        references: Entries of ``benchmarks/results/no_network.json``; those of other test sets are
            ignored.
    """
    hst = group_by_model(rows).get(DEFAULT_HST, [])
    names = dict.fromkeys(entry["reference"] for entry in references)
    answers = {(entry["reference"], entry["split_id"]): entry["correct"] for entry in references}
    same: dict[tuple[str | None, ...], list[str]] = {}
    for name in names:
        same.setdefault(tuple(answers.get((name, row.split_id)) for row in hst), []).append(name)
    compared = {
        " = ".join(group): [
            _answered_by(row, correct) for row, correct in zip(hst, given, strict=True) if correct
        ]
        for given, group in same.items()
        if any(given)
    }
    return compare(hst, compared)


def _answered_by(row: Row, correct: str) -> Row:
    """Return a run with the answers of a reference: 1 for a correct one, in the order of videos."""
    videos = [
        (label, label if answer == "1" else -1, group)
        for (label, _, group), answer in zip(row.videos, correct, strict=True)
    ]
    return row.model_copy(update={"videos": videos, "epochs": [], "training_top1": 1.0})


def compare(
    hst: Sequence[Row], others: Mapping[str, Sequence[Row]], name: str = "HST"
) -> list[Difference]:
    """Compare HST with every other model, each on the splits and seeds that both have.

    The p-values are corrected by Holm's method for all comparisons returned.

    Args:
        hst: Runs of HST.
        others: Runs of each other model, by its title.
        name: Title of what is compared.

    Raises:
        ValueError: If two models were not tested on the same videos.
    """
    compared: dict[str, tuple[Result, Result, Interval]] = {}
    for title, runs in others.items():
        block, own = _pairs(hst, runs)
        if not block:
            continue
        hits, baseline = hits_by_group(block), hits_by_group(own)
        if not same_videos(hits, baseline):
            raise ValueError(f"{name} and {title} were not tested on the same videos")
        interval = confidence_interval(hits, baseline)
        compared[title] = _result(name, block), _result(title, own), interval
    corrected = holm({title: interval.p_value for title, (*_, interval) in compared.items()})
    return [Difference(*parts, corrected[title]) for title, parts in compared.items()]


def _pairs(hst: Iterable[Row], others: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the runs of both at the splits and seeds that both have, fitted ones if there are."""
    block, own = common_runs(hst, others)
    both = list(zip(block, own, strict=True))
    fitted = [pair for pair in both if all(training_top1(row) >= FITTED for row in pair)]
    return [row for row, _ in fitted or both], [row for _, row in fitted or both]


def rates_by_model(rows: Iterable[Row]) -> dict[ModelReading, dict[float, list[Row]]]:
    """Group the runs of a search for learning rates by model and rate.

    Raises:
        ValueError: If a run was tested on anything but held-out training sources.
    """
    table: dict[ModelReading, dict[float, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: row.config.learning_rate or 0):
        if row.config.protocol != "validation":
            raise ValueError(
                f"{row.run_id} was tested by protocol {row.config.protocol!r}; a learning rate is "
                "chosen by 'validation' only"
            )
        model = row.config.model, row.config.reading
        table.setdefault(model, {}).setdefault(row.config.learning_rate, []).append(row)
    return table


def choose_rates(rows: Iterable[Row]) -> dict[ModelReading, float]:
    """Return each model's rate with the highest top-1 on held-out sources; of equals, top-5."""
    return {
        model: max(by_rate, key=lambda rate: _mean_score(by_rate[rate]))
        for model, by_rate in rates_by_model(rows).items()
    }


def _mean_score(rows: Sequence[Row]) -> tuple[float, float]:
    return tuple(sum(row.test[key] for row in rows) / len(rows) for key in ("top1", "top5"))


def check_rates(rows: Iterable[Row], chosen: Mapping[ModelReading, float]) -> None:
    """Raise ValueError if a run was trained at another rate than the chosen one."""
    for row in rows:
        model = row.config.model, row.config.reading
        if model in chosen and row.config.learning_rate != chosen[model]:
            raise ValueError(
                f"{row.run_id} was trained at {row.config.learning_rate:g}, but {chosen[model]:g} "
                "was chosen"
            )
