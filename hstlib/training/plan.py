"""Plans: lists of training runs, written as the YAML files under ``workflow/params``."""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hstlib.config import PAPER_LEARNING_RATE, TrainConfig, unknown_setting

LISTED = {"model": "models", "split": "splits", "seed": "seeds"}
"""Settings that every run takes from one of the plan's lists."""
SWEPT = {"learning_rate": "learning_rates", "variant": "learning_rates"}
"""Settings that a run takes from the plan's learning rates, if there are any."""


class Corpus(BaseModel):
    """A data set of a plan; all further keys are settings of its runs.

    Attributes:
        dataset: Name of the data set.
        splits: Splits of this corpus. None: the plan's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    dataset: str
    splits: list[int] | None = Field(None, min_length=1)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all runs on this corpus share."""
        return self.model_dump(exclude={"splits"})


class Resources(BaseModel):
    """Resources of one training run.

    Attributes:
        gpus: Number of GPUs; several train together, with one process each.
        cpus: Number of CPU cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)


class Plan(BaseModel):
    """Content of a plan's file: every model on every corpus, with every split and seed.

    Attributes:
        build: Folder that the workflow writes to, relative to the project root.
        study: Notebook that evaluates the finished runs, if there is one.
        seeds: Seeds of every model on every split.
        splits: Splits of every corpus without splits of its own.
        corpora: Data sets to train on.
        train: Settings of all runs.
        models: Settings of each model, by name. A variant of a model sets ``model`` as well.
        learning_rates: Learning rates to choose from. If there are any, every model is trained with
            each of them and with the paper's, and the run's ``variant`` names the rate.
        resources: Resources of one training run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    build: str
    study: str | None = None
    seeds: list[int] = Field(min_length=1)
    splits: list[int] = Field(min_length=1)
    corpora: list[Corpus] = Field(min_length=1)
    train: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = Field(min_length=1)
    learning_rates: list[float] = []
    resources: Resources = Resources()


def parse_plan(content: Mapping[str, Any]) -> Plan:
    """Validate the content of a plan's file.

    Args:
        content: Content of a file under ``workflow/params``.

    Raises:
        ValueError: If a key is unknown, missing or has a value of the wrong type. The message
            names the key.
    """
    try:
        plan = Plan.model_validate(dict(content))
    except ValidationError as error:
        raise ValueError("; ".join(_describe_errors(error))) from None
    swept = SWEPT if plan.learning_rates else ()
    _check_names("train", plan.train, (*LISTED, *swept))
    for name, settings in plan.models.items():
        _check_names(f"models.{name}", settings, ("split", "seed", *swept))
    for index, corpus in enumerate(plan.corpora):
        _check_names(f"corpora[{index}]", corpus.settings, (*LISTED, *swept))
    return plan


def planned_runs(content: Mapping[str, Any]) -> dict[str, TrainConfig]:
    """List the training runs of a plan.

    Settings of a corpus override those of a model, which override those of all runs (``train``).

    Args:
        content: Content of a file under ``workflow/params``.

    Returns:
        Settings by run id, ordered by corpus, model, split and seed.

    Raises:
        ValueError: If the plan is not valid, a value is not allowed, or two runs have the same id.
            The message names the key of the plan.
    """
    plan = parse_plan(content)
    runs: dict[str, TrainConfig] = {}
    for (index, corpus), model in product(enumerate(plan.corpora), plan.models):
        keys = f"corpora[{index}] with models.{model}"
        for settings in _expand(plan, corpus, model):
            try:
                config = TrainConfig.from_flat(settings)
                _check_reading(config.model, config.backbone, config.reading)
            except ValueError as error:
                raise ValueError(f"{keys}: {error}") from None
            if config.run_id in runs:
                raise ValueError(
                    f"{keys}: the plan already has a run {config.run_id}; a run's data set, "
                    "protocol, model, reading, backbone, split, seed or variant must differ from "
                    "another's"
                )
            runs[config.run_id] = config
    return runs


def _expand(plan: Plan, corpus: Corpus, model: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of a model on a corpus, for every split and seed."""
    settings = {**plan.train, "model": model, **plan.models[model], **corpus.settings}
    for split, seed in product(corpus.splits or plan.splits, plan.seeds):
        run = {**settings, "split": split, "seed": seed}
        if not plan.learning_rates:
            yield run
            continue
        papers = PAPER_LEARNING_RATE.get(settings["model"])
        for rate in sorted({*plan.learning_rates, *([papers] if papers else [])}):
            yield {**run, "learning_rate": rate, "variant": f"rate{rate:g}"}


def _check_names(key: str, settings: Mapping[str, Any], refused: Collection[str]) -> None:
    """Refuse names that are not settings, and settings that the plan's lists would override."""
    for name in settings:
        if name in refused:
            raise ValueError(
                f"{key}: remove {name!r}; runs take it from the plan's {(LISTED | SWEPT)[name]!r}"
            )
        if name not in TrainConfig.model_fields:
            raise ValueError(f"{key}: {unknown_setting(name, TrainConfig.model_fields)}")


@cache
def _check_reading(model: str, backbone: str, reading: str) -> None:
    """Raise ValueError if the model has no such reading."""
    if reading == "paper":
        return
    # Imported only here: it takes seconds, which every start of the workflow would pay.
    import torch

    from hstlib.model.registry import build_model

    with torch.device("meta"):
        build_model(model, 2, backbone, reading)


def _describe_errors(error: ValidationError) -> Iterator[str]:
    """Describe what is wrong with each key of a plan."""
    for detail in error.errors():
        *parents, name = detail["loc"]
        if detail["type"] == "extra_forbidden":
            known = Resources.model_fields if parents else Plan.model_fields
            yield ": ".join([*map(str, parents), unknown_setting(name, known)])
        elif detail["type"] == "missing":
            yield f"{_join_key(detail['loc'])} is missing"
        else:
            reason = detail["msg"].replace("Input should be", "it must be")
            yield f"{_join_key(detail['loc'])} is {detail['input']!r}; {reason}"


def _join_key(location: tuple[int | str, ...]) -> str:
    """Write a location as a key, such as ``corpora[0].splits``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
