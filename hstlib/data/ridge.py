"""What a linear classifier reaches at a split without a network, from one frame or from the flow.

Not in the paper. Ridge regression to one-hot classes on features of the very clips that the models
see: what is below these has not used its input well.
"""

from collections.abc import Sequence

import numpy as np

from hstlib.data.datasets import Sample, VideoSet
from hstlib.data.store import ClipStore

CELLS = 4  # per side, for the flow
DIRECTIONS = 8
PIXELS = 16  # per side, for the frame
FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(6))

RIDGES = {
    "ridge on one frame": f"RGB of the clip's middle frame at {PIXELS} x {PIXELS}",
    "ridge on flow": f"{DIRECTIONS} directions by length in {CELLS} x {CELLS} cells, two halves",
}
"""What each regression sees."""


def frame_feature(frames: np.ndarray) -> np.ndarray:
    """Return the means of the middle frame over square blocks.

    Args:
        frames: RGB frames of one clip, uint8, shape (T, S, S, 3).

    Returns:
        float64, shape (PIXELS * PIXELS * 3,).
    """
    middle = frames[len(frames) // 2].astype(float)
    rows = np.stack([part.mean(0) for part in np.array_split(middle, PIXELS, axis=0)])
    blocks = np.stack([part.mean(1) for part in np.array_split(rows, PIXELS, axis=1)], axis=1)
    return blocks.ravel()


def flow_feature(flow: np.ndarray) -> np.ndarray:
    """Return the square roots of the mean flow length by direction, cell and half of the clip.

    Args:
        flow: Optical flow of one clip in pixels per frame, shape (2, T, S, S).

    Returns:
        float64, shape (2 * CELLS * CELLS * DIRECTIONS,).
    """
    x, y = flow.astype(float)
    length = np.hypot(x, y)
    angle = np.arctan2(y, x) * DIRECTIONS / (2 * np.pi)
    direction = np.round(angle).astype(int) % DIRECTIONS
    parts = []
    for number in range(DIRECTIONS):
        of_direction = np.where(direction == number, length, 0)
        for half in np.array_split(of_direction, 2):
            for rows in np.array_split(half.mean(0), CELLS, axis=0):
                parts += [cell.mean() for cell in np.array_split(rows, CELLS, axis=1)]
    return np.sqrt(parts)


def ridge_classes(data: VideoSet, store: ClipStore) -> dict[str, np.ndarray]:
    """Classify the test samples of a split by ridge regression on features of their first clip.

    Args:
        data: A split of a data set.
        store: Clip store with its videos.

    Returns:
        Labels by the names of :data:`RIDGES`, each int64, shape (test samples,), in the order of
        ``data.test``; -1 for a video that cannot be read.

    Raises:
        ValueError: If the readable training videos have fewer than two sources.
    """
    train = [sample for sample in data.train if sample.path in store]
    test = [sample for sample in data.test if sample.path in store]
    readable = np.array([sample.path in store for sample in data.test], bool)
    labels = np.array([sample.label for sample in train])
    groups = np.array([sample.group for sample in train])
    predicted = {}
    for name, known, new in zip(
        RIDGES, _features(train, store), _features(test, store), strict=True
    ):
        answers = np.full(len(data.test), -1, np.int64)
        answers[readable] = fit_and_classify(known, labels, groups, new)
        predicted[name] = answers
    return predicted


def _features(samples: Sequence[Sample], store: ClipStore) -> tuple[np.ndarray, np.ndarray]:
    """Return features of the frames and of the flow, a row per sample."""
    clips = [store.read(sample.path, 0) for sample in samples]
    frames = np.array([frame_feature(frames) for frames, _ in clips])
    return frames, np.array([flow_feature(flow) for _, flow in clips])


def fit_and_classify(
    train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit ridge regression to one-hot labels and classify other rows.

    Features are scaled by the training rows. The penalty is the one with the most correct answers
    in a cross-validation over the groups of the training rows; the larger one of equals.

    Args:
        train: Features, shape (N, features).
        labels: Classes, shape (N,).
        groups: Source of each row, shape (N,).
        test: Features to classify, shape (M, features).

    Returns:
        Classes, shape (M,).

    Raises:
        ValueError: If there are fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"ridge regression needs training videos of two sources, not {len(names)}")
    fold_of = dict(
        zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True)
    )
    folds = np.array([fold_of[group] for group in groups])
    correct = np.zeros(len(PENALTIES), int)
    for fold in np.unique(folds):
        held = folds == fold
        for index, answers in enumerate(
            _solve(train[~held], labels[~held], train[held], PENALTIES)
        ):
            correct[index] += (answers == labels[held]).sum()
    best = max(range(len(PENALTIES)), key=lambda index: (correct[index], index))
    return _solve(train, labels, test, PENALTIES[best : best + 1])[0]


def _solve(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalties: Sequence[float]
) -> list[np.ndarray]:
    """Classify the test rows with every penalty, from one singular value decomposition."""
    classes = np.unique(labels)
    mean, spread = train.mean(0), train.std(0)
    spread = np.where(spread > 0, spread, np.inf)  # a constant feature says nothing
    scaled, new = (train - mean) / spread, (test - mean) / spread
    targets = (labels[:, None] == classes).astype(float)
    left, values, right = np.linalg.svd(scaled, full_matrices=False)
    projected = left.T @ (targets - targets.mean(0))
    answers = []
    for penalty in penalties:
        weights = right.T @ (projected * (values / (values**2 + penalty))[:, None])
        answers.append(classes[(new @ weights + targets.mean(0)).argmax(1)])
    return answers
