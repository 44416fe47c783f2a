"""Dense optical flow of a clip with OpenCV, and drawn motion on which its error is known."""

import cv2
import numpy as np

DIS_PRESETS = {
    "dis": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "dis-ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "dis-medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
METHODS = (*DIS_PRESETS, "farneback", "difference")
FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}
LEVELS_PER_PIXEL = 16  # of ``difference``: its values are then about as large as DIS's


def optical_flow(
    frames: np.ndarray, following: np.ndarray | None = None, method: str = "dis"
) -> np.ndarray:
    """Compute the motion from each frame to the next.

    Paper: section 3.1, "obtained by the function inside the OpenCV".
    Reading: 16 frames have 15 motions between them; the 16th comes from the frame that follows
    the clip, or repeats the 15th where the video ends. ``difference`` is not in the paper: a
    control that shows where and how much the picture changes, but not in which direction. It is
    absolute, since the signed change tells the direction wherever the picture has a gradient, and
    has no x, since mirroring a clip turns the sign of x.

    Args:
        frames: RGB frames, uint8, shape (T, H, W, 3).
        following: The frame after the last, uint8, shape (H, W, 3), or none.
        method: ``dis`` (Dense Inverse Search, OpenCV's preset "fast"), ``dis-ultrafast``,
            ``dis-medium``, ``farneback`` or ``difference``.

    Returns:
        float32, shape (2, T, H, W): x to the right and y downwards, in pixels per frame; of
        ``difference`` 0 and the change of grey level, in units of 16 levels.

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
    if method in DIS_PRESETS:
        dis = cv2.DISOpticalFlow_create(DIS_PRESETS[method])
        return lambda a, b: dis.calc(a, b, None)
    if method == "farneback":
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, **FARNEBACK)
    if method == "difference":
        return lambda a, b: cv2.merge([np.zeros_like(a), cv2.absdiff(a, b)]) / LEVELS_PER_PIXEL
    raise ValueError(f"flow method {method!r} is unknown; use one of {', '.join(METHODS)}")


def flow_parameters(method: str) -> dict[str, float]:
    """Return the numbers that a method runs with, by OpenCV's names, to be kept with its fields."""
    if method in DIS_PRESETS:
        dis = cv2.DISOpticalFlow_create(DIS_PRESETS[method])
        getters = [n for n in dir(dis) if n.startswith("get") and n != "getDefaultName"]
        return {name.removeprefix("get"): getattr(dis, name)() for name in getters}
    return dict(FARNEBACK) if method == "farneback" else {"LevelsPerPixel": LEVELS_PER_PIXEL}


def draw_pair(
    motion: np.ndarray,
    size: int = 112,
    seed: int = 0,
    *,
    contrast: float = 40,
    gain: float = 1,
    disc: float = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two frames of a texture that moves in a known way.

    The texture is a sum of waves and known at every point, so nothing is interpolated.

    Args:
        motion: Affine, shape (2, 3): takes (x, y, 1), in pixels from the picture's centre, to
            the point's place in the second frame.
        size: Height and width of the frames, in pixels.
        seed: Fixes the texture.
        contrast: Standard deviation of the grey levels.
        gain: Brightness of the second frame, as a multiple of the first's.
        disc: Radius of a disc that moves over a still ground, in pixels; 0: all of it moves.

    Returns:
        Frames, RGB uint8, shape (2, S, S, 3), and the true flow of the first one's points in
        pixels per frame, float32, shape (2, S, S).
    """
    rng = np.random.default_rng(seed)
    moves, stays = _waves(rng), _waves(rng)
    points = np.stack(np.meshgrid(*2 * [np.arange(size) - (size - 1) / 2]))  # (2, S, S)
    flow = _affine(motion, points) - points
    origins = _affine(cv2.invertAffineTransform(np.asarray(motion, float)), points)
    pictures = [moves(points), moves(origins)]
    if disc:
        inside = [np.hypot(*p) < disc for p in (points, origins)]
        pictures = [np.where(i, p, stays(points)) for i, p in zip(inside, pictures, strict=True)]
        flow = flow * inside[0]
    levels = [(128 + contrast * p) * g for p, g in zip(pictures, (1, gain), strict=True)]
    frames = np.stack(levels).clip(0, 255).round().astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1), flow.astype(np.float32)


def _affine(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    matrix, shift = np.split(np.asarray(motion, float), [2], axis=1)
    return np.einsum("ij,jyx->iyx", matrix, points) + shift[..., None]


def _waves(rng: np.random.Generator, count: int = 64):
    """Draw a texture of mean 0 and deviation 1, as strong in every octave from 6 to 96 pixels."""
    length, angle = 6 * 2 ** rng.uniform(0, 4, count), rng.uniform(0, 2 * np.pi, count)
    directions = 2 * np.pi * np.stack([np.cos(angle), np.sin(angle)], 1) / length[:, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))

    def texture(points: np.ndarray) -> np.ndarray:
        waves = np.sin(np.einsum("wi,iyx->wyx", directions, points) + phase)
        return (2 / count) ** 0.5 * waves.sum(0)

    return texture


def end_point_error(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how far the ends of two flow fields are apart, in pixels: (2, ...) to (...)."""
    return np.hypot(*(flow - truth))
