"""Write a video with the maps of :mod:`hstlib.inference.explanation` drawn over its frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from hstlib.data.augment import evaluation_views
from hstlib.data.clips import Clips, cut_clips
from hstlib.data.overlay import GIF_SIDE, check_target, copy_video, draw_text, put_heat, put_text
from hstlib.data.video import VideoInfo, inspect_video
from hstlib.inference.explanation import Layer, explain_clip, layers_to_draw
from hstlib.inference.predictor import Guess, Predictor, load_predictor

WIDTH, HEIGHT = 1920, 1080  # largest picture, in pixels
PANEL = 240  # longer side that a panel has at least, if that fits, so that its title can be read
NOT_SEEN = "not seen by the model"


@dataclass(frozen=True)
class VideoMaps:
    """Explanation of the prediction for one video.

    Attributes:
        guess: The most probable class and its probability, over all clips and crops.
        sources: Number of each clip's frames in the file, shape (num_clips, T).
        layers: Maps by name; values of shape (num_clips, T, S, S), 0 to 1, for the frames of the
            clips as they were cut. Where no crop reached, they are 0.
        tops: Value that each map's 1 stands for.
    """

    guess: Guess
    sources: np.ndarray
    layers: dict[str, np.ndarray]
    tops: dict[str, float]

    def at(self, number: int) -> dict[str, np.ndarray] | None:
        """Return the maps (S, S) at a frame of the file, by name; None between the clips.

        A frame between two frames of a clip gets the map of the nearer one; where clips overlap,
        their mean.
        """
        first, last = self.sources.min(1), self.sources.max(1)
        covering = np.flatnonzero((first <= number) & (number <= last))
        if not len(covering):
            return None
        frames = np.abs(self.sources[covering] - number).argmin(1)
        return {name: values[covering, frames].mean(0) for name, values in self.layers.items()}


def explain_video(checkpoint: Path, video: Path, out: Path, force: bool = False) -> Guess:
    """Write a copy of a video with the maps of a model beside it.

    Panels: the video with the predicted class and its probability, Grad-CAM for that class, and
    for HST its own maps. Frames between the clips that the prediction was made from carry no map
    and say so. The sound is not copied.

    Args:
        checkpoint: A .safetensors file written by training.
        video: Video file.
        out: File to write; .mp4, .webm, .avi or .gif.
        force: Replace an existing file.

    Returns:
        The predicted class and its probability.

    Raises:
        ValueError: If the file exists, has another suffix, or the checkpoint cannot be used.
        VideoError: If the video cannot be used.
        OSError: If the file cannot be written.
    """
    check_target(video, out)
    if out.exists() and not force:
        raise ValueError(f"{out} exists; name another file, or replace it with --force")
    predictor = load_predictor(checkpoint)
    clips = cut_clips(video, predictor.config.clip)
    maps = explain_clips(predictor, clips)
    info = inspect_video(video)
    limit = (2 * GIF_SIDE, 2 * GIF_SIDE) if out.suffix.lower() == ".gif" else (WIDTH, HEIGHT)
    columns, size = arrange(len(maps.layers) + 1, info.width, info.height, limit)
    inside = _picture_in_square(info, clips.frames.shape[2], predictor.config.fit)
    copy_video(video, out, lambda _: size, _painter(maps, columns, inside))
    return maps.guess


def explain_clips(predictor: Predictor, clips: Clips) -> VideoMaps:
    """Explain the prediction for a video from all of its clips and crops.

    Args:
        predictor: The model, with its settings and class names.
        clips: Clips of the video, as the model's settings cut them.
    """
    config = predictor.config
    probabilities = predictor.probabilities(clips.frames, clips.flow).mean(0)
    best = int(probabilities.argmax())
    views = zip(
        *evaluation_views(clips.frames, clips.flow, config.crop_size, config.num_crops), strict=True
    )
    drawn = [layers_to_draw(explain_clip(predictor.model, *view, best)) for view in views]
    layers = {name: [layer[name] for layer in drawn] for name in drawn[0]}
    size = clips.frames.shape[2]
    pasted = {name: _paste(views, len(clips.frames), size) for name, views in layers.items()}
    tops = {name: views[0].top or float(pasted[name].max()) for name, views in layers.items()}
    return VideoMaps(
        Guess(predictor.classes[best], float(probabilities[best])),
        clips.sources[:, :-1],
        {name: values / (tops[name] or 1.0) for name, values in pasted.items()},
        tops,
    )


def _paste(views: Sequence[Layer], num_clips: int, size: int) -> np.ndarray:
    """Put the crops of all clips back in place; the mean where they overlap.

    Args:
        views: Maps (T, s, s), ordered by crop, then by clip, as ``evaluation_views`` crops them.
        num_clips: Number of clips.
        size: S, height and width of the clips.

    Returns:
        Shape (num_clips, T, S, S).
    """
    values = np.stack([view.values for view in views])  # (num_crops num_clips, T, s, s)
    crops = values.reshape(-1, num_clips, *values.shape[1:])
    margin, side = size - values.shape[-1], values.shape[-1]
    lefts = [margin // 2] if len(crops) == 1 else [0, margin // 2, margin]
    total = np.zeros((num_clips, values.shape[1], size, size), np.float32)
    count = np.zeros((size, size), np.float32)
    rows = slice(margin // 2, margin // 2 + side)
    for crop, left in zip(crops, lefts, strict=True):
        total[..., rows, left : left + side] += crop
        count[rows, left : left + side] += 1
    return total / count.clip(1)


def arrange(
    panels: int, width: int, height: int, limit: tuple[int, int] = (WIDTH, HEIGHT)
) -> tuple[int, tuple[int, int]]:
    """Arrange panels in rows.

    Args:
        panels: Number of panels.
        width: Width of the video, in pixels.
        height: Height of the video, in pixels.
        limit: Largest width and height of all panels together, in pixels.

    Returns:
        Panels per row, and width and height of one panel, both even, which codecs require.
    """
    columns = min(panels, 3 if width >= height else 6)
    rows = -(-panels // columns)
    enlarged = max(1.0, PANEL / max(width, height))
    scale = min(enlarged, limit[0] / columns / width, limit[1] / rows / height)
    return columns, (_even(width * scale), _even(height * scale))


def _even(length: float) -> int:
    return max(2, int(length) // 2 * 2)


def _picture_in_square(video: VideoInfo, size: int, fit: str) -> tuple[slice, slice]:
    """Return the rows and columns of a square clip that the video's picture fills."""
    if fit == "stretch":
        return slice(0, size), slice(0, size)
    scale = size / max(video.width, video.height)
    sides = (max(1, round(side * scale)) for side in (video.height, video.width))
    rows, columns = (slice((size - side) // 2, (size + side) // 2) for side in sides)
    return rows, columns


def _painter(
    maps: VideoMaps, columns: int, inside: tuple[slice, slice]
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return the function that draws all panels of a frame, for :func:`copy_video`."""
    text = cache(draw_text)
    title = f"{maps.guess.label} {maps.guess.probability:.2f}"

    def draw(number: int, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        values = maps.at(number)
        panels = [put_text(frame.copy(), text(title, width, height))]
        for name, top in maps.tops.items():
            heat, caption = np.zeros((height, width), np.float32), f"{name}: {NOT_SEEN}"
            if values is not None:
                heat = cv2.resize(values[name][inside], (width, height))
                caption = f"{name}, 0 to {top:.3g}"
            panels.append(put_text(put_heat(frame, heat), text(caption, width, height)))
        panels += [np.zeros_like(frame)] * (-len(panels) % columns)
        rows = [np.hstack(panels[i : i + columns]) for i in range(0, len(panels), columns)]
        return np.vstack(rows)

    return draw
