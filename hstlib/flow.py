"""Dense optical flow of a clip with OpenCV."""

import cv2
import numpy as np


def optical_flow(
    frames: np.ndarray, following: np.ndarray | None = None, method: str = "dis"
) -> np.ndarray:
    """Compute the motion from each frame to the next.

    Paper: section 3.1, "obtained by the function inside the OpenCV".
    Reading: 16 frames have 15 motions between them; the 16th comes from the frame that follows
    the clip, or repeats the 15th where the video ends.

    Args:
        frames: RGB frames, uint8, shape (T, H, W, 3).
        following: The frame after the last, uint8, shape (H, W, 3), or none.
        method: ``dis`` (Dense Inverse Search) or ``farneback``.

    Returns:
        float32, shape (2, T, H, W): x to the right and y downwards, in pixels per frame.

    Raises:
        ValueError: If there are fewer than 2 frames, or the method is unknown.
    """
    if len(frames) < 2:
        raise ValueError(f"optical flow needs at least 2 frames, got shape {frames.shape}")
    estimate = _estimator(method)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    if following is not None:
        grey.append(cv2.cvtColor(following, cv2.COLOR_RGB2GRAY))
    fields = [estimate(a, b) for a, b in zip(grey, grey[1:], strict=False)]
    if following is None:
        fields.append(fields[-1])
    return np.ascontiguousarray(np.stack(fields).transpose(3, 0, 1, 2), np.float32)


def _estimator(method: str):
    if method == "dis":
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        return lambda a, b: dis.calc(a, b, None)
    if method == "farneback":
        return lambda a, b: cv2.calcOpticalFlowFarneback(
            a, b, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3,
            poly_n=5, poly_sigma=1.2, flags=0,
        )  # fmt: skip
    raise ValueError(f"flow method {method!r} is unknown; use 'dis' or 'farneback'")
