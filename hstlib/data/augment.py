"""Random crop, flip and colour jitter for training; fixed crops for evaluation."""

import numpy as np

from hstlib.config import AugmentConfig


def crop_clip(
    frames: np.ndarray, flow: np.ndarray, top: int, left: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crop the same square from every frame and flow field, without copying.

    Args:
        frames: Frames, shape (..., H, W, 3).
        flow: Optical flow, shape (..., H, W).
        top: First row of the square.
        left: First column of the square.
        size: Height and width of the square, in pixels.

    Returns:
        Frames, shape (..., size, size, 3), and flow, shape (..., size, size).

    Raises:
        ValueError: If the square does not fit in the frames.
    """
    height, width = frames.shape[-3:-1]
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise ValueError(
            f"a crop of {size} pixels at row {top}, column {left} does not fit in frames of "
            f"{height} x {width}; use a smaller crop_size"
        )
    rows, columns = slice(top, top + size), slice(left, left + size)
    return frames[..., rows, columns, :], flow[..., rows, columns]


def augment(
    frames: np.ndarray, flow: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply random changes to a training clip, the same to all of its frames.

    The same random numbers are drawn whatever is enabled, so one change does not affect another.

    Args:
        frames: RGB frames, uint8, shape (T, S, S, 3).
        flow: Optical flow in pixels per frame, shape (2, T, S, S).
        config: Changes to apply.
        rng: Source of all random numbers.

    Returns:
        Frames and flow with height and width ``config.crop_size``, or S if that is 0. A flip
        negates the x component of the flow.

    Raises:
        ValueError: If the crop is larger than the frames.
    """
    down, right, coin, brightness, contrast = rng.random(5)
    if config.crop_size:
        places = frames.shape[1] - config.crop_size + 1
        top, left = int(down * places), int(right * places)
        frames, flow = crop_clip(frames, flow, top, left, config.crop_size)
    if config.flip and coin < 0.5:
        signs = np.array([-1, 1], flow.dtype)[:, None, None, None]
        frames, flow = frames[:, :, ::-1], flow[..., ::-1] * signs
    if config.colour_jitter:
        gain = 1 + config.colour_jitter * (2 * contrast - 1)
        shift = 255 * config.colour_jitter * (brightness - 0.5)
        levels = (np.arange(256) - 127.5) * gain + 127.5 + shift
        frames = levels.clip(0, 255).round().astype(np.uint8)[frames]
    return frames, flow


def evaluation_views(
    frames: np.ndarray, flow: np.ndarray, crop_size: int, num_crops: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crop the views that evaluation averages over.

    Args:
        frames: Clips of a video, shape (num_clips, T, S, S, 3).
        flow: Flow of the clips, shape (num_clips, 2, T, S, S).
        crop_size: Height and width of the crops, in pixels. 0: whole frames, one view per clip.
        num_crops: 1 for the centre; 3 for left, centre and right, at middle height.

    Returns:
        Frames, shape (num_crops * num_clips, T, crop_size, crop_size, 3), and flow, shape
        (num_crops * num_clips, 2, T, crop_size, crop_size); the first crop of every clip comes
        first.

    Raises:
        ValueError: If the crops are larger than the frames, or not 1 or 3.
    """
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops is {num_crops}; use 1 or 3")
    margin = frames.shape[2] - crop_size
    if not crop_size or not margin:
        return frames, flow
    lefts = [margin // 2] if num_crops == 1 else [0, margin // 2, margin]
    views = [crop_clip(frames, flow, margin // 2, left, crop_size) for left in lefts]
    view_frames, view_flow = zip(*views, strict=True)
    return np.concatenate(view_frames), np.concatenate(view_flow)
