"""One training run from settings to a results row; notebooks and the command line share it."""

import json
import logging
import platform
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from hstlib.ablation import change_reading
from hstlib.baselines import C3D, R3D, R2Plus1D
from hstlib.config import ClipConfig, TrainConfig, data_root, project_root
from hstlib.datasets import Sample, VideoDataset, VideoSet, load_dataset
from hstlib.demo import class_kinds, reverse_classes
from hstlib.evaluate import score_videos, summarise
from hstlib.files import complete
from hstlib.hst import HST
from hstlib.metrics import count_parameters
from hstlib.results import Row, load_row, write_row
from hstlib.store import INDEX, ClipStore, prepare_store
from hstlib.train import EpochRecord, pick_device, seed_torch, train

log = logging.getLogger("hstlib")

MODELS: dict[str, type[nn.Module]] = {"hst": HST, "c3d": C3D, "r2plus1d": R2Plus1D, "r3d": R3D}


def build_model(model: str, num_classes: int, backbone: str, reading: str = "paper") -> nn.Module:
    """Build a model by its name.

    Args:
        model: A key of :data:`MODELS`.
        num_classes: Number of classes.
        backbone: ``resnet21``, ``vgg13`` or ``demo``.
        reading: Of HST, see :func:`hstlib.ablation.change_reading`.

    Raises:
        ValueError: If model, backbone or reading is unknown.
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; use one of {sorted(MODELS)}")
    built = MODELS[model](num_classes, backbone)
    if isinstance(built, HST):
        change_reading(built, reading)
    elif reading != "paper":
        raise ValueError(f"reading {reading!r} is one of HST; {model} has 'paper' only")
    return built


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
    """Train, evaluate once on the test set, and write checkpoint and results row.

    Args:
        config: Everything that defines the run.
        results: Gets ``<run id>.json``, ``checkpoints/<run id>.safetensors``, and
            ``logs/<run id>.log``, which grows while the run goes on.

    Returns:
        The row.

    Raises:
        ValueError: If the data set is not there, no training video can be read, the model cannot
            take such clips, or the results hold the run with other settings.
        hstlib.train.TrainingError: If the loss is not finite.
    """
    _keep_other_run(results / f"{config.run_id}.json", config)
    with _log_file(results / "logs" / f"{config.run_id}.log"):
        return _run(config, results)


def _keep_other_run(path: Path, config: TrainConfig) -> None:
    """Refuse to replace the row of a run with other settings."""
    if path.is_file() and load_row(path).config != config:
        raise ValueError(
            f"{path} holds a run with other settings; move it away or name another results folder"
        )


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write the library's log into a file as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w")
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


def _run(config: TrainConfig, results: Path) -> Row:
    begin = time.perf_counter()
    data = open_dataset(config)
    _check_fit(config, len(data.classes))
    store = open_store(data, config.clip)
    readable = [sample for sample in data.train if sample.path in store]
    if not readable:
        raise ValueError(
            f"none of the {len(data.train)} training videos of {data.name} can be read; first: "
            f"{store.problems[str(data.train[0].path)]}"
        )
    log.info("%s: %d training videos, %d test", config.run_id, len(readable), len(data.test))
    if store.problems:
        log.info("%d files cannot be used, listed at the end", len(store.problems))
    seed_torch(config.seed)
    model = build_model(config.model, len(data.classes), config.backbone, config.reading)
    model.to(pick_device(config.device))
    records = train(
        model,
        VideoDataset(readable, store, config.seed, config.augment),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.rate,
        schedule=config.schedule,
        num_workers=config.num_workers,
        seed=config.seed,
    )
    views = {"crop": config.augment.crop, "crops": config.crops}
    scores = score_videos(model, data.test, store, **views)
    row = _row(config, data, store, model, records, scores, time.perf_counter() - begin)
    save_checkpoint(results / "checkpoints" / f"{config.run_id}.safetensors", model, config, data)
    write_row(row, results)
    log.info("%s: test top-1 %.4f of %d videos", row.run_id, row.test["top1"], row.test["videos"])
    for line in list_problems(store):
        log.warning(line)
    return row


def _check_fit(config: TrainConfig, num_classes: int) -> None:
    """Run an empty clip through the model before hours go into decoding clips it cannot take."""
    with torch.device("meta"), torch.no_grad():
        model = build_model(config.model, num_classes, config.backbone, config.reading).eval()
        shape = (config.clip.num_frames, config.input_size, config.input_size)
        model(torch.empty(1, 3, *shape), torch.empty(1, 2, *shape))


def _row(
    config: TrainConfig,
    data: VideoSet,
    store: ClipStore,
    model: nn.Module,
    records: list[EpochRecord],
    scores: np.ndarray,
    seconds: float,
) -> Row:
    labels = [sample.label for sample in data.test]
    kinds = {}
    if config.dataset.startswith("demo-"):
        kinds = kind_accuracy(config.dataset, data.classes, scores, data.test)
        shuffled = score_videos(
            model, data.test, store, shuffle_time_seed=config.seed, crop=config.augment.crop
        )
        controls = kind_accuracy(config.dataset, data.classes, shuffled, data.test)
        kinds |= {f"{kind}_shuffled": value for kind, value in controls.items()}
    commit, dirty = _commit()
    return Row(
        run_id=config.run_id,
        config=config,
        parameters=count_parameters(model),
        classes=len(data.classes),
        train_videos=len(data.train),
        missing=len(data.missing),
        problems=len(store.problems),
        test=summarise(scores, labels),
        videos=_video_results(scores, data.test),
        kinds=kinds,
        epochs=[vars(record) for record in records],
        seconds=round(seconds, 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        environment=environment(),
    )


def _video_results(scores: np.ndarray, samples: tuple[Sample, ...]) -> list[tuple[int, int, int]]:
    """Return label, prediction (-1: unreadable) and the group's number of every test video."""
    groups = {name: number for number, name in enumerate(sorted({s.group for s in samples}))}
    unreadable = np.isnan(scores).any(1)
    predictions = np.where(unreadable, -1, scores.argmax(1)).tolist()
    return [
        (sample.label, prediction, groups[sample.group])
        for sample, prediction in zip(samples, predictions, strict=True)
    ]


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


def save_checkpoint(path: Path, model: nn.Module, config: TrainConfig, data: VideoSet) -> None:
    """Write weights, settings and class names into one safetensors file, atomically."""
    metadata = {"config": config.model_dump_json(), "classes": json.dumps(data.classes)}
    with complete(path) as unfinished:
        save_model(model, str(unfinished), metadata)


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[nn.Module, TrainConfig, list[str]]:
    """Read a model back from :func:`save_checkpoint`'s file.

    Returns:
        The model in evaluation mode, the settings it was trained with, and its class names.

    Raises:
        ValueError: If the file is missing or is no checkpoint of this package.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train one with `python -m hstlib train`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        config = TrainConfig.model_validate_json(metadata["config"])
        classes = json.loads(metadata["classes"])
    except Exception as error:
        raise ValueError(f"{path}: not a checkpoint of hstlib ({error})") from error
    model = build_model(config.model, len(classes), config.backbone, config.reading)
    try:
        load_model(model, str(path), device=device)
    except RuntimeError as error:
        raise ValueError(f"{path}: not a checkpoint of hstlib as it is now ({error})") from error
    return model.to(device).eval(), config, classes


def environment() -> dict[str, str]:
    """Return the versions and the hardware that a result depends on."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "machine": platform.machine(),
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
