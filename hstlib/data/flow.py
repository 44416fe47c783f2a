"""Dense optical flow of a clip with OpenCV, and synthetic motion with known ground truth."""

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
# Scale of ``difference``; it makes the values about as large as those of DIS.
LEVELS_PER_PIXEL = 16


def optical_flow(
    frames: np.ndarray, following: np.ndarray | None = None, method: str = "dis"
) -> np.ndarray:
    """Compute the motion from each frame to the next.

    Paper: section 3.1, "obtained by the function inside the OpenCV".
    Reading: 16 frames have 15 motions between them. The 16th field comes from the frame that
    follows the clip, or repeats the 15th where the video ends.

    The method ``difference`` is not in the paper. It is a control: it shows where and how much the
    picture changes, but not in which direction. The change is absolute, because a signed change
    reveals the direction wherever the picture has a gradient; and it is stored as y, because
    mirroring a clip flips the sign of x.

    Args:
        frames: RGB frames, uint8, shape (T, H, W, 3).
        following: Frame after the last, uint8, shape (H, W, 3); None at the end of the video.
        method: ``dis`` (Dense Inverse Search, OpenCV's preset "fast"), ``dis-ultrafast``,
            ``dis-medium``, ``farneback`` or ``difference``.

    Returns:
        float32, shape (2, T, H, W): x to the right and y downwards, in pixels per frame. With
        ``difference``, x is 0 and y is the change of grey level, in units of 16 levels.

    Raises:
        ValueError: If there are fewer than 2 frames, or the method is unknown.
    """
    if len(frames) < 2:
        raise ValueError(f"optical flow needs at least 2 frames, got shape {frames.shape}")
    estimate = _estimator(method)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    if following is not None:
        grey.append(cv2.cvtColor(following, cv2.COLOR_RGB2GRAY))
    flow = np.empty((2, len(frames), *grey[0].shape), np.float32)
    for index, pair in enumerate(zip(grey, grey[1:], strict=False)):
        field = np.asarray(estimate(*pair), np.float32)  # (H, W, 2); else OpenCV writes elsewhere
        for axis in (0, 1):
            cv2.extractChannel(field, axis, flow[axis, index])
    if following is None:
        flow[:, -1] = flow[:, -2]
    return flow


def _estimator(method: str):
    if method in DIS_PRESETS:
        dis = cv2.DISOpticalFlow_create(DIS_PRESETS[method])
        return lambda a, b: dis.calc(a, b, None)
    if method == "farneback":
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, **FARNEBACK)
    if method == "difference":
        return lambda a, b: cv2.merge([np.zeros_like(a), cv2.absdiff(a, b)]) / LEVELS_PER_PIXEL
    raise _unknown(method)


def _unknown(method: str) -> ValueError:
    return ValueError(f"flow method {method!r} is unknown; use one of {', '.join(METHODS)}")


def flow_parameters(method: str) -> dict[str, float]:
    """Return the parameters of a method, by OpenCV's names, to be stored with its flow fields.

    Raises:
        ValueError: If the method is unknown.
    """
    if method in DIS_PRESETS:
        dis = cv2.DISOpticalFlow_create(DIS_PRESETS[method])
        getters = [n for n in dir(dis) if n.startswith("get") and n != "getDefaultName"]
        return {name.removeprefix("get"): getattr(dis, name)() for name in getters}
    if method == "farneback":
        return dict(FARNEBACK)
    if method == "difference":
        return {"LevelsPerPixel": LEVELS_PER_PIXEL}
    raise _unknown(method)


def draw_pair(
    motion: np.ndarray,
    size: int = 112,
    seed: int = 0,
    *,
    contrast: float = 40,
    gain: float = 1,
    disc: float = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two frames of a texture with a known motion between them.

    The texture is a sum of waves, so it is known at every point and nothing is interpolated.

    Args:
        motion: Affine map, shape (2, 3), from (x, y, 1) in the first frame to (x, y) in the second,
            in pixels from the centre.
        size: Height and width of the frames, in pixels.
        seed: Seed of the texture.
        contrast: Standard deviation of the grey levels.
        gain: Brightness of the second frame, relative to the first.
        disc: Radius of a disc that moves over a still background, in pixels. 0: everything moves.

    Returns:
        Frames, RGB uint8, shape (2, size, size, 3), and the true flow at the first frame's pixels,
        in pixels per frame, float32, shape (2, size, size).
    """
    rng = np.random.default_rng(seed)
    moving, still = _waves(rng), _waves(rng)
    points = np.stack(np.meshgrid(*2 * [np.arange(size) - (size - 1) / 2]))  # (2, S, S)
    flow = _affine(motion, points) - points
    origins = _affine(cv2.invertAffineTransform(np.asarray(motion, float)), points)
    pictures = np.stack([moving(points), moving(origins)])  # (2, S, S)
    if disc:
        inside = np.stack([np.hypot(*points) < disc, np.hypot(*origins) < disc])
        pictures = np.where(inside, pictures, still(points))
        flow = flow * inside[0]
    levels = (128 + contrast * pictures) * np.reshape([1, gain], (2, 1, 1))
    frames = levels.clip(0, 255).round().astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1), flow.astype(np.float32)


def _affine(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    matrix, shift = np.split(np.asarray(motion, float), [2], axis=1)
    return np.einsum("ij,jyx->iyx", matrix, points) + shift[..., None]


def _waves(rng: np.random.Generator, count: int = 64):
    """Draw a texture: mean 0, standard deviation 1, equal power per octave from 6 to 96 pixels."""
    length, angle = 6 * 2 ** rng.uniform(0, 4, count), rng.uniform(0, 2 * np.pi, count)
    directions = 2 * np.pi * np.stack([np.cos(angle), np.sin(angle)], 1) / length[:, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))

    def texture(points: np.ndarray) -> np.ndarray:
        waves = np.sin(np.einsum("wi,iyx->wyx", directions, points) + phase)
        return (2 / count) ** 0.5 * waves.sum(0)

    return texture


def end_point_error(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance between the ends of two flow fields, in pixels: (2, ...) to (...)."""
    return np.hypot(*(flow - truth))
