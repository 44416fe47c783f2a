"""From a decoded frame to the picture that a player shows."""

import av
import numpy as np
from av.video.reformatter import Interpolation


def square_picture(frame: av.VideoFrame, aspect: float, size: int, fit: str) -> np.ndarray:
    """Convert a decoded frame to a square picture, as shown.

    Args:
        frame: Decoded frame.
        aspect: Width of a pixel divided by its height.
        size: Height and width of the result, in pixels.
        fit: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads with black.

    Returns:
        RGB, uint8, shape (size, size, 3).
    """
    if fit == "stretch":
        return picture(frame, size, size)
    width, height = shown_size(frame, aspect)
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (size - height) // 2, (size - width) // 2
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = picture(frame, width, height)
    return canvas


def picture(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Convert a decoded frame to RGB at a size as shown, after rotation: (height, width, 3)."""
    if frame.rotation % 180:
        width, height = height, width
    # AREA averages where the picture gets smaller, as OpenCV's INTER_AREA does.
    method = Interpolation.AREA if width < frame.width else Interpolation.BILINEAR
    # More threads cost twice the time of one; the pixels are the same.
    pixels = frame.reformat(width, height, "rgb24", interpolation=method, threads=1).to_ndarray()
    return np.rot90(pixels, frame.rotation // 90)


def shown_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    """Return width and height of a frame as shown, in pixels, after rotation and pixel aspect."""
    width, height = round(frame.width * aspect), frame.height
    return (height, width) if frame.rotation % 180 else (width, height)
