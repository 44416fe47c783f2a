"""One training run from settings to a results row; notebooks and the command line share it."""

import logging
import platform
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accelerate
import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from hstlib.checkpoint import same_run, save_checkpoint
from hstlib.config import ClipConfig, TrainConfig, data_root, project_root
from hstlib.datasets import (
    Sample,
    VideoDataset,
    VideoSet,
    carve_validation,
    hmdb51_tags,
    load_dataset,
)
from hstlib.demo import class_kinds, reverse_classes
from hstlib.evaluate import average_views, score_views, summarise
from hstlib.files import lock
from hstlib.metrics import count_parameters, hits_by_tag, predict_classes, top_k_accuracy
from hstlib.models import build_model
from hstlib.results import ROW, Row, RunRecord, load_record, load_row, write_record, write_row
from hstlib.store import INDEX, ClipStore, prepare_store
from hstlib.train import STATE, make_accelerator, seed_torch, train
from hstlib.verify import verified_sha256

log = logging.getLogger("hstlib")

LAST, BEST = "last.safetensors", "best.safetensors"


def open_dataset(config: TrainConfig, data_dir: str = "") -> VideoSet:
    """Read the lists of a run's data set at its split.

    Args:
        config: The run.
        data_dir: Where the data set lies, if not where the run had it.
    """
    return load_dataset(
        config.dataset,
        data_dir or config.data_dir,
        config.split,
        protocol=config.protocol,
        num_windows=config.clip.num_windows,
    )


def open_store(data: VideoSet, clip: ClipConfig, workers: int | None = None) -> ClipStore:
    """Prepare the clip store of a whole data set, or open it if it is there."""
    return prepare_store(data.paths, clip, data_root() / "store", workers)


def list_problems(store: ClipStore, shown: int = 20) -> list[str]:
    """Name the files that are missing or cannot be decoded, at most ``shown`` of them."""
    lines = [f"left out: {reason}" for reason in list(store.problems.values())[:shown]]
    if len(store.problems) > shown:
        more = len(store.problems) - shown
        lines.append(f"left out: {more} more, see {store.folder / INDEX}")
    return lines


def run(config: TrainConfig, results: Path) -> Row:
    """Train, evaluate once on the test set, and write the record of the run.

    A run that was interrupted goes on after its last whole epoch; of one that is finished, the row
    is returned. Under ``accelerate launch``, every process calls this.

    Args:
        config: Everything that defines the run.
        results: Gets the folder ``<run id>`` with ``run.json`` (settings, environment, lists, when
            the test set was read), ``log.txt`` and ``epochs.jsonl``, which grow while the run goes
            on, ``state.safetensors`` to go on from, to be removed once the row is safe,
            ``last.safetensors``, with validation ``best.safetensors``, and ``row.json``.

    Returns:
        The row.

    Raises:
        ValueError: If the data set is not there, no training video can be read, the model cannot
            take such clips, or the results hold the run with other settings.
        hstlib.train.TrainingError: If the loss is not finite or explodes.
    """
    folder = results / config.run_id
    accelerator = make_accelerator(config.device, config.loop)
    with _only_run(folder, accelerator):
        if (folder / ROW).is_file():
            row = load_row(folder / ROW)
            if not same_run(row.config, config):
                raise ValueError(
                    f"{folder} holds a run with other settings; move it away or name another "
                    "results folder"
                )
            log.info("%s is finished, see %s", config.run_id, folder / ROW)
            return row
        return _run(config, folder, accelerator)


def evaluated_checkpoint(config: TrainConfig, results: Path) -> Path:
    """Return where a run keeps the weights that its test accuracy belongs to."""
    return results / config.run_id / (BEST if config.validation else LAST)


@contextmanager
def _only_run(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Keep a second job away from a run's folder, and write the library's log there as well."""
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


def _run(config: TrainConfig, folder: Path, accelerator: Accelerator) -> Row:
    begin = time.perf_counter()
    data = open_dataset(config)
    _check_fit(config, len(data.classes))
    store = open_store(data, config.clip)
    training, validation = carve_validation(data) if config.validation else (data.train, ())
    readable = [sample for sample in training if sample.path in store]
    if not readable:
        raise ValueError(
            f"none of the {len(training)} training videos of {data.name} can be read; first: "
            f"{store.problems[str(training[0].path)]}"
        )
    log.info(
        "%s: %d training videos, %d for validation, %d test",
        config.run_id, len(readable), len(validation), len(data.test),
    )  # fmt: skip
    if store.problems:
        log.info("%d files cannot be used, listed at the end", len(store.problems))
    record = _new_record(config, data)
    earlier = load_record(folder) if (folder / STATE).is_file() else None
    if earlier:  # this run was interrupted
        kept = {"started": earlier.started, "test_readings": earlier.test_readings}
        record = record.model_copy(update=kept)
        if record.commit != earlier.commit:
            log.warning(
                "%s began at commit %s, this is %s", config.run_id, earlier.commit, record.commit
            )
    if accelerator.is_main_process:
        write_record(record, folder)
    seed_torch(config.seed, config.loop.deterministic)
    model = build_model(config.model, len(data.classes), config.backbone, config.reading)
    if config.loop.recompute:
        model.recompute()

    def validate(model: nn.Module) -> float:
        scores = _score(accelerator, model, validation, store, config)
        return top_k_accuracy(
            average_views(scores, len(data.classes)), [sample.label for sample in validation]
        )

    trained = train(
        model,
        VideoDataset(readable, store, config.seed, config.augment),
        config,
        accelerator,
        folder,
        validate if validation else None,
    )
    if accelerator.is_main_process:
        save_checkpoint(folder / LAST, model, config, data, record.manifest)
    if trained.best:
        model.load_state_dict(trained.best)
        if accelerator.is_main_process:
            save_checkpoint(folder / BEST, model, config, data, record.manifest)
    record = record.model_copy(update={"test_readings": [*record.test_readings, _now()]})
    if accelerator.is_main_process:
        write_record(record, folder)
    log.info("%s: reads the test set, time %d", config.run_id, len(record.test_readings))
    views = _score(accelerator, model, data.test, store, config)
    shuffled = None
    if config.dataset.startswith("demo-"):
        shuffled = _score(accelerator, model, data.test, store, config, config.seed)
    row = Row(
        **dict(record),
        **_judge(views, shuffled, data, config.dataset),
        parameters=count_parameters(model),
        classes=len(data.classes),
        train_videos=len(training),
        missing=len(data.missing),
        problems=len(store.problems),
        epochs=[asdict(epoch) for epoch in trained.records],
        seconds=round(time.perf_counter() - begin, 1),
        finished=_now(),
    )
    if accelerator.is_main_process:
        write_row(row, folder.parent)
    log.info("%s: test top-1 %.4f of %d videos", row.run_id, row.test["top1"], row.test["videos"])
    for line in list_problems(store):
        log.warning(line)
    return row


def _score(
    accelerator: Accelerator,
    model: nn.Module,
    samples: tuple[Sample, ...],
    store: ClipStore,
    config: TrainConfig,
    shuffle_time_seed: int | None = None,
) -> list[np.ndarray | None]:
    """Score the views of videos, each process a share of them; see :func:`score_views`."""
    crop, crops = config.augment.crop, 1 if shuffle_time_seed is not None else config.crops
    first, step = accelerator.process_index, accelerator.num_processes
    views = score_views(
        model, samples[first::step], store,
        shuffle_time_seed=shuffle_time_seed, crop=crop, crops=crops,
    )  # fmt: skip
    numbered = gather_object(list(zip(range(first, len(samples), step), views, strict=True)))
    return [view for _, view in sorted(numbered, key=lambda pair: pair[0])]


def _judge(
    views: list[np.ndarray | None],
    shuffled: list[np.ndarray | None] | None,
    data: VideoSet,
    dataset: str,
) -> dict[str, Any]:
    """Return what a row says of the answers on the test videos."""
    labels = [sample.label for sample in data.test]
    scores = average_views(views, len(data.classes))
    predictions = predict_classes(scores)
    kinds: dict[str, float] = {}
    if shuffled is not None:
        kinds = kind_accuracy(dataset, data.classes, scores, data.test)
        control = average_views(shuffled, len(data.classes))
        controls = kind_accuracy(dataset, data.classes, control, data.test)
        kinds |= {f"{kind}_shuffled": value for kind, value in controls.items()}
    groups = {name: number for number, name in enumerate(sorted({s.group for s in data.test}))}
    return {
        "test": summarise(scores, labels, views),
        "videos": [
            (sample.label, prediction, groups[sample.group])
            for sample, prediction in zip(data.test, predictions.tolist(), strict=True)
        ],
        "confidences": [None if np.isnan(score).any() else float(score.max()) for score in scores],
        "tags": hits_by_tag(predictions == labels, [hmdb51_tags(s.path.name) for s in data.test]),
        "kinds": kinds,
    }


def _new_record(config: TrainConfig, data: VideoSet) -> RunRecord:
    commit, dirty = _commit()
    return RunRecord(
        run_id=config.run_id,
        config=config,
        split_id=data.split_id,
        manifest=verified_sha256(data),
        started=_now(),
        commit=commit,
        dirty=dirty,
        environment=environment(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_fit(config: TrainConfig, num_classes: int) -> None:
    """Run an empty clip through the model before hours go into decoding clips it cannot take."""
    with torch.device("meta"), torch.no_grad():
        model = build_model(config.model, num_classes, config.backbone, config.reading).eval()
        shape = (config.clip.num_frames, config.input_size, config.input_size)
        model(torch.empty(1, 3, *shape), torch.empty(1, 2, *shape))


def kind_accuracy(
    dataset: str, classes: tuple[str, ...], scores: np.ndarray, samples: tuple[Sample, ...]
) -> dict[str, float]:
    """Judge the scores on a demo corpus by kind of class.

    Returns:
        ``motion`` and ``appearance``: top-1 over the classes of that kind. ``direction``: share of
        the motion clips whose class scores higher than the class of the same still frames in
        opposite order; 0.5 is chance.
    """
    kinds, reverse = class_kinds(dataset), reverse_classes(dataset)
    labels = np.array([sample.label for sample in samples])
    moving = np.array([kinds[classes[label]] == "motion" for label in labels])
    hits = (scores.argmax(1) == labels) & ~np.isnan(scores).any(1)
    opposite = [classes.index(reverse[classes[label]]) for label in labels[moving]]
    clips = scores[moving]
    rows = np.arange(len(clips))
    return {
        "motion": float(hits[moving].mean()),
        "appearance": float(hits[~moving].mean()),
        "direction": float((clips[rows, labels[moving]] > clips[rows, opposite]).mean()),
    }


def environment() -> dict[str, str]:
    """Return the versions and the hardware that a result depends on."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def _commit() -> tuple[str, bool]:
    """Return the commit of the checkout and whether tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(project_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
