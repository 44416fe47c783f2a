"""One training run from settings to results row, for notebooks and the command line."""

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from hstlib.config import ClipConfig, TrainConfig, data_root
from hstlib.data.datasets import Sample, VideoSet, hmdb51_tags, hold_out_validation, load_dataset
from hstlib.data.demo import class_kinds, reverse_classes
from hstlib.data.loader import VideoDataset
from hstlib.data.store import INDEX, ClipStore, prepare_store
from hstlib.files import lock
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.checkpoint import save_checkpoint
from hstlib.training.device import make_accelerator, seed_torch
from hstlib.training.evaluate import average_views, score_views, summarise
from hstlib.training.loop import TrainingResult, train
from hstlib.training.metrics import count_parameters, hits_by_tag, predict_classes, top_k_accuracy
from hstlib.training.provenance import now, start_record
from hstlib.training.rows import ROW, Row, load_row, write_record, write_row
from hstlib.training.state import differing_settings

log = logging.getLogger("hstlib")

LAST, BEST = "last.safetensors", "best.safetensors"

Views = list[np.ndarray | None]
"""Probabilities of each video's views, shape (views, classes); None: the video is unreadable."""


def run_experiment(config: TrainConfig, results: Path) -> Row:
    """Train a model, evaluate it once on the test set, and write the results row.

    An interrupted run is resumed after its last complete epoch. If the run is finished, its row is
    returned. Under ``accelerate launch``, every process calls this function.

    Args:
        config: Settings of the run.
        results: Folder of all runs. The run's own folder in it, ``<run id>``, gets

            * ``run.json``: settings, environment, lists, and when the test set was evaluated;
            * ``log.txt`` and ``epochs.jsonl``, which grow during training;
            * ``state.safetensors`` to resume from; delete it once the row is safe;
            * ``last.safetensors``, and with validation ``best.safetensors``;
            * ``row.json``.

    Returns:
        The row.

    Raises:
        ValueError: If the data set is missing, no training video can be read, the model cannot
            take clips of this size, or the folder contains the run with other settings.
        hstlib.training.loop.TrainingError: If the loss is not finite or diverges.
    """
    folder = results / config.run_id
    accelerator = make_accelerator(config)
    with _locked_with_log(folder, accelerator):
        if (folder / ROW).is_file():
            return _finished_row(folder, config)
        return _Experiment(config, folder, accelerator).run()


def evaluated_checkpoint(config: TrainConfig, results: Path) -> Path:
    """Return the path of the weights that a run's test accuracy belongs to."""
    return results / config.run_id / (BEST if config.validation else LAST)


def check_model(config: TrainConfig) -> None:
    """Build the model without memory and run an empty clip through it, before videos are decoded.

    Raises:
        ValueError: If the model has no such reading, or cannot take clips of this size.
    """
    with torch.device("meta"), torch.no_grad():
        model = build_model(config.model, 2, config.backbone, config.reading).eval()
        shape = (config.num_frames, config.input_size, config.input_size)
        model(torch.empty(1, 3, *shape), torch.empty(1, 2, *shape))


def open_dataset(config: TrainConfig, data_dir: str = "") -> VideoSet:
    """Read the lists of a run's data set at its split.

    Args:
        config: Settings of the run.
        data_dir: Folder of the data set; empty: the one of the run.
    """
    return load_dataset(
        config.dataset,
        data_dir or config.data_dir,
        config.split,
        protocol=config.protocol,
        clips_per_video=config.clips_per_video,
    )


def open_store(data: VideoSet, clip: ClipConfig, workers: int | None = None) -> ClipStore:
    """Open the clip store of a data set; decode the videos first if that is still to be done."""
    return prepare_store(data.paths, clip, data_root() / "store", workers)


def list_problems(store: ClipStore, max_lines: int = 20) -> list[str]:
    """List the files that are missing or cannot be decoded, at most ``max_lines`` of them."""
    reasons = list(store.problems.values())
    lines = [f"left out: {reason}" for reason in reasons[:max_lines]]
    if len(reasons) > max_lines:
        lines.append(f"left out: {len(reasons) - max_lines} more, see {store.folder / INDEX}")
    return lines


@contextmanager
def _locked_with_log(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Lock a run's folder against a second job, and copy the library's log to ``log.txt``."""
    if not accelerator.is_main_process:
        yield
        return
    with lock(folder):
        folder.mkdir(exist_ok=True)
        handler = logging.FileHandler(folder / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        except Exception as error:
            handler.stream.write("".join(traceback.format_exception(error)))
            raise
        finally:
            log.removeHandler(handler)
            handler.close()


def _finished_row(folder: Path, config: TrainConfig) -> Row:
    """Return the row of a finished run, if it has the same settings."""
    row = load_row(folder / ROW)
    if differences := differing_settings(row.config.model_dump(), config.model_dump()):
        raise ValueError(
            f"{folder} holds a run with other settings ({differences}); move it away or choose "
            "another results folder"
        )
    log.info("%s is finished, see %s", config.run_id, folder / ROW)
    return row


class _Experiment:
    """A training run in progress: its data, its record and the folder it writes to."""

    def __init__(self, config: TrainConfig, folder: Path, accelerator: Accelerator):
        self.begin = time.perf_counter()
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.data = open_dataset(config)
        check_model(config)
        self.store = open_store(self.data, config.clip)
        self.training, self.validation = self.data.train, ()
        if config.validation:
            self.training, self.validation = hold_out_validation(self.data)
        self.readable = _readable(self.training, self.store, self.data.name)
        log.info(
            "%s: %d training videos, %d for validation, %d test",
            config.run_id, len(self.readable), len(self.validation), len(self.data.test),
        )  # fmt: skip
        repeating = sum(self.store.repeats(sample.path) > 0 for sample in self.readable)
        if repeating:
            log.info("%d training videos are short: their clips repeat frames", repeating)
        if self.store.problems:
            log.info("%d files cannot be used, listed at the end", len(self.store.problems))
        self.record = start_record(config, self.data, folder)

    def run(self) -> Row:
        self._write_record()
        model = self._build_model()
        result = self._train(model)
        self._save_checkpoints(model, result)
        views = self._score_test_set(model)
        shuffled = None
        if self.config.dataset.startswith("demo-"):
            shuffled = self._score(model, self.data.test, shuffle_time_seed=self.config.seed)
        row = self._make_row(model, result, views, shuffled)
        if self.accelerator.is_main_process:
            write_row(row, self.folder.parent)
        log.info(
            "%s: test top-1 %.4f of %d videos", row.run_id, row.test["top1"], row.test["videos"]
        )
        for line in list_problems(self.store):
            log.warning(line)
        return row

    def _write_record(self) -> None:
        if self.accelerator.is_main_process:
            write_record(self.record, self.folder)

    def _build_model(self) -> nn.Module:
        config = self.config
        seed_torch(config.seed, config.deterministic)
        model = build_model(config.model, len(self.data.classes), config.backbone, config.reading)
        if config.activation_checkpointing:
            model.enable_activation_checkpointing()
        if config.channels_last:
            to_channels_last(model)
        return model

    def _train(self, model: nn.Module) -> TrainingResult:
        dataset = VideoDataset(self.readable, self.store, self.config.seed, self.config.augment)
        validate = partial(self._top1, samples=self.validation) if self.validation else None
        return train(model, dataset, self.config, self.accelerator, self.folder, validate)

    def _top1(self, model: nn.Module, samples: Sequence[Sample]) -> float:
        views = self._score(model, samples)
        labels = [sample.label for sample in samples]
        return top_k_accuracy(average_views(views, len(self.data.classes)), labels)

    def _save_checkpoints(self, model: nn.Module, result: TrainingResult) -> None:
        """Save the last weights and, with validation, the best; the model then has the best."""
        self._save_checkpoint(self.folder / LAST, model)
        if result.best:
            model.load_state_dict(result.best)
            self._save_checkpoint(self.folder / BEST, model)

    def _save_checkpoint(self, path: Path, model: nn.Module) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(path, model, self.config, self.data, self.record.manifest)

    def _score_test_set(self, model: nn.Module) -> Views:
        """Score the test videos, after the time of this evaluation is on record."""
        evaluations = [*self.record.test_evaluations, now()]
        self.record = self.record.model_copy(update={"test_evaluations": evaluations})
        self._write_record()
        log.info("%s: evaluates the test set, time %d", self.record.run_id, len(evaluations))
        return self._score(model, self.data.test)

    def _score(
        self,
        model: nn.Module,
        samples: Sequence[Sample],
        shuffle_time_seed: int | None = None,
    ) -> Views:
        """Score the views of videos; every process scores its share, and gets all results."""
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        views = score_views(
            model,
            samples[first::step],
            self.store,
            shuffle_time_seed=shuffle_time_seed,
            crop_size=self.config.crop_size,
            num_crops=1 if shuffle_time_seed is not None else self.config.num_crops,
        )
        numbers = range(first, len(samples), step)
        numbered = gather_object(list(zip(numbers, views, strict=True)))
        return [view for _, view in sorted(numbered, key=lambda pair: pair[0])]

    def _make_row(
        self, model: nn.Module, result: TrainingResult, views: Views, shuffled: Views | None
    ) -> Row:
        return Row(
            **dict(self.record),
            **_evaluate_answers(views, self.data),
            kinds=_evaluate_kinds(views, shuffled, self.data, self.config.dataset),
            parameters=count_parameters(model),
            classes=len(self.data.classes),
            train_videos=len(self.training),
            training_top1=self._top1(model, self.readable),
            missing=len(self.data.missing),
            problems=len(self.store.problems),
            epochs=[asdict(epoch) for epoch in result.records],
            seconds=round(time.perf_counter() - self.begin, 1),
            finished=now(),
        )


def _readable(samples: Sequence[Sample], store: ClipStore, dataset: str) -> list[Sample]:
    """Return the samples whose video could be decoded."""
    readable = [sample for sample in samples if sample.path in store]
    if not readable:
        raise ValueError(
            f"none of the {len(samples)} training videos of {dataset} can be read; first: "
            f"{store.problems[str(samples[0].path)]}"
        )
    return readable


def _evaluate_answers(views: Views, data: VideoSet) -> dict[str, Any]:
    """Return the fields of a row that follow from the scores of the test videos."""
    labels = [sample.label for sample in data.test]
    scores = average_views(views, len(data.classes))
    predictions = predict_classes(scores)
    groups = {name: number for number, name in enumerate(sorted({s.group for s in data.test}))}
    return {
        "test": summarise(scores, labels, views),
        "videos": [
            (sample.label, prediction, groups[sample.group])
            for sample, prediction in zip(data.test, predictions.tolist(), strict=True)
        ],
        "confidences": [None if np.isnan(score).any() else float(score.max()) for score in scores],
        "tags": hits_by_tag(predictions == labels, [hmdb51_tags(s.path.name) for s in data.test]),
    }


def _evaluate_kinds(
    views: Views, shuffled: Views | None, data: VideoSet, dataset: str
) -> dict[str, float]:
    """Return accuracies by kind of class on a demo corpus, with and without shuffled frames."""
    if shuffled is None:
        return {}
    kinds: dict[str, float] = {}
    for suffix, scored in (("", views), ("_shuffled", shuffled)):
        scores = average_views(scored, len(data.classes))
        shares = kind_accuracy(dataset, data.classes, scores, data.test)
        kinds |= {f"{kind}{suffix}": share for kind, share in shares.items()}
    return kinds


def kind_accuracy(
    dataset: str, classes: tuple[str, ...], scores: np.ndarray, samples: tuple[Sample, ...]
) -> dict[str, float]:
    """Return accuracies on a demo corpus by kind of class.

    Args:
        dataset: Name of the demo corpus.
        classes: Class names in the order of the labels.
        scores: Probabilities, shape (N, classes); NaN: unreadable video.
        samples: The N videos.

    Returns:
        ``motion`` and ``appearance``: top-1 over the classes of that kind. ``direction``: share of
        the motion clips whose class scores higher than the class of the same still frames in
        opposite order; chance is 0.5.
    """
    kinds, reverse = class_kinds(dataset), reverse_classes(dataset)
    labels = np.array([sample.label for sample in samples])
    moving = np.array([kinds[classes[label]] == "motion" for label in labels])
    correct = (scores.argmax(1) == labels) & ~np.isnan(scores).any(1)
    own = labels[moving]
    opposite = [classes.index(reverse[classes[label]]) for label in own]
    rows = np.arange(len(own))
    return {
        "motion": float(correct[moving].mean()),
        "appearance": float(correct[~moving].mean()),
        "direction": float((scores[moving][rows, own] > scores[moving][rows, opposite]).mean()),
    }
