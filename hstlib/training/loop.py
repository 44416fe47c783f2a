"""The training loop. It knows neither models nor data sets."""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from hstlib.config import LoopConfig
from hstlib.files import complete
from hstlib.training.batches import EpochOrder, TimedIterable, TrainingData
from hstlib.training.device import make_accelerator
from hstlib.training.state import STATE, TrainingState, load_state, save_state

log = logging.getLogger("hstlib")

EPOCHS = "epochs.jsonl"
MAX_LOSS = 1000.0
"""Loss above which training counts as diverged; uniform guessing gives log(num_classes)."""
LOSS_CHECK_INTERVAL = 50
"""Steps between two checks of the loss on a GPU, where each check forces a synchronisation."""


class TrainingError(RuntimeError):
    """Training failed; the message names the step and the samples of its batch."""


@dataclass
class EpochRecord:
    """Measurements of one epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        loss: Mean cross-entropy over the training samples.
        train_top1: Training accuracy, a fraction.
        learning_rate: Learning rate at the end of the epoch.
        seconds: Duration without validation.
        clips_per_second: Training samples per second, over all processes.
        wait_share: Fraction of the time in which the loop waited for the loader.
        validation_top1: Validation accuracy, a fraction; None without validation.
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
class TrainingResult:
    """Result of a training run.

    Attributes:
        records: One per epoch.
        best: Weights of the epoch with the best validation accuracy; None without validation.
    """

    records: list[EpochRecord]
    best: dict[str, Tensor] | None


def learning_rate_factor(schedule: str, epoch: int, epochs: int) -> float:
    """Return the factor that a schedule applies to the learning rate in an epoch."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def train(
    model: nn.Module,
    data: TrainingData,
    config: LoopConfig,
    accelerator: Accelerator | None = None,
    folder: Path | None = None,
    validate: Callable[[nn.Module], float] | None = None,
) -> TrainingResult:
    """Train a model with Adam on cross-entropy.

    Paper: section 4, "trained end-to-end ... with an Adam optimizer".

    Args:
        model: Called with the tensors of ``data.model_inputs``; returns logits (B, classes). It is
            trained in place and moved to the device. With ``ema_decay``, it holds the averaged
            weights at the end.
        data: Training samples.
        config: Settings of the loop. Settings that a subclass adds do not affect the loop; they are
            stored with the state, and a resumed run must have the same.
        accelerator: Result of :func:`make_accelerator`; None makes one from ``config``.
        folder: Folder for ``epochs.jsonl``, one line per epoch, and ``state.safetensors``. If the
            state exists, training resumes from it, on the CPU to the same weights bit for bit.
        validate: Returns the score of the model after an epoch; higher is better.

    Raises:
        TrainingError: If the loss is not finite or exceeds ``MAX_LOSS``.
        ValueError: If there are fewer samples than a batch, a batch cannot be divided among the
            processes, or the state belongs to other settings.
    """
    return _Training(model, data, config, accelerator, folder, validate).run()


class _Training:
    """A model in training, with its optimiser, its batches and the epochs so far."""

    def __init__(self, model, data, config, accelerator, folder, validate):
        self.data, self.config, self.folder, self.validate = data, config, folder, validate
        self.accelerator = accelerator or make_accelerator(config)
        _check_batch_size(config, len(data), self.accelerator.num_processes)
        on_gpu = self.accelerator.device.type == "cuda"
        self.check_interval = LOSS_CHECK_INTERVAL * config.accumulation_steps if on_gpu else 1
        self.order = EpochOrder(len(data), config.batch_size, config.seed)
        self.model = model.to(self.accelerator.device)
        if on_gpu and self.accelerator.num_processes > 1:  # statistics over the whole batch
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimiser = torch.optim.Adam(model.parameters(), config.learning_rate, fused=on_gpu or None)
        loader = DataLoader(
            data,
            config.batch_size // config.accumulation_steps,
            sampler=self.order,
            num_workers=config.num_workers,
            pin_memory=on_gpu,
        )
        self.average = _moving_average(model, config.ema_decay)
        self.wrapped, self.optimiser, self.loader = self.accelerator.prepare(
            torch.compile(model) if config.compile else model, optimiser, loader
        )
        self.records: list[EpochRecord] = []
        self.best: dict[str, Tensor] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The model to evaluate: the one with averaged weights, if there is one."""
        return self.average.module if self.average else self.model

    def run(self) -> TrainingResult:
        if self.folder and (self.folder / STATE).is_file():
            self._resume(self.folder / STATE)
        with self._progress_bar() as bar:
            for epoch in range(len(self.records), self.config.epochs):
                record = self._train_epoch(epoch, bar)
                if self.validate:
                    record.validation_top1 = self.validate(self.evaluated)
                    self._keep_best(record)
                self.records.append(record)
                if self.folder and self.accelerator.is_main_process:
                    self._save(self.folder)
                bar.set_postfix(loss=f"{record.loss:.3f}", top1=f"{record.train_top1:.3f}")
                log.info(_format_record(record, self.config.epochs))
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        return TrainingResult(self.records, self.best)

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.epochs * len(self.order),
            initial=len(self.records) * len(self.order),
            desc="train",
            unit="clip",
            disable=None if self.accelerator.is_main_process else True,
        )

    def _train_epoch(self, epoch: int, bar: tqdm) -> EpochRecord:
        self.order.epoch = self.data.epoch = epoch
        torch.manual_seed(_combine_seeds(self.config.seed, epoch, self.accelerator.process_index))
        self.wrapped.train()
        begin = time.perf_counter()
        unchecked: list[Tensor] = []  # kept on the device, so that no step waits for them
        losses: list[float] = []
        correct = torch.zeros((), device=self.accelerator.device)
        batches = TimedIterable(self.loader)
        for part, (*items, labels) in enumerate(batches):
            self._set_learning_rate(epoch, part)
            loss, logits = self._step(items, labels)
            unchecked.append(loss)
            correct += (logits.argmax(1) == labels).sum()
            bar.update(self.loader.total_batch_size)
            if (part + 1) % self.check_interval == 0:
                losses += self._check_losses(unchecked, epoch, len(losses))
                unchecked = []
        losses += self._check_losses(unchecked, epoch, len(losses))
        correct = self.accelerator.reduce(correct, "sum")
        seconds = time.perf_counter() - begin
        return EpochRecord(
            epoch=epoch,
            loss=float(np.mean(losses)),
            train_top1=float(correct) / len(self.order),
            learning_rate=self.optimiser.param_groups[0]["lr"],
            seconds=seconds,
            clips_per_second=len(self.order) / seconds,
            wait_share=batches.waited / seconds,
        )

    def _step(self, items: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Train on one part of a batch, and return loss and logits, detached."""
        accelerator, config = self.accelerator, self.config
        with accelerator.accumulate(self.wrapped):
            logits = self.wrapped(*self.data.model_inputs(*items))
            loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            accelerator.backward(loss)
            if config.max_grad_norm and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.wrapped.parameters(), config.max_grad_norm)
            self.optimiser.step()
            self.optimiser.zero_grad()
        if self.average and accelerator.sync_gradients:
            self.average.update_parameters(self.model)
        return loss.detach(), logits.detach()

    def _set_learning_rate(self, epoch: int, part: int) -> None:
        config = self.config
        rate = config.learning_rate * learning_rate_factor(config.schedule, epoch, config.epochs)
        if epoch < config.warmup_epochs:
            steps = len(self.order) // config.batch_size
            done = epoch * steps + part // config.accumulation_steps + 1
            rate *= done / (steps * config.warmup_epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _check_losses(self, losses: list[Tensor], epoch: int, first: int) -> list[float]:
        """Copy losses to the CPU; raise TrainingError if one is not finite or has diverged.

        Args:
            losses: Scalars on the device, one per part of a batch.
            epoch: Number of the epoch.
            first: Number of the first loss within the epoch.
        """
        if not losses:
            return []
        values = self.accelerator.reduce(torch.stack(losses), "mean").tolist()
        for part, loss in enumerate(values, first):
            if not loss < MAX_LOSS:  # also true for NaN
                raise TrainingError(self._describe_divergence(loss, epoch, part))
        return values

    def _describe_divergence(self, loss: float, epoch: int, part: int) -> str:
        parts = self.config.accumulation_steps
        size = self.config.batch_size // parts
        batch = list(self.order)[part * size : (part + 1) * size]
        names = ", ".join(map(self.data.describe, batch))
        checkpoint = "none"
        if self.folder and self.records:
            checkpoint = f"{self.folder / STATE}, after epoch {len(self.records)}"
        rate = self.optimiser.param_groups[0]["lr"]
        return (
            f"loss is {loss:g} in epoch {epoch + 1}, step {part // parts + 1}, at learning rate "
            f"{rate:g}; lower it. Last good checkpoint: {checkpoint}. The batch: {names}"
        )

    def _keep_best(self, record: EpochRecord) -> None:
        """Keep a copy of the weights if this epoch scores higher than all before it."""
        if record.validation_top1 > max((r.validation_top1 for r in self.records), default=-1.0):
            weights = self.evaluated.state_dict()
            self.best = {name: value.detach().clone() for name, value in weights.items()}

    def _save(self, folder: Path) -> None:
        scaler = self.accelerator.scaler
        state = TrainingState(
            settings=self.config.model_dump(),
            records=[asdict(record) for record in self.records],
            scaler=scaler.state_dict() if scaler else {},
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict()["state"],
            average=self.average.state_dict() if self.average else {},
            best=self.best or {},
        )
        save_state(folder / STATE, state)
        _write_epochs(folder, self.records)

    def _resume(self, path: Path) -> None:
        """Load the state of an interrupted run."""
        state = load_state(path, self.config)
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
            _write_epochs(path.parent, self.records)
        log.info("resuming after epoch %d/%d", len(self.records), self.config.epochs)


def _check_batch_size(config: LoopConfig, num_samples: int, num_processes: int) -> None:
    if num_samples < config.batch_size:
        raise ValueError(
            f"{num_samples} training videos do not fill a batch of {config.batch_size}; lower "
            "batch_size"
        )
    if config.batch_size % (config.accumulation_steps * num_processes):
        raise ValueError(
            f"batch_size {config.batch_size} cannot be divided into {config.accumulation_steps} "
            f"accumulation_steps for each of {num_processes} processes"
        )


def _moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of the model for the exponential moving average; None if decay is 0."""
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _write_epochs(folder: Path, records: Sequence[EpochRecord]) -> None:
    with complete(folder / EPOCHS) as unfinished:
        unfinished.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


def _combine_seeds(*seeds: int) -> int:
    """Combine several seeds into one."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


def _format_record(record: EpochRecord, epochs: int) -> str:
    validation = ""
    if record.validation_top1 is not None:
        validation = f" validation top-1 {record.validation_top1:.3f}"
    return (
        f"epoch {record.epoch + 1}/{epochs} loss {record.loss:.4f} "
        f"train top-1 {record.train_top1:.3f}{validation} {record.seconds:.1f} s, "
        f"{record.clips_per_second:.1f} clips/s, waiting {100 * record.wait_share:.0f} %"
    )
