"""How the training loop reads its samples: their interface, their order, the time spent waiting."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from hstlib.config import LoopConfig


class TrainingData(Protocol):
    """Map-style data set of torch that :func:`hstlib.training.loop.train` can read.

    Attributes:
        epoch: Number of the current epoch; the loop sets it before it reads a sample of the epoch.
    """

    epoch: int

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the items of one sample as tensors or numbers; the last item is the label."""

    def model_inputs(self, *items: Tensor) -> tuple[Tensor, ...]:
        """Convert a batch to the arguments of the model.

        Args:
            *items: Collated items of the samples, without the labels, on the training device.
        """

    def describe(self, index: int) -> str:
        """Return a name of the sample for error messages."""


class EpochOrder(Sampler[int]):
    """Sampler that returns every sample once per epoch, in an order set by (seed, epoch) alone.

    A last incomplete batch is dropped.

    Args:
        count: Number of samples.
        batch_size: Samples per step, over all processes.
        seed: Seed of the order.

    Attributes:
        epoch: Number of the epoch.
        done: Number of samples at the beginning of the epoch to leave out: they are trained on.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.seed, self.epoch, self.done = count, seed, 0, 0
        self.length = count - count % batch_size

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.all()[self.done :])

    def all(self) -> list[int]:
        """Return the samples of the whole epoch."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return order[: self.length].tolist()


class TimedIterable:
    """Iterable that adds the seconds spent waiting for its next item to ``waited``."""

    def __init__(self, items: Iterable[Any], waited: float = 0.0):
        self.items, self.waited = items, waited

    def __iter__(self) -> Iterator[Any]:
        iterator, end = iter(self.items), object()
        while True:
            begin = time.perf_counter()
            item = next(iterator, end)
            self.waited += time.perf_counter() - begin
            if item is end:
                return
            yield item


def check_batch_size(config: LoopConfig, num_samples: int, num_processes: int) -> None:
    """Raise ValueError if samples do not fill a batch, or a batch cannot be divided."""
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
