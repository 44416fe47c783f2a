"""Plans: lists of training runs, written as the YAML files under ``workflow/params``."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hstlib.config import PAPER_LEARNING_RATE, TrainConfig, unknown_setting

LISTED = {"model": "models", "split": "splits", "seed": "seeds"}
"""Settings that every run takes from one of the plan's lists."""
SWEPT = {"learning_rate": "learning_rates", "variant": "learning_rates"}
"""Settings that a run takes from the plan's learning rates, if there are any."""
SOURCES = {
    *("benchmarks", "book", "data", "examples", "hstlib"),
    *("notebooks", "results", "tests", "workflow"),
}
"""Folders of the project, which no plan may write to."""


class Corpus(BaseModel):
    """A data set of a plan; all further keys are settings of its runs.

    Attributes:
        dataset: Name of the data set.
        splits: Splits of this corpus. None: the plan's.
        models: Names of the models to train on it. None: all of the plan's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    dataset: str
    splits: list[int] | None = Field(None, min_length=1)
    models: list[str] | None = Field(None, min_length=1)

    @property
    def name(self) -> str:
        """Name of the data set; for a folder of videos, the folder's."""
        return Path(str(self.settings.get("data_dir", ""))).name or self.dataset

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all runs on this corpus share."""
        return self.model_dump(exclude={"splits", "models"})


class Resources(BaseModel):
    """Resources of one training run.

    Attributes:
        gpus: Number of GPUs; several train together, with one process each.
        cpus: Number of CPU cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(0, ge=0, le=64)
    cpus: int = Field(1, ge=1, le=1024)


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
        excluded: Models that are not trained unless an override names them, each with the reason.
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
    excluded: dict[str, str] = {}
    learning_rates: list[float] = []
    resources: Resources = Resources()

    @field_validator("build")
    @classmethod
    def _check_build(cls, build: str) -> str:
        parts = build.split("/")
        if not all(re.fullmatch(r"\w[\w .-]*", part) for part in parts) or parts[0] in SOURCES:
            raise ValueError(
                "it must be a folder in the project, such as build/mine, that is none of its "
                f"own ({', '.join(sorted(SOURCES))})"
            )
        return build

    @field_validator("study")
    @classmethod
    def _check_study(cls, study: str | None) -> str | None:
        if study and not re.fullmatch(r"\w+", study):
            raise ValueError("it must be the name of a notebook, without folder and suffix")
        return study


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan's file, a mapping in YAML.

    Raises:
        ValueError: If there is no such file, or it is not a mapping in YAML. The message names it.
    """
    import yaml  # only the workflow needs it

    if not path.is_file():
        raise ValueError(f"{path}: no such plan; those of the book are in workflow/params")
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: no YAML: {reason}; a plan is a text such as workflow/params/demo.yaml"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a plan is a mapping of keys, not {content!r}")
    return content


def parse_plan(content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Plan:
    """Validate the content of a plan's file.

    Args:
        content: Content of a file under ``workflow/params``.
        overrides: Changes for one call, by name. ``dataset`` and ``model`` select from the plan by
            name, ``split`` and ``seed`` replace the plan's, each with one value or a list; every
            other setting of a run holds for all runs; ``build`` is the folder to write to.

    Raises:
        ValueError: If a key is unknown, missing or has a value of the wrong type. The message
            names the key.
    """
    plan = _validate(content)
    return _validate(_override(plan, overrides)) if overrides else plan


def _validate(content: Mapping[str, Any]) -> Plan:
    try:
        plan = Plan.model_validate(dict(content))
    except ValidationError as error:
        raise ValueError("; ".join(_describe_errors(error))) from None
    swept = SWEPT if plan.learning_rates else ()
    _check_names("train", plan.train, (*LISTED, *swept))
    for name, settings in plan.models.items():
        _check_names(f"models.{name}", settings, ("split", "seed", *swept))
    _select("excluded: model", [*plan.excluded], plan.models)
    for index, corpus in enumerate(plan.corpora):
        _check_names(f"corpora[{index}]", corpus.settings, (*LISTED, *swept))
        _select(f"corpora[{index}].models: model", corpus.models or [], plan.models)
    return plan


def _override(plan: Plan, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a plan after changes."""
    known = {"build", *TrainConfig.model_fields}
    for name in overrides:
        if name not in known:
            raise ValueError(unknown_setting(name, known))
    values = dict(overrides)
    content = plan.model_dump()
    if "build" in values:
        content["build"] = values.pop("build")
    if "model" in values:
        models = _select("model", values.pop("model"), plan.models)
        content["models"] = {name: plan.models[name] for name in models}
        content["excluded"] = {}
        for corpus in content["corpora"]:
            corpus["models"] = [m for m in models if m in (corpus["models"] or models)]
    if "dataset" in values:
        names = _select("dataset", values.pop("dataset"), [c.name for c in plan.corpora])
        pairs = zip(plan.corpora, content["corpora"], strict=True)
        content["corpora"] = [dumped for corpus, dumped in pairs if corpus.name in names]
    for name, key in {"split": "splits", "seed": "seeds"}.items():
        if name in values:
            content[key] = _as_list(values.pop(name))
            if name == "split":
                content["corpora"] = [{**c, "splits": None} for c in content["corpora"]]
    content["corpora"] = [{**c, **values} for c in content["corpora"] if c["models"] != []]
    if not content["corpora"]:
        raise ValueError("the plan trains none of these models on these data sets; choose others")
    return content


def _select(name: str, value: Any, choices: Collection[str]) -> list[str]:
    """Return the chosen ones of a plan's models or data sets."""
    chosen = _as_list(value)
    for choice in chosen:
        if choice not in choices:
            raise ValueError(
                f"{name} {choice!r} is not in the plan; use one of {', '.join(choices)}"
            )
    return chosen


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def planned_runs(
    content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> dict[str, TrainConfig]:
    """List the training runs of a plan.

    Settings of a corpus override those of a model, which override those of all runs (``train``).

    Args:
        content: Content of a file under ``workflow/params``.
        overrides: Changes for one call, as for :func:`parse_plan`; they override the plan.

    Returns:
        Settings by run id, ordered by corpus, model, split and seed.

    Raises:
        ValueError: If the plan is not valid, a value is not allowed, or two runs have the same id.
            The message names the key of the plan.
    """
    plan = parse_plan(content, overrides)
    runs: dict[str, TrainConfig] = {}
    for (index, corpus), model in product(enumerate(plan.corpora), plan.models):
        if model not in (corpus.models or plan.models) or model in plan.excluded:
            continue
        keys = f"corpora[{index}] with models.{model}"
        for settings in _expand(plan, corpus, model):
            try:
                config = TrainConfig.from_flat(settings)
                check_reading(config.model, config.backbone, config.reading)
            except ValueError as error:
                raise ValueError(f"{keys}: {error}") from None
            if not re.fullmatch(r"[^{}\x00-\x1f\x7f-\x9f]+", config.run_id):
                raise ValueError(
                    f"{keys}: the run's name {config.run_id!r} has braces or control characters; "
                    "rename the folder of the videos"
                )
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
def check_reading(model: str, backbone: str, reading: str) -> None:
    """Raise ValueError if the model has no such reading, which would name a folder."""
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
            reason = detail["msg"].removeprefix("Value error, ").partition(", unable to")[0]
            reason = reason.replace("Input should be", "it must be")
            if detail["type"] == "too_short":
                reason = "it must not be empty"
            yield f"{_join_key(detail['loc'])} is {detail['input']!r}; {reason}"


def _join_key(location: tuple[int | str, ...]) -> str:
    """Write a location as a key, such as ``corpora[0].splits``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
