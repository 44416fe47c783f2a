"""One training run from settings to results row, for notebooks and the command line."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.cache import store_root
from hstlib.data.datasets import Sample, VideoSet, hold_out_validation, load_dataset
from hstlib.data.loader import VideoDataset
from hstlib.data.store import INDEX, ClipStore, prepare_store
from hstlib.files import complete
from hstlib.model.registry import build_model, to_channels_last
from hstlib.training.answers import Views, evaluate_answers, evaluate_kinds
from hstlib.training.batches import check_batch_size
from hstlib.training.checkpoint import Checkpoint, save_checkpoint, short_hashes
from hstlib.training.device import make_accelerator, seed_torch
from hstlib.training.evaluate import average_views, score_views
from hstlib.training.finished import finished_row
from hstlib.training.identity import RunIdentity
from hstlib.training.limit import limit_videos
from hstlib.training.loop import TrainingError, TrainingResult, train
from hstlib.training.metrics import count_parameters, top_k_accuracy
from hstlib.training.provenance import content_hashes, identify_data, now, start_record
from hstlib.training.rows import ROW, Row, load_row, write_record, write_row
from hstlib.training.run_folder import locked_with_log
from hstlib.training.sealed import NotFiniteError
from hstlib.training.start import describe_transfer, open_start, refuse_other_start, start_from
from hstlib.training.state import PREVIOUS, refuse_other_run
from hstlib.training.step import inverse_frequencies

log = logging.getLogger("hstlib")

LAST, BEST = "last.safetensors", "best.safetensors"

Value = TypeVar("Value")


def run_experiment(config: TrainConfig, results: Path) -> Row:
    """Train a model, evaluate it once on the test set, and write the results row.

    An interrupted run is resumed from its last state, and so is a finished one for more epochs. A
    run is its settings, its lists, the contents of its videos and the weights it starts from;
    another one in its folder is refused. Under ``accelerate launch``, every process calls this.

    Args:
        config: Settings of the run.
        results: Folder of all runs. The run's own folder in it, ``<run id>``, gets

            * ``run.json``: settings, environment, lists, and when the test set was evaluated;
            * ``log.txt`` and ``epochs.jsonl``, which grow during training;
            * ``state.safetensors`` to resume from or to train longer, and during training the one
              before it, ``state.previous.safetensors``;
            * ``last.safetensors``, and with validation ``best.safetensors``;
            * ``row.json``; the row of fewer epochs is kept as ``row-<epochs>-epochs.json``.

    Returns:
        The row; if the run is finished, the one that it has.

    Raises:
        ValueError: If the data set is missing or has one class only, no training video can be
            read, the model cannot take clips of this size or start from the given weights, or the
            folder contains another run; the message names each difference with both values.
        hstlib.training.loop.TrainingError: If the model diverges: loss, weights or scores are not
            finite.
        hstlib.training.interruption.Stopped: If the process gets SIGTERM or SIGINT.
    """
    check_model(config)
    start = open_start(config)
    folder = results / config.run_id
    accelerator = make_accelerator(config)
    with locked_with_log(folder, accelerator):
        data = open_dataset(config)
        _check_classes(data)
        row = _from_main(accelerator, lambda: _find_row(folder, config, data, start))
        row = row or _Experiment(config, folder, accelerator, data, start).run()
        if accelerator.is_main_process:  # also if a kill came after the row
            (folder / PREVIOUS).unlink(missing_ok=True)
        return row


def _find_row(
    folder: Path, config: TrainConfig, data: VideoSet, start: Checkpoint | None
) -> Row | None:
    """Return the row of a run if it is finished; refuse the row of another run."""
    refuse_other_start(folder, start)
    return finished_row(folder, config, data, evaluated_checkpoint(config, folder.parent))


def _check_classes(data: VideoSet) -> None:
    if len(data.classes) < 2:
        raise ValueError(
            f"{data.name} has the class {data.classes[0]!r} alone, so there is nothing to "
            "distinguish; add clips of another class, such as 'other'"
        )


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
        frames, size = config.num_frames, config.input_size
        try:
            model(torch.empty(1, 3, frames, size, size), torch.empty(1, 2, frames, size, size))
        except ValueError as error:
            raise ValueError(f"size {size}, num_frames {frames}: {error}") from None


def open_dataset(config: TrainConfig, data_dir: str = "") -> VideoSet:
    """Read the lists of a run's data set at its split; with a limit, those of its smoke test.

    Args:
        config: Settings of the run.
        data_dir: Folder of the data set; empty: the one of the run.
    """
    data = load_dataset(
        config.dataset,
        data_dir or config.data_dir,
        config.split,
        protocol=config.protocol,
        clips_per_video=config.clips_per_video,
    )
    return limit_videos(data, config.limit) if config.limit else data


def open_store(data: VideoSet, clip: ClipConfig, workers: int | None = None) -> ClipStore:
    """Open the clip store of a data set; decode the videos first if that is still to be done."""
    return prepare_store(data.paths, clip, store_root(), workers)


def list_problems(store: ClipStore, max_lines: int = 20) -> list[str]:
    """List the files that are missing or cannot be decoded, at most ``max_lines`` of them."""
    reasons = list(store.problems.values())
    lines = [f"left out: {reason}" for reason in reasons[:max_lines]]
    if len(reasons) > max_lines:
        lines.append(f"left out: {len(reasons) - max_lines} more, see {store.folder / INDEX}")
    return lines


def _from_main(accelerator: Accelerator, function: Callable[[], Value]) -> Value:
    """Call a function in the main process, and return its result in every process."""
    value = function() if accelerator.is_main_process else None
    return broadcast_object_list([value])[0]


class _Experiment:
    """A training run in progress: its data, its record and the folder it writes to."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        accelerator: Accelerator,
        data: VideoSet,
        start: Checkpoint | None,
    ):
        self.begin = time.perf_counter()
        self.config, self.folder, self.accelerator, self.start = config, folder, accelerator, start
        self.data, self.training, self.validation = data, data.train, ()
        if config.validation:
            self.training, self.validation = hold_out_validation(data)
        check_batch_size(config, len(self.training), accelerator.num_processes)
        self.store = open_store(data, config.clip)
        self.readable = _readable(self.training, self.store, data.name)
        log.info(
            "%s: %d training videos, %d for validation, %d test",
            config.run_id, len(self.readable), len(self.validation), len(data.test),
        )  # fmt: skip
        repeating = sum(self.store.repeats(sample.path) > 0 for sample in self.readable)
        if repeating:
            log.info("%d training videos are short: their clips repeat frames", repeating)
        if self.store.problems:
            log.info("%d files cannot be used, listed at the end", len(self.store.problems))
        identity = _from_main(accelerator, lambda: identify_data(data, config.clip))
        self.identity = RunIdentity(**dict(identity), ancestor=start.ancestor if start else None)
        refuse_other_run(folder, config, self.identity)
        self.record = start_record(config, data, self.identity, folder)

    def run(self) -> Row:
        self._write_record()
        model = self._build_model()
        result = self._train(model)
        weights = self._save_checkpoints(model, result)
        try:
            row = self._evaluate(model, result, weights)
        except NotFiniteError as error:
            steps = len(result.records) * (len(self.readable) // self.config.batch_size)
            raise TrainingError(
                f"{self.config.run_id}: {error}, after step {steps} (epoch {len(result.records)}); "
                "choose a lower learning rate"
            ) from error
        if self.accelerator.is_main_process:
            self._write_row(row)
        log.info(
            "%s: test top-1 %.4f of %d videos", row.run_id, row.test["top1"], row.test["videos"]
        )
        for line in list_problems(self.store):
            log.warning(line)
        return row

    def _write_row(self, row: Row) -> None:
        """Write the row; keep the one of fewer epochs."""
        path = self.folder / ROW
        if path.is_file() and (trained := load_row(path).config.epochs) != row.config.epochs:
            with complete(self.folder / f"row-{trained}-epochs.json") as unfinished:
                unfinished.write_bytes(path.read_bytes())
        write_row(row, self.folder.parent)

    def _write_record(self) -> None:
        if self.accelerator.is_main_process:
            write_record(self.record, self.folder)

    def _build_model(self) -> nn.Module:
        config = self.config
        seed_torch(config.seed, config.deterministic)
        model = build_model(config.model, len(self.data.classes), config.backbone, config.reading)
        if self.start:
            transfer = start_from(model, self.start, self.data.classes)
            for line in describe_transfer(self.start, transfer, config):
                log.info("%s", line)
        if config.activation_checkpointing:
            model.enable_activation_checkpointing()
        if config.channels_last:
            to_channels_last(model)
        return model

    def _train(self, model: nn.Module) -> TrainingResult:
        dataset = VideoDataset(self.readable, self.store, self.config.seed, self.config.augment)
        validate = partial(self._top1, samples=self.validation) if self.validation else None
        return train(
            model, dataset, self.config, self.accelerator, self.folder, validate, self.identity,
            self._class_weights(),
        )  # fmt: skip

    def _class_weights(self) -> Tensor | None:
        if not self.config.class_weights:
            return None
        labels = [sample.label for sample in self.readable]
        weights = inverse_frequencies(labels, len(self.data.classes))
        log.info("class weights from %.2f to %.2f", weights.min(), weights.max())
        return weights

    def _top1(self, model: nn.Module, samples: Sequence[Sample]) -> float:
        views = self._score(model, samples)
        labels = [sample.label for sample in samples]
        return top_k_accuracy(average_views(views, len(self.data.classes)), labels)

    def _save_checkpoints(self, model: nn.Module, result: TrainingResult) -> str:
        """Save the last weights and, with validation, the best; the model then has the best.

        Returns:
            SHA-256 of the checkpoint with the weights that the model has.
        """
        digest = self._save_checkpoint(self.folder / LAST, model)
        if result.best:
            model.load_state_dict(result.best)
            digest = self._save_checkpoint(self.folder / BEST, model)
        return _from_main(self.accelerator, lambda: digest)

    def _save_checkpoint(self, path: Path, model: nn.Module) -> str:
        if not self.accelerator.is_main_process:
            return ""
        return save_checkpoint(
            path, model, self.config, self.identity, self.record.manifest, self._trained_on()
        )

    def _trained_on(self) -> frozenset[str]:
        """Return the hashes of all videos that the weights were trained or chosen on."""
        hashes = content_hashes(self.data, self.config.clip)
        own = (hashes[s.path] for s in (*self.data.train, *self.data.validation))
        return short_hashes(own) | ((self.start and self.start.trained_on) or frozenset())

    def _evaluate(self, model: nn.Module, result: TrainingResult, weights: str) -> Row:
        views = self._score_test_set(model)
        shuffled = None
        if self.config.dataset.startswith("demo-"):
            shuffled = self._score(model, self.data.test, shuffle_time_seed=self.config.seed)
        return Row(
            **dict(self.record),
            **evaluate_answers(views, self.data),
            kinds=evaluate_kinds(views, shuffled, self.data, self.config.dataset),
            parameters=count_parameters(model),
            classes=len(self.data.classes),
            train_videos=len(self.training),
            training_top1=self._top1(model, self.readable),
            missing=len(self.data.missing),
            problems=len(self.store.problems),
            epochs=[asdict(epoch) for epoch in result.records],
            replanned=result.replanned,
            weights=weights,
            seconds=round(time.perf_counter() - self.begin, 1),
            finished=now(),
        )

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


def _readable(samples: Sequence[Sample], store: ClipStore, dataset: str) -> list[Sample]:
    """Return the samples whose video could be decoded."""
    readable = [sample for sample in samples if sample.path in store]
    if not readable:
        raise ValueError(
            f"none of the {len(samples)} training videos of {dataset} can be read; first: "
            f"{store.problems[str(samples[0].path)]}"
        )
    return readable
