"""Crops of clips for evaluation; random crop, flip and colour for training."""

import numpy as np

from hstlib.config import AugmentConfig


def crop_clip(
    frames: np.ndarray, flow: np.ndarray, top: int, left: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same square out of every frame and flow field, as views.

    Args:
        frames: Shape (..., H, W, 3).
        flow: Shape (..., H, W).
        top: First row.
        left: First column.
        size: Height and width of the square, in pixels.

    Returns:
        Frames, shape (..., size, size, 3), and flow, shape (..., size, size).
    """
    rows, columns = slice(top, top + size), slice(left, left + size)
    return frames[..., rows, columns, :], flow[..., rows, columns]


def augment(
    frames: np.ndarray, flow: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Change a training clip at random, all of its frames alike.

    The same numbers are drawn whatever is switched on, so one change does not alter the others.

    Args:
        frames: RGB, uint8, shape (T, S, S, 3).
        flow: Pixels per frame, shape (2, T, S, S).
        config: What may change.
        rng: Where all numbers come from.

    Returns:
        Frames and flow, of height and width ``config.crop``, or S where that is 0. A flip turns the
        sign of the flow's x component.
    """
    down, right, coin, brightness, contrast = rng.random(5)
    free = frames.shape[1] - config.crop
    if config.crop:
        top, left = int(down * (free + 1)), int(right * (free + 1))
        frames, flow = crop_clip(frames, flow, top, left, config.crop)
    if config.flip and coin < 0.5:
        signs = np.array([-1, 1], flow.dtype)[:, None, None, None]
        frames, flow = frames[:, :, ::-1], flow[..., ::-1] * signs
    if config.colour:
        gain = 1 + config.colour * (2 * contrast - 1)
        shift = 255 * config.colour * (brightness - 0.5)
        levels = (np.arange(256) - 127.5) * gain + 127.5 + shift
        frames = levels.clip(0, 255).round().astype(np.uint8)[frames]
    return frames, flow


def evaluation_views(
    frames: np.ndarray, flow: np.ndarray, size: int, crops: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the squares that evaluation averages over.

    Args:
        frames: The clips of a video, shape (W, T, S, S, 3).
        flow: Theirs, shape (W, 2, T, S, S).
        size: Height and width of the squares, in pixels; 0: the whole frames.
        crops: 1 for the centre; 3 for left, centre and right, at middle height.

    Returns:
        Frames, shape (W crops, T, size, size, 3), and flow, shape (W crops, 2, T, size, size).
    """
    free = frames.shape[2] - size
    if not size or not free:
        return frames, flow
    lefts = [free // 2] if crops == 1 else [0, free // 2, free]
    views = [crop_clip(frames, flow, free // 2, left, size) for left in lefts]
    return np.concatenate([f for f, _ in views]), np.concatenate([f for _, f in views])
