"""Cut a video into clips: choice of frames, optical flow, normalisation.

PyTorch takes more time and memory to import than all else that cutting needs, so only
:func:`normalise` imports it: the processes that prepare a store have none of it.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from hstlib.config import ClipConfig
from hstlib.data.flow import optical_flow
from hstlib.data.video import read_video

if TYPE_CHECKING:
    from torch import Tensor, device

# Mean and standard deviation of RGB over Kinetics-400, the usual values for video models.
RGB_MEAN = (0.43216, 0.394666, 0.37645)
RGB_STD = (0.22803, 0.22145, 0.216989)


class Clips(NamedTuple):
    """The clips of one video.

    Attributes:
        frames: RGB frames, uint8, shape (num_clips, T, S, S, 3).
        flow: Optical flow in pixels per frame, float16, shape (num_clips, 2, T, S, S).
        sources: Number of each frame in the file, then of the frame after the clip that its last
            flow field is computed from, or -1; int32, shape (num_clips, T + 1).
        times: Times of these frames after the first of the file, in seconds, or -1; float64,
            shape (num_clips, T + 1).
    """

    frames: np.ndarray
    flow: np.ndarray
    sources: np.ndarray
    times: np.ndarray

    @property
    def repeats(self) -> int:
        """Largest number of frames of a clip that repeat another of its frames."""
        clips = self.sources[:, :-1]
        return max(clips.shape[1] - len(np.unique(clip)) for clip in clips)


def clip_starts(length: int, num_frames: int, clips_per_video: int) -> list[int]:
    """Return the first frame of each clip, evenly spaced over the video; a single clip is central.

    >>> clip_starts(length=48, num_frames=16, clips_per_video=1)
    [16]
    >>> clip_starts(length=48, num_frames=16, clips_per_video=3)
    [0, 16, 32]
    >>> clip_starts(length=10, num_frames=16, clips_per_video=2)
    [0, 0]
    """
    free = max(0, length - num_frames)
    if clips_per_video == 1:
        return [free // 2]
    return [round(i * free / (clips_per_video - 1)) for i in range(clips_per_video)]


def clip_indices(length: int, start: int, config: ClipConfig) -> np.ndarray:
    """Return the indices of a clip's frames in the resampled video, and of the frame after them.

    Args:
        length: Number of frames in the video.
        start: First frame of the clip; ignored by ``uniform`` sampling.
        config: Number of frames and sampling.

    Returns:
        int64, shape (num_frames + 1,): the clip, then the next frame, which the last flow field is
        computed from; -1 if the video has no next frame. The last frame of a short video is
        repeated.
    """
    count = config.num_frames
    if config.sampling == "uniform":
        return np.append(np.linspace(0, length - 1, count).round().astype(np.int64), -1)
    indices = start + np.arange(count + 1)
    following = indices[-1] if indices[-1] < length else -1
    return np.append(np.minimum(indices[:-1], length - 1), following)


def cut_clips(path: Path, config: ClipConfig, clip_index: int | None = None) -> Clips:
    """Cut the clips of one video file and compute their flow.

    Args:
        path: Video file.
        config: Number and size of the clips, and the flow method.
        clip_index: Index of the only clip to cut; None cuts all.

    Returns:
        The clips, exactly as a clip store with these settings holds them.

    Raises:
        VideoError: If the file cannot be used.
        ValueError: If ``clip_index`` is out of range.
    """
    num_clips = config.clips_per_video
    if clip_index is not None and not 0 <= clip_index < num_clips:
        raise ValueError(
            f"{path}: clip_index is {clip_index}, but clips_per_video is {num_clips}; use 0 to "
            f"{num_clips - 1}"
        )

    def choose(length: int) -> np.ndarray:
        indices = _clip_indices(length, config, clip_index)
        return np.unique(indices[indices >= 0])

    video = read_video(path, size=config.size, fps=config.fps, fit=config.fit, choose=choose)
    indices = _clip_indices(video.length, config, clip_index)  # (num_clips, T + 1)
    rows = np.searchsorted(choose(video.length), indices)
    exists = indices >= 0
    clips = video.frames[rows[:, :-1]]  # (num_clips, T, S, S, 3)
    following = [
        video.frames[row[-1]] if row_exists[-1] else None
        for row, row_exists in zip(rows, exists, strict=True)
    ]
    flow = np.empty((len(clips), 2, *clips.shape[1:4]), np.float16)
    for pair, field in zip(zip(clips, following, strict=True), flow, strict=True):
        _round_to(field, optical_flow(*pair, config.flow))
    return Clips(
        clips,
        flow,
        np.where(exists, video.sources[rows], -1).astype(np.int32),
        np.where(exists, video.times[rows], -1),
    )


def _round_to(out: np.ndarray, values: np.ndarray) -> None:
    """Round float32 to the nearest float16, into ``out``, as ``astype`` does."""
    if cv2.__version__ < "5":  # it cannot
        out[:] = values
    else:  # 40 times as fast as numpy
        rows = (-1, values.shape[-1])
        cv2.subtract(values.reshape(rows), 0.0, out.reshape(rows), dtype=cv2.CV_16F)


def _clip_indices(length: int, config: ClipConfig, clip_index: int | None) -> np.ndarray:
    """Return :func:`clip_indices` of all clips of a video, or of one: (num_clips, T + 1)."""
    starts = clip_starts(length, config.num_frames, config.clips_per_video)
    if clip_index is not None:
        starts = [starts[clip_index]]
    return np.stack([clip_indices(length, start, config) for start in starts])


def normalise(frames: "Tensor") -> "Tensor":
    """Convert decoded frames to the clips that the models expect.

    Args:
        frames: RGB frames, uint8, shape (..., T, H, W, 3).

    Returns:
        float32, shape (..., 3, T, H, W), with mean 0 and variance 1 over Kinetics-400.

    Raises:
        ValueError: If the frames are not uint8 or not RGB.
    """
    import torch

    if frames.dtype != torch.uint8 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames have shape {tuple(frames.shape)} and type {frames.dtype}, "
            "expected uint8 (..., T, H, W, 3)"
        )
    mean, std = _rgb_statistics(frames.device)
    return ((frames / 255 - mean) / std).movedim(-1, -4)  # (..., T, H, W, 3) -> (..., 3, T, H, W)


@cache
def _rgb_statistics(device: "device") -> "tuple[Tensor, Tensor]":
    """Copy mean and standard deviation to a device once: a copy per step would stall a GPU."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(RGB_MEAN, device=device), torch.tensor(RGB_STD, device=device)
