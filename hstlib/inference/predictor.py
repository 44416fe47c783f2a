"""Classify videos with a trained model: preprocessing, batches and class names in one object."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from hstlib.config import TrainConfig
from hstlib.data.augment import evaluation_views
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.container import VideoError
from hstlib.data.layouts import VIDEO_SUFFIXES, find_videos
from hstlib.inference.source import shown
from hstlib.inference.stream import read_windows
from hstlib.training.checkpoint import load_checkpoint
from hstlib.training.evaluate import BATCH_SIZE, score_clips
from hstlib.training.sealed import NotFiniteError

AnyPath = str | Path


class Guess(NamedTuple):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class VideoPrediction:
    """Classes of one video.

    Attributes:
        video: The video file.
        top: The most probable classes, the best first; empty if the file cannot be used.
        error: Why the file cannot be used; None if it can.
    """

    video: Path
    top: tuple[Guess, ...]
    error: VideoError | None = None

    @property
    def best(self) -> Guess:
        """The most probable class.

        Raises:
            VideoError: If the file cannot be used.
        """
        if self.error:
            raise self.error
        return self.top[0]

    def as_dict(self) -> dict:
        """Return the prediction as JSON holds it."""
        answer = {"top": _rounded(self.top)}
        if self.error:
            answer = {"error": self.error.kind, "reason": self.error.reason}
        return {"video": str(self.video), **answer}


@dataclass(frozen=True)
class WindowPrediction:
    """Classes of one window of a stream.

    Attributes:
        start: Start of the window, in seconds after the first frame of the source.
        end: End of the window, in seconds.
        top: The most probable classes, the best first.
        compute: Time for optical flow and model, in seconds.
        delay: Time from reading the last frame of the window to this prediction, in seconds; None
            if the source is a recording, which waits for its reader.
        skipped: Number of windows that were left out before this one to keep the delay short.
    """

    start: float
    end: float
    top: tuple[Guess, ...]
    compute: float
    delay: float | None
    skipped: int

    def as_dict(self) -> dict:
        """Return the prediction as JSON holds it."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "top": _rounded(self.top),
            "compute": round(self.compute, 4),
            "delay": None if self.delay is None else round(self.delay, 4),
            "skipped": self.skipped,
        }


def _rounded(top: Iterable[Guess]) -> list[tuple[str, float]]:
    return [(guess.label, round(guess.probability, 6)) for guess in top]


class Predictor:
    """A trained model with its preprocessing and its class names.

    Call it with a video file. Use :meth:`each` for several files or folders.

    Args:
        model: The model; it is put into evaluation mode.
        config: Settings that the model was trained with; they determine the preprocessing.
        classes: Class names, in the order of the model's outputs.

    Attributes:
        model: The model.
        config: The settings.
        classes: The class names.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, classes: Iterable[str]):
        self.model, self.config, self.classes = model.eval(), config, tuple(classes)

    def __call__(self, video: AnyPath, top: int = 5) -> VideoPrediction:
        """Classify one video file.

        Args:
            video: The video file.
            top: Number of classes to return.

        Raises:
            VideoError: If the file cannot be used.
            NotFiniteError: If the scores are not finite: the model has diverged.
        """
        (prediction,) = self._score([self._read(Path(video).expanduser())], top)
        if prediction.error:
            raise prediction.error
        return prediction

    def each(self, videos: AnyPath | Iterable[AnyPath], top: int = 5) -> Iterator[VideoPrediction]:
        """Classify several video files, in batches.

        Args:
            videos: Video files and folders, or one of them. A folder stands for all videos below
                it, in sorted order.
            top: Number of classes to return for each video.

        Yields:
            One prediction per video, in order. A file that cannot be used has an ``error``.

        Raises:
            ValueError: If a folder holds no videos.
            NotFiniteError: If the scores are not finite: the model has diverged.
        """
        batch: list[_Read] = []
        for path in list_videos(videos):
            batch.append(self._read(path))
            if sum(len(read.clips.frames) for read in batch if read.clips) >= BATCH_SIZE:
                yield from self._score(batch, top)
                batch = []
        yield from self._score(batch, top)

    def probabilities(self, frames: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """Return class probabilities of clips, averaged over the crops of each.

        Args:
            frames: RGB frames, uint8, shape (num_clips, T, S, S, 3).
            flow: Optical flow in pixels per frame, float16, shape (num_clips, 2, T, S, S).

        Returns:
            float32, shape (num_clips, num_classes).
        """
        config, device = self.config, next(self.model.parameters()).device
        views = evaluation_views(frames, flow, config.crop_size, config.num_crops)
        parts = zip(*(torch.from_numpy(view).split(BATCH_SIZE) for view in views), strict=True)
        scores = torch.cat(
            [score_clips(self.model, *(p.to(device) for p in part)) for part in parts]
        )
        return scores.unflatten(0, (-1, len(frames))).mean(0).numpy()

    def watch(
        self, source: AnyPath | int, every: float = 0.5, top: int = 5
    ) -> Iterator[WindowPrediction]:
        """Classify a camera, a network stream or a file with a sliding window.

        Late windows of a live source are left out, so the delay does not grow; see
        :func:`hstlib.inference.stream.read_windows`.

        Args:
            source: Number of a camera, an address such as ``rtsp://...``, or a video file.
            every: Time from one window to the next, in seconds.
            top: Number of classes to return for each window.

        Yields:
            One prediction per window, as long as the source sends.

        Raises:
            ValueError: If ``every`` is not positive, or the model needs whole videos.
            SourceError: If the source cannot be opened, or stops sending.
            VideoError: If the file cannot be used.
            NotFiniteError: If the scores are not finite: the model has diverged.
        """
        for window in read_windows(str(source), self.config.clip, every):
            (scores,) = self.probabilities(window.frames[None], window.flow[None])
            ready = monotonic()
            yield WindowPrediction(
                start=window.start,
                end=window.end,
                top=self._top(scores, top, f"{shown(str(source))} at {window.start:.2f} s"),
                compute=ready - window.ready,
                delay=None if window.read is None else ready - window.read,
                skipped=window.skipped,
            )

    def _top(self, probabilities: np.ndarray, top: int, source: object) -> tuple[Guess, ...]:
        """Return the most probable classes, the best first.

        Args:
            probabilities: Probability of every class, shape (num_classes,).
            top: Number of classes.
            source: What was classified, for the error message.

        Raises:
            NotFiniteError: If a probability is not finite: the model has diverged.
            ValueError: If the number of classes is not positive.
        """
        if top < 1:
            raise ValueError(f"top is {top}; use 1 or more")
        if not np.isfinite(probabilities).all():
            raise NotFiniteError(f"the model's scores of {source} are not finite: it has diverged")
        order = np.argsort(-probabilities, kind="stable")[:top]
        return tuple(Guess(self.classes[i], float(probabilities[i])) for i in order)

    def _read(self, video: Path) -> "_Read":
        try:
            return _Read(video, cut_clips(video, self.config.clip), None)
        except VideoError as error:
            return _Read(video, None, error)

    def _score(self, batch: "list[_Read]", top: int) -> Iterator[VideoPrediction]:
        """Yield the predictions of a batch of videos, whose clips are scored together."""
        usable = [read.clips for read in batch if read.clips]
        if usable:
            frames, flow, *_ = (np.concatenate(arrays) for arrays in zip(*usable, strict=True))
            scores = self.probabilities(frames, flow)
        first = 0
        for video, clips, error in batch:
            if clips is None:
                yield VideoPrediction(video, (), error)
                continue
            last = first + len(clips.frames)
            yield VideoPrediction(video, self._top(scores[first:last].mean(0), top, video))
            first = last


class _Read(NamedTuple):
    """A video file that was read: its clips, or why it cannot be used."""

    video: Path
    clips: Clips | None
    error: VideoError | None


def load_predictor(checkpoint: AnyPath, device: str = "auto") -> Predictor:
    """Load a predictor from a checkpoint.

    Args:
        checkpoint: A .safetensors file written by training.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.

    Raises:
        ValueError: If the file is no checkpoint, was damaged, or there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has_gpu):
        raise ValueError(f"device {device!r} cannot be used here; choose 'auto' or 'cpu'")
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    return Predictor(*load_checkpoint(Path(checkpoint).expanduser(), device))


def list_videos(videos: AnyPath | Iterable[AnyPath]) -> list[Path]:
    """Return video files, with all videos below a folder in place of the folder.

    Raises:
        ValueError: If a folder holds no videos.
    """
    files: list[Path] = []
    for video in [videos] if isinstance(videos, AnyPath) else videos:
        path = Path(video).expanduser()
        found = find_videos(path) if path.is_dir() else [path]
        if not found:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise ValueError(f"{path}: holds no videos; their names end in {suffixes}")
        files += found
    return files
