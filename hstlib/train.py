"""One plain training loop; it knows neither the models nor the data sets."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from hstlib.checkpoint import TrainingState, load_state, save_state
from hstlib.config import LoopConfig, TrainConfig
from hstlib.datasets import VideoDataset, normalise
from hstlib.files import complete
from hstlib.models import lay_channels_last

log = logging.getLogger("hstlib")

STATE, EPOCHS = "state.safetensors", "epochs.jsonl"
LARGEST_LOSS = 1000.0
"""A cross-entropy above this has exploded: a model that knows nothing has log(classes)."""
STEPS_BETWEEN_LOOKS = 50  # at the loss on a GPU, which has to finish its work for each


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and with which files."""


@dataclass
class EpochRecord:
    """What one epoch measured.

    Attributes:
        epoch: From 0.
        loss: Mean cross-entropy in training.
        train_top1: Share of right answers in training, a fraction.
        learning_rate: At the end of the epoch.
        seconds: Without validation.
        clips_per_second: Over all processes.
        wait_share: Share of the time in which the loop waited for the loader, a fraction.
        validation_top1: On the groups set aside, a fraction; none without validation.
    """

    epoch: int
    loss: float
    train_top1: float
    learning_rate: float
    seconds: float
    clips_per_second: float
    wait_share: float
    validation_top1: float | None = None


@dataclass
class Trained:
    """The end of a training run.

    Attributes:
        records: One per epoch.
        best: Weights of the epoch that is best in validation; none without validation.
    """

    records: list[EpochRecord]
    best: dict[str, Tensor] | None


class EpochOrder(Sampler[int]):
    """Every sample once an epoch, in an order that depends on (seed, epoch) alone.

    A last incomplete batch is left out of its epoch.

    Args:
        count: Number of samples.
        batch_size: Clips per step, of all processes together.
        seed: Of the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.seed, self.epoch = count, seed, 0
        self.length = count - count % batch_size

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter(order[: self.length].tolist())


def seed_torch(seed: int, deterministic: bool = True) -> None:
    """Seed torch, and choose its algorithms."""
    torch.manual_seed(seed)
    choose_algorithms(deterministic)


def choose_algorithms(deterministic: bool) -> None:
    """Take deterministic algorithms where there are any, or the fastest ones."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


def make_accelerator(device: str = "auto", loop: LoopConfig | None = None) -> Accelerator:
    """Set up devices, processes and precision, as ``accelerate launch`` says or for one process.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
        loop: Precision and accumulation.

    Raises:
        ValueError: If the device is not there or cannot compute in the precision.
    """
    loop = loop or LoopConfig()
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda': no GPU can be used here; choose 'auto' or 'cpu'")
    torch.backends.cuda.matmul.allow_tf32 = True  # as torch's convolutions do by default
    # Accelerate keeps the settings of the first Accelerator of a process for all later ones.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if loop.precision == "fp32" else loop.precision,
        gradient_accumulation_steps=loop.accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=True),
    )


def schedule_factor(schedule: str, epoch: int, epochs: int) -> float:
    """Return what the learning rate is multiplied by in an epoch."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def train(
    model: nn.Module,
    data: VideoDataset,
    config: TrainConfig,
    accelerator: Accelerator | None = None,
    folder: Path | None = None,
    validate: Callable[[nn.Module], float] | None = None,
) -> Trained:
    """Train a model with Adam on cross-entropy.

    Paper: section 4, "trained end-to-end ... with an Adam optimizer".

    Args:
        model: Called as ``model(clips, flow)``; trained in place, and moved to the device. With
            a running average of the weights, it holds the average at the end.
        data: Gives frames, flow and label of one clip per video.
        config: Of the run; its data set and model are not looked at.
        accelerator: Of :func:`make_accelerator`; none: made from the configuration.
        folder: Gets ``epochs.jsonl``, a line per epoch, and ``state.safetensors``. If that is
            there, training goes on from it, to the same weights bit for bit on the CPU.
        validate: Measures the model after every epoch; more is better.

    Raises:
        TrainingError: If the loss is not finite or explodes.
        ValueError: If there are fewer samples than a batch, a batch cannot be shared out over the
            processes, or the state belongs to other settings.
    """
    return _Run(model, data, config, accelerator, folder, validate).train()


class _Run:
    """The parts of a training run, and its epochs."""

    def __init__(self, model, data, config, accelerator, folder, validate):
        if len(data) < config.batch_size:
            raise ValueError(
                f"{len(data)} training videos do not fill a batch of {config.batch_size}; lower "
                "batch_size"
            )
        self.config, self.loop = config, config.loop
        self.accelerator = accelerator or make_accelerator(config.device, config.loop)
        parts = self.loop.accumulation * self.accelerator.num_processes
        if config.batch_size % parts:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be cut into {self.loop.accumulation} parts "
                f"for each of {self.accelerator.num_processes} processes"
            )
        self.data, self.folder, self.validate = data, folder, validate
        cuda = self.accelerator.device.type == "cuda"
        self.look_every = STEPS_BETWEEN_LOOKS * self.loop.accumulation if cuda else 1
        self.order = EpochOrder(len(data), config.batch_size, config.seed)
        self.model = model.to(self.accelerator.device)
        if self.loop.channels_last:
            lay_channels_last(model)
        if cuda and self.accelerator.num_processes > 1:  # statistics of the whole batch
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimiser = torch.optim.Adam(model.parameters(), config.rate, fused=cuda or None)
        loader = DataLoader(
            data,
            config.batch_size // self.loop.accumulation,
            sampler=self.order,
            num_workers=config.num_workers,
            pin_memory=cuda,
        )
        self.average = None
        if self.loop.ema:
            rule = get_ema_multi_avg_fn(self.loop.ema)
            self.average = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)
        self.wrapped, self.optimiser, self.loader = self.accelerator.prepare(
            torch.compile(model) if self.loop.compile else model, optimiser, loader
        )
        self.records: list[EpochRecord] = []
        self.best: dict[str, Tensor] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The model that is measured: the running average of the weights, if there is one."""
        return self.average.module if self.average else self.model

    def train(self) -> Trained:
        self._go_on()
        with tqdm(
            total=self.config.epochs * len(self.order),
            initial=len(self.records) * len(self.order),
            desc="train",
            unit="clip",
            disable=None if self.accelerator.is_main_process else True,
        ) as bar:
            for epoch in range(len(self.records), self.config.epochs):
                record = self._epoch(epoch, bar)
                if self.validate:
                    record.validation_top1 = self.validate(self.evaluated)
                    self._keep_best(record)
                self.records.append(record)
                self._save()
                bar.set_postfix(loss=f"{record.loss:.3f}", top1=f"{record.train_top1:.3f}")
                log.info(_sentence(record, self.config.epochs))
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        return Trained(self.records, self.best)

    def _epoch(self, epoch: int, bar: tqdm) -> EpochRecord:
        self.order.epoch = self.data.epoch = epoch
        torch.manual_seed(_mix(self.config.seed, epoch, self.accelerator.process_index))
        self.wrapped.train()
        begin = time.perf_counter()
        losses: list[Tensor] = []  # kept on the device, so that the step never waits for them
        hits = torch.zeros((), device=self.accelerator.device)
        known: list[float] = []
        batches = _Timed(self.loader)
        for part, (frames, flow, labels) in enumerate(batches):
            self._set_rate(epoch, part)
            with self.accelerator.accumulate(self.wrapped):
                logits = self.wrapped(normalise(frames), flow.float())
                loss = functional.cross_entropy(
                    logits, labels, label_smoothing=self.loop.label_smoothing
                )
                self.accelerator.backward(loss)
                if self.loop.clip_norm and self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.loop.clip_norm)
                self.optimiser.step()
                self.optimiser.zero_grad()
            if self.average and self.accelerator.sync_gradients:
                self.average.update_parameters(self.model)
            losses.append(loss.detach())
            hits += (logits.detach().argmax(1) == labels).sum()
            bar.update(self.loader.total_batch_size)
            if (part + 1) % self.look_every == 0:
                known += self._look(losses, epoch, len(known))
                losses = []
        known += self._look(losses, epoch, len(known))
        hits = self.accelerator.reduce(hits, "sum")
        seconds = time.perf_counter() - begin
        return EpochRecord(
            epoch=epoch,
            loss=float(np.mean(known)),
            train_top1=float(hits) / len(self.order),
            learning_rate=self.optimiser.param_groups[0]["lr"],
            seconds=seconds,
            clips_per_second=len(self.order) / seconds,
            wait_share=batches.waited / seconds,
        )

    def _set_rate(self, epoch: int, part: int) -> None:
        rate = self.config.rate * schedule_factor(self.config.schedule, epoch, self.config.epochs)
        if epoch < self.loop.warmup_epochs:
            steps = len(self.order) // self.config.batch_size
            done = epoch * steps + part // self.loop.accumulation + 1
            rate *= done / (steps * self.loop.warmup_epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _look(self, losses: list[Tensor], epoch: int, before: int) -> list[float]:
        """Bring losses to the CPU, and stop if one of them is not as losses are."""
        if not losses:
            return []
        found = self.accelerator.reduce(torch.stack(losses), "mean").tolist()
        for number, loss in enumerate(found, before):
            if not loss < LARGEST_LOSS:  # also NaN
                raise TrainingError(self._complaint(loss, epoch, number))
        return found

    def _complaint(self, loss: float, epoch: int, part: int) -> str:
        size = self.config.batch_size // self.loop.accumulation
        batch = list(self.order)[part * size : (part + 1) * size]
        names = ", ".join(self.data.samples[index].path.name for index in batch)
        good = "none"
        if self.folder and self.records:
            good = f"{self.folder / STATE}, after epoch {len(self.records)}"
        rate = self.optimiser.param_groups[0]["lr"]
        return (
            f"loss is {loss:g} in epoch {epoch + 1}, step {part // self.loop.accumulation + 1}, at "
            f"learning rate {rate:g}; lower it. Last good checkpoint: {good}. The batch: {names}"
        )

    def _keep_best(self, record: EpochRecord) -> None:
        """Keep the weights if no earlier epoch was as good."""
        if record.validation_top1 > max((r.validation_top1 for r in self.records), default=-1.0):
            weights = self.evaluated.state_dict()
            self.best = {name: value.detach().clone() for name, value in weights.items()}

    def _save(self) -> None:
        if not self.folder or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = TrainingState(
            config=self.config,
            records=[asdict(record) for record in self.records],
            scaler=scaler.state_dict() if scaler else {},
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict()["state"],
            average=self.average.state_dict() if self.average else {},
            best=self.best or {},
        )
        save_state(self.folder / STATE, state)
        self._write_epochs()

    def _write_epochs(self) -> None:
        with complete(self.folder / EPOCHS) as unfinished:
            lines = [json.dumps(asdict(record)) + "\n" for record in self.records]
            unfinished.write_text("".join(lines))

    def _go_on(self) -> None:
        """Take up what an interrupted run left, if there is something."""
        if not self.folder or not (self.folder / STATE).is_file():
            return
        state = load_state(self.folder / STATE, self.config)
        self.records = [EpochRecord(**record) for record in state.records]
        self.model.load_state_dict(state.model)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state.optimiser, "param_groups": groups})
        if self.average:
            self.average.load_state_dict(state.average)
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        device = self.accelerator.device
        self.best = {name: value.to(device) for name, value in state.best.items()} or None
        if self.accelerator.is_main_process:
            self._write_epochs()
        log.info("goes on after epoch %d/%d", len(self.records), self.config.epochs)


class _Timed:
    """Counts the seconds in which an iteration waits for its next item."""

    def __init__(self, items: Iterable[Any]):
        self.items, self.waited = items, 0.0

    def __iter__(self) -> Iterator[Any]:
        iterator, end = iter(self.items), object()
        while True:
            begin = time.perf_counter()
            item = next(iterator, end)
            self.waited += time.perf_counter() - begin
            if item is end:
                return
            yield item


def _mix(*numbers: int) -> int:
    """Make one seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _sentence(record: EpochRecord, epochs: int) -> str:
    validation = ""
    if record.validation_top1 is not None:
        validation = f" validation top-1 {record.validation_top1:.3f}"
    return (
        f"epoch {record.epoch + 1}/{epochs} loss {record.loss:.4f} "
        f"train top-1 {record.train_top1:.3f}{validation} {record.seconds:.1f} s, "
        f"{record.clips_per_second:.1f} clips/s, waiting {100 * record.wait_share:.0f} %"
    )
