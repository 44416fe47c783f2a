"""One plain training loop; it knows neither the models nor the data sets."""

import logging
import math
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from hstlib.datasets import VideoDataset, normalise

log = logging.getLogger("hstlib")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and with which files."""


@dataclass
class EpochRecord:
    """What one epoch measured."""

    epoch: int
    loss: float
    train_top1: float
    learning_rate: float
    seconds: float


def seed_torch(seed: int) -> None:
    """Seed torch, and choose deterministic algorithms where there are any."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device(name: str) -> torch.device:
    """Return the named device; ``auto`` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def schedule_factor(schedule: str, step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at a step."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    data: VideoDataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    schedule: str = "constant",
    num_workers: int = 0,
    seed: int = 0,
) -> list[EpochRecord]:
    """Train a model with Adam on cross-entropy.

    Paper: section 4, "trained end-to-end ... with an Adam optimizer".

    Args:
        model: Called as ``model(clips, flow)``; trained in place, on the device it is on.
        data: Gives frames, flow and label of one clip per video.
        epochs: Passes over the data.
        batch_size: Clips per step; a last incomplete batch is left out of its epoch.
        learning_rate: Adam's step size.
        schedule: ``constant`` or ``cosine``.
        num_workers: Loader processes.
        seed: Of the order of the samples and the clip drawn from each.

    Returns:
        One record per epoch.

    Raises:
        TrainingError: If the loss is not finite.
        ValueError: If there are fewer samples than a batch.
    """
    if len(data) < batch_size:
        raise ValueError(
            f"{len(data)} training videos do not fill a batch of {batch_size}; lower batch_size"
        )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        data, batch_size, shuffle=True, drop_last=True, generator=order, num_workers=num_workers
    )
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    records = []
    bar = tqdm(total=epochs * len(loader), desc="train", unit="step", disable=None)
    for epoch in range(epochs):
        data.epoch = epoch
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedule_factor(schedule, epoch, epochs)
        record = _train_epoch(model, loader, optimiser, epoch, bar)
        records.append(record)
        bar.set_postfix(loss=f"{record.loss:.3f}", top1=f"{record.train_top1:.3f}")
        log.info(
            "epoch %d/%d loss %.4f train top-1 %.3f %.1f s",
            epoch + 1, epochs, record.loss, record.train_top1, record.seconds,
        )  # fmt: skip
    bar.close()
    return records


def _train_epoch(
    model: nn.Module, loader: DataLoader, optimiser: torch.optim.Optimizer, epoch: int, bar: tqdm
) -> EpochRecord:
    model.train()
    device = next(model.parameters()).device
    begin = time.perf_counter()
    total, hits, seen = 0.0, 0, 0
    for step, (frames, flow, labels) in enumerate(loader):
        labels = labels.to(device)
        logits = model(normalise(frames.to(device)), flow.to(device).float())
        loss = functional.cross_entropy(logits, labels)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"loss is {loss.item()} in epoch {epoch + 1}, step {step + 1}, at learning rate "
                f"{optimiser.param_groups[0]['lr']:g}; lower it"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(labels)
        hits += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
        bar.update()
    rate = optimiser.param_groups[0]["lr"]
    return EpochRecord(epoch, total / seen, hits / seen, rate, time.perf_counter() - begin)
