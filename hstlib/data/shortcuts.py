"""What a nearest neighbour reaches at a split without a network, from simple features of a video.

Not in the paper. A model that is not above the best of these may have learned the file, the scene
or the amount of motion, and not the action.

A test video gets the class of the training video with the nearest feature; if several are equally
near, the class of most of them. The distance is the sum of absolute differences. Each component is
first divided by its standard deviation over the training videos, and one that is the same in all of
them is left out. Only colour histograms are compared as they are: the sum of their differences is
2 minus twice their intersection.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hstlib.data.container import VideoError
from hstlib.data.flow import optical_flow
from hstlib.data.samples import VideoSet
from hstlib.data.video import read_video
from hstlib.processes import map_in_processes

SHORTCUTS = {
    "length": "number of frames and seconds",
    "geometry": "width, height and number of frames",
    "colour histogram": "8 x 8 x 8 RGB bins of the median over time",
    "middle frame": "grey levels at 48 x 36",
    "motion energy": "mean absolute difference of neighbouring frames at 12 x 9",
    "mean flow": "mean optical flow, x and y, at 4 x 3",
}
"""What each feature is made of; frames are taken at 16 Hz and at most 16 pairs per video."""
UNSCALED = {"colour histogram"}

SIZE = 96  # height and width at which videos are read, in pixels
MAX_PAIRS = 16  # of neighbouring frames; a longer video gives pairs evenly spread over it
BINS = 8  # per colour
SECONDS_PER_FILE = 600

Features = dict[str, np.ndarray]
"""One video's features by the names of :data:`SHORTCUTS`; float32, one axis each."""


def shortcut_features(path: str | Path) -> Features:
    """Compute the features of one video; it is decoded once.

    Args:
        path: Video file.

    Returns:
        Features by the names of :data:`SHORTCUTS`: 2, 3, 512, 1728, 108 and 24 numbers.

    Raises:
        VideoError: If the file cannot be used.
    """
    video = read_video(path, size=SIZE, choose=_middle_and_pairs)
    info, middle = video.info, video.frames[0]
    pairs = video.frames[1:].reshape(-1, 2, SIZE, SIZE, 3)
    flow = np.mean([optical_flow(pair)[:, 0] for pair in pairs], axis=0)  # (2, S, S)
    features = (
        (info.frames, info.seconds),
        (info.width, info.height, info.frames),
        _histogram(np.median(pairs[:, 0], axis=0).astype(np.uint8)),
        _shrink(_grey(middle), 48, 36),
        _shrink(np.mean([_difference(*pair) for pair in pairs], axis=0), 12, 9),
        np.stack([_shrink(component, 4, 3) for component in flow]),
    )
    return {
        name: np.asarray(values, np.float32).ravel()
        for name, values in zip(SHORTCUTS, features, strict=True)
    }


def _middle_and_pairs(length: int) -> np.ndarray:
    """Return the index of the middle frame, then those of the pairs of neighbouring frames."""
    starts = np.unique(np.linspace(0, max(length - 2, 0), MAX_PAIRS).round().astype(int))
    pairs = np.stack([starts, np.minimum(starts + 1, length - 1)], axis=1)
    return np.concatenate([[length // 2], pairs.ravel()])


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _difference(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    return np.abs(_grey(following) - _grey(frame))


def _shrink(values: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)


def _histogram(frame: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([frame], [0, 1, 2], None, 3 * [BINS], 3 * [0, 256])
    return counts / counts.sum()


def read_features(
    data: VideoSet, workers: int | None = None
) -> tuple[dict[Path, Features], dict[Path, str]]:
    """Compute the features of the training and test videos of a split, in parallel.

    The features do not depend on the split, so they can be used for others of the same data set.

    Args:
        data: Any split of a data set.
        workers: Number of processes; None: one per core.

    Returns:
        Features by file, and the fault of each file that cannot be used.
    """
    paths = sorted({sample.path for sample in data.train + data.test})
    features, faults = {}, {}
    outcomes = map_in_processes(_features_or_fault, paths, workers, SECONDS_PER_FILE)
    for path, outcome in tqdm(outcomes, data.name, len(paths), unit="video", disable=None):
        if isinstance(outcome, dict):
            features[path] = outcome
        else:
            faults[path] = str(outcome)
    return features, dict(sorted(faults.items()))


def _features_or_fault(path: Path) -> Features | str:
    try:
        return shortcut_features(path)
    except VideoError as error:
        return str(error)


def nearest_classes(data: VideoSet, features: dict[Path, Features]) -> dict[str, np.ndarray]:
    """Classify the test samples of a split by their nearest training samples.

    Args:
        data: A split of a data set.
        features: Features by file; samples of files that are not in it cannot be read.

    Returns:
        Labels by shortcut, each int64, shape (test samples,), in the order of ``data.test``; -1 for
        a video that cannot be read.

    Raises:
        ValueError: If no training video can be read.
    """
    train = [sample for sample in data.train if sample.path in features]
    if not train:
        raise ValueError(
            f"{data.name}: none of {len(data.train)} training videos can be read, so no test video "
            "has a neighbour; check the folder of the videos with `python -m hstlib verify`"
        )
    labels = np.array([sample.label for sample in train])
    return {
        name: _classify(
            name,
            np.stack([features[sample.path][name] for sample in train]),
            labels,
            (features.get(sample.path, {}).get(name) for sample in data.test),
        )
        for name in SHORTCUTS
    }


def _classify(
    name: str, train: np.ndarray, labels: np.ndarray, test: Iterable[np.ndarray | None]
) -> np.ndarray:
    scale = np.float32(1)
    if name not in UNSCALED:
        varies = np.ptp(train, axis=0) > 0
        scale = np.where(varies, train.std(axis=0), np.float32(np.inf))  # x / inf is 0
    train = train / scale

    def nearest(feature: np.ndarray | None) -> int:
        if feature is None:
            return -1
        distances = np.abs(train - feature / scale).sum(axis=1)
        return int(np.bincount(labels[distances == distances.min()]).argmax())

    return np.array([nearest(feature) for feature in test], np.int64)


def shortcuts(data: VideoSet, features: dict[Path, Features] | None = None) -> dict[str, float]:
    """Return the top-1 accuracy of every shortcut on the test part of a split.

    Args:
        data: A split of a data set.
        features: Features by file from :func:`read_features`; None: they are computed.

    Returns:
        Fractions by the names of :data:`SHORTCUTS`, then ``chance``, which is 1 / classes. A video
        that cannot be read counts as wrong.

    Raises:
        ValueError: If no training video can be read.
    """
    if features is None:
        features, _ = read_features(data)
    truth = np.array([sample.label for sample in data.test])
    predicted = nearest_classes(data, features)
    top1 = {name: float((labels == truth).mean()) for name, labels in predicted.items()}
    return top1 | {"chance": 1 / len(data.classes)}
