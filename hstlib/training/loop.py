"""The training loop. It knows neither models nor data sets."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from hstlib.config import LoopConfig
from hstlib.training.batches import EpochOrder, TimedIterable, TrainingData, check_batch_size
from hstlib.training.device import combine_seeds, make_accelerator
from hstlib.training.epochs import EpochRecord, Progress, format_record, stops_early, write_epochs
from hstlib.training.identity import RunIdentity
from hstlib.training.interruption import NotedSignal, Stopped, leave_signals_to_main, note_signal
from hstlib.training.sealed import NotFiniteError, first_not_finite
from hstlib.training.state import (
    STATE,
    TrainingState,
    describe_state,
    has_state,
    load_state,
    replanned,
    save_state,
)
from hstlib.training.step import cross_entropy, learning_rate_factor, moving_average

log = logging.getLogger("hstlib")

MAX_LOSS = 1000.0
"""Loss above which training counts as diverged; uniform guessing gives log(num_classes)."""
SECONDS_PER_LINE = 60
"""Time between two lines in the log during an epoch."""
LOSS_CHECK_INTERVAL = 50
"""Steps between two checks of the loss on a GPU, where each check forces a synchronisation."""


class TrainingError(RuntimeError):
    """Training failed; the message names the step and the samples of its batch."""


@dataclass
class TrainingResult:
    """Result of a training run.

    Attributes:
        records: One per epoch.
        best: Weights of the epoch with the best validation accuracy; None without validation.
        replanned: Numbers of finished epochs at which ``epochs`` was changed.
    """

    records: list[EpochRecord]
    best: dict[str, Tensor] | None
    replanned: list[int]


def train(
    model: nn.Module,
    data: TrainingData,
    config: LoopConfig,
    accelerator: Accelerator | None = None,
    folder: Path | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    identity: RunIdentity | None = None,
    class_weights: Tensor | None = None,
) -> TrainingResult:
    """Train a model with Adam on cross-entropy.

    Paper: section 4, "trained end-to-end ... with an Adam optimizer".

    Args:
        model: Called with the tensors of ``data.model_inputs``; returns logits (B, classes). It is
            trained in place and moved to the device. With ``ema_decay``, it holds the averaged
            weights at the end.
        data: Training samples.
        config: Settings of the loop. Settings that a subclass adds do not affect the loop; they are
            stored with the state, and a resumed run must have the same, but for the number of
            epochs and :data:`hstlib.training.identity.SAME_RUN`.
        accelerator: Result of :func:`make_accelerator`; None makes one from ``config``.
        folder: Folder for ``epochs.jsonl``, one line per epoch, and ``state.safetensors``. If the
            state exists, training resumes from it, on the CPU to the same weights bit for bit. A
            single process that is asked to stop saves it after the current step.
        validate: Returns the score of the model after an epoch; higher is better.
        identity: Lists and contents of the data, and the weights that ``model`` has, stored with
            the state; a resumed run must have the same.
        class_weights: Weight of each class in the loss, shape (classes,); None: equal weights.

    Raises:
        TrainingError: If the loss exceeds ``MAX_LOSS``, or loss, weights or validation scores are
            not finite.
        ValueError: If there are fewer samples than a batch, a batch cannot be divided among the
            processes, or the state belongs to another run.
    """
    return _Training(
        model, data, config, accelerator, folder, validate, identity, class_weights
    ).run()


class _Training:
    """A model in training, with its optimiser, its batches and the epochs so far."""

    def __init__(self, model, data, config, accelerator, folder, validate, identity, class_weights):
        self.data, self.config, self.folder, self.validate = data, config, folder, validate
        self.identity = identity
        self.accelerator = accelerator or make_accelerator(config)
        check_batch_size(config, len(data), self.accelerator.num_processes)
        on_gpu = self.accelerator.device.type == "cuda"
        self.check_interval = LOSS_CHECK_INTERVAL * config.accumulation_steps if on_gpu else 1
        self.order = EpochOrder(len(data), config.batch_size, config.seed)
        self.model = model.to(self.accelerator.device)
        self.class_weights = class_weights
        if class_weights is not None:
            self.class_weights = class_weights.to(self.accelerator.device)
        if on_gpu and self.accelerator.num_processes > 1:  # statistics over the whole batch
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimiser = torch.optim.Adam(model.parameters(), config.learning_rate, fused=on_gpu or None)
        loader = DataLoader(
            data,
            config.batch_size // config.accumulation_steps,
            sampler=self.order,
            num_workers=config.num_workers,
            pin_memory=on_gpu,
            worker_init_fn=leave_signals_to_main,
        )
        self.average = moving_average(model, config.ema_decay)
        self.wrapped, self.optimiser, self.loader = self.accelerator.prepare(
            torch.compile(model) if config.compile else model, optimiser, loader
        )
        self.records: list[EpochRecord] = []
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.replanned: list[int] = []
        self.last_is_usable = True

    @property
    def evaluated(self) -> nn.Module:
        """The model to evaluate: the one with averaged weights, if there is one."""
        return self.average.module if self.average else self.model

    def run(self) -> TrainingResult:
        if self.folder and has_state(self.folder):
            self._resume(self.folder)
        with self._progress_bar() as bar:
            for epoch in range(len(self.records), self.config.epochs):
                if stops_early(self.records, self.config.patience):
                    log.info("%d epochs without a better validation top-1", self.config.patience)
                    break
                record = self._train_epoch(epoch, bar)
                self._check_finite(epoch)
                if self.validate:
                    record.validation_top1 = self._validate(epoch)
                    self._keep_best(record)
                self.records.append(record)
                if self.folder and self.accelerator.is_main_process:
                    self._save(self.folder)
                bar.set_postfix(loss=f"{record.loss:.3f}", top1=f"{record.train_top1:.3f}")
                log.info(format_record(record, self.config.epochs))
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        return TrainingResult(self.records, self.best, self.replanned)

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.epochs * len(self.order),
            initial=len(self.records) * len(self.order) + self.order.done,
            desc="train",
            unit="clip",
            disable=None if self.accelerator.is_main_process else True,
        )

    def _train_epoch(self, epoch: int, bar: tqdm) -> EpochRecord:
        self.order.epoch = self.data.epoch = epoch
        torch.manual_seed(combine_seeds(self.config.seed, epoch, self.accelerator.process_index))
        self.wrapped.train()
        with note_signal() as signal:
            self._take_steps(epoch, bar, signal)
            if signal.number:
                self._check_finite(epoch)
                self.progress.keep_random(self.accelerator.device)
                save_state(self.folder, self._state(), keep_last=self.last_is_usable)
                raise Stopped(signal.number)
        progress, self.progress, self.order.done = self.progress, Progress(), 0
        return progress.record(epoch, len(self.order), self.optimiser.param_groups[0]["lr"])

    def _take_steps(self, epoch: int, bar: tqdm, signal: NotedSignal) -> None:
        """Train on what is left of an epoch, up to the step in which a signal arrives."""
        progress, accelerator = self.progress, self.accelerator
        begin = time.perf_counter() - progress.seconds
        unchecked: list[Tensor] = []  # kept on the device, so that no step waits for them
        before = progress.correct if accelerator.is_main_process else 0.0
        correct = torch.tensor(before, device=accelerator.device)
        batches, logged = TimedIterable(self.loader, progress.waited), time.perf_counter()
        first = len(progress.losses)
        for part, (*items, labels) in enumerate(batches, first):
            if part == first:  # not before: a signal gets lost while loader processes start
                if signal.number:
                    raise Stopped(signal.number)
                signal.waits = self.folder is not None and accelerator.num_processes == 1
                progress.restore_random(accelerator.device)
            self._set_learning_rate(epoch, part)
            loss, logits = self._step(items, labels)
            unchecked.append(loss)
            correct += (logits.argmax(1) == labels).sum()
            bar.update(self.loader.total_batch_size)
            if time.perf_counter() - logged >= SECONDS_PER_LINE:
                logged = time.perf_counter()
                log.info("epoch %d: step %d of %d", epoch + 1, part + 1, len(self.loader))
            if (part + 1) % self.check_interval == 0:
                progress.losses += self._check_losses(unchecked, epoch, len(progress.losses))
                unchecked = []
            if signal.number and accelerator.sync_gradients:
                break
        progress.losses += self._check_losses(unchecked, epoch, len(progress.losses))
        progress.correct = float(accelerator.reduce(correct, "sum"))
        progress.seconds, progress.waited = time.perf_counter() - begin, batches.waited

    def _step(self, items: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Train on one part of a batch, and return loss and logits, detached."""
        accelerator, config = self.accelerator, self.config
        with accelerator.accumulate(self.wrapped):
            logits = self.wrapped(*self.data.model_inputs(*items))
            loss = cross_entropy(logits, labels, config.label_smoothing, self.class_weights)
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
                event = f"loss is {loss:g}"
                raise TrainingError(self._describe_divergence(event, epoch, part))
        return values

    def _check_finite(self, epoch: int) -> None:
        """Raise TrainingError if the last step left weights that are not finite."""
        if name := first_not_finite(self._state().tensors.items()):
            last = (len(self.progress.losses) or len(self.loader)) - 1
            raise TrainingError(self._describe_divergence(f"{name} is not finite", epoch, last))

    def _validate(self, epoch: int) -> float:
        try:
            return self.validate(self.evaluated)
        except NotFiniteError as error:
            raise TrainingError(f"{error}, in the validation after epoch {epoch + 1}") from error

    def _describe_divergence(self, event: str, epoch: int, part: int) -> str:
        parts = self.config.accumulation_steps
        size = self.config.batch_size // parts
        batch = self.order.all()[part * size : (part + 1) * size]
        names = ", ".join(map(self.data.describe, batch))
        checkpoint = "none"
        if self.folder:
            checkpoint = describe_state(self.folder, self.last_is_usable)
        rate = self.optimiser.param_groups[0]["lr"]
        return (
            f"{event} in epoch {epoch + 1}, step {part // parts + 1}, at learning rate "
            f"{rate:g}; lower it. Last good checkpoint: {checkpoint}. The batch: {names}"
        )

    def _keep_best(self, record: EpochRecord) -> None:
        """Keep a copy of the weights if this epoch scores higher than all before it."""
        if record.validation_top1 > max((r.validation_top1 for r in self.records), default=-1.0):
            weights = self.evaluated.state_dict()
            self.best = {name: value.detach().clone() for name, value in weights.items()}

    def _state(self) -> TrainingState:
        scaler = self.accelerator.scaler
        return TrainingState(
            settings=self.config.model_dump(),
            data=self.identity,
            records=[asdict(record) for record in self.records],
            replanned=self.replanned,
            scaler=scaler.state_dict() if scaler else {},
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict()["state"],
            average=self.average.state_dict() if self.average else {},
            best=self.best or {},
            progress=self.progress if self.progress.losses else None,
        )

    def _expected_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a state of this run has; only types and shapes matter."""
        state = self._state()
        if self.validate:
            state.best = self.evaluated.state_dict()
        for number, weights in enumerate(self.model.parameters()):
            moments = {"exp_avg": weights, "exp_avg_sq": weights}
            state.optimiser[number] = {"step": torch.zeros(()), **moments}
        return state.tensors

    def _save(self, folder: Path) -> None:
        save_state(folder, self._state(), keep_last=self.last_is_usable)
        self.last_is_usable = True
        write_epochs(folder, self.records)

    def _resume(self, folder: Path) -> None:
        """Load the state of an interrupted run, or of one that is trained longer."""
        state, path = load_state(folder, self.config, self._expected_tensors(), self.identity)
        self.last_is_usable = path.name == STATE
        self.records = [EpochRecord(**record) for record in state.records]
        self.progress = state.progress or self.progress
        self.order.done = len(self.progress.losses) * self.loader.total_batch_size
        self.model.load_state_dict(state.model)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state.optimiser, "param_groups": groups})
        if self.average:
            self.average.load_state_dict(state.average)
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        device = self.accelerator.device
        self.best = {name: value.to(device) for name, value in state.best.items()} or None
        self.replanned = replanned(state, self.config)
        if self.accelerator.is_main_process and self.records:
            write_epochs(folder, self.records)
        log.info("resuming %s", state.place)
