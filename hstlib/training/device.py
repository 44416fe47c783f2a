"""Device, processes, precision and determinism of a training run."""

import os

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState

from hstlib.config import LoopConfig


def seed_torch(seed: int, deterministic: bool = True) -> None:
    """Seed torch and choose its algorithms, see :func:`set_deterministic`."""
    torch.manual_seed(seed)
    set_deterministic(deterministic)


def set_deterministic(deterministic: bool) -> None:
    """Use deterministic algorithms where they exist, or else the fastest ones."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


def make_accelerator(config: LoopConfig) -> Accelerator:
    """Set up device, processes and precision.

    Args:
        config: Device, precision and gradient accumulation. The number of processes is the one of
            ``accelerate launch``, or 1.

    Raises:
        ValueError: If the device is missing or cannot compute in the precision.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda': no GPU can be used here; choose 'auto' or 'cpu'")
    torch.backends.cuda.matmul.allow_tf32 = True  # as torch's convolutions do by default
    # Accelerate keeps the settings of the first Accelerator of a process for all later ones.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        gradient_accumulation_steps=config.accumulation_steps,
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=True),
    )


def combine_seeds(*seeds: int) -> int:
    """Combine several seeds into one."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])
