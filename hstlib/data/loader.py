"""Training clips as a map-style torch data set."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hstlib.config import AugmentConfig
from hstlib.data.augment import augment
from hstlib.data.clips import normalise
from hstlib.data.datasets import Sample
from hstlib.data.store import ClipStore


class VideoDataset(Dataset):
    """Training clips, their flow and labels, read from a clip store.

    Random numbers depend only on (seed, epoch, index), so a resumed run, or one with another number
    of loader processes, gets the same clips.

    Args:
        samples: Videos to read. A sample with ``clip_index`` set always gives that clip; the others
            give a random clip of the video.
        store: Clip store that holds every sample.
        seed: Seed of the random clips and the augmentation.
        augmentation: Random changes of the clips; None: no changes.

    Attributes:
        epoch: Number of the current epoch; the training loop sets it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: ClipStore,
        seed: int = 0,
        augmentation: AugmentConfig | None = None,
    ):
        self.samples, self.store = tuple(samples), store
        self.seed, self.epoch = seed, 0
        self.augmentation = augmentation or AugmentConfig()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return one clip of a video.

        Returns:
            Frames, uint8, shape (T, H, W, 3); flow in pixels per frame, float16, shape
            (2, T, H, W); and the label.

        Raises:
            VideoError: If the video is not in the store or could not be decoded.
        """
        sample = self.samples[index]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        clip_index = int(rng.integers(self.store.clips_per_video))  # always drawn, as in augment
        if sample.clip_index is not None:
            clip_index = sample.clip_index
        frames, flow = self.store.read(sample.path, clip_index)
        frames, flow = augment(frames, flow, self.augmentation, rng)
        contiguous = np.ascontiguousarray(frames), np.ascontiguousarray(flow)
        return *map(torch.from_numpy, contiguous), sample.label

    @staticmethod
    def model_inputs(frames: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Convert a batch to the inputs of a model.

        Args:
            frames: RGB frames, uint8, shape (B, T, H, W, 3).
            flow: Optical flow in pixels per frame, float16, shape (B, 2, T, H, W).

        Returns:
            Clips, float32, shape (B, 3, T, H, W), and flow, float32, shape (B, 2, T, H, W).
        """
        return normalise(frames), flow.float()

    def describe(self, index: int) -> str:
        """Return the file name of a sample, for error messages."""
        return self.samples[index].path.name
