"""Guess which videos were cut from the same recording, by their colours. Not in the paper."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hstlib.data.lists import GUESS, ListedVideo
from hstlib.data.samples import Sample, VideoSet
from hstlib.data.shortcuts import read_features

MAX_DISTANCE = 0.2
"""Largest distance of two colour histograms of one recording: the share of pixels whose colours
differ."""


def guess_sources(videos: Sequence[ListedVideo], workers: int | None = None) -> list[ListedVideo]:
    """Give videos without a source a guessed one; a file that cannot be read is left as it is.

    The nearest neighbour of a video, by the colour histogram of its median frame, is taken to be of
    the same recording if it is near. Guessed names start with :data:`hstlib.data.lists.GUESS`: a
    computed split keeps them apart, but the leakage meter still calls the sources unknown.

    Args:
        videos: Rows of a list.
        workers: Number of processes; None: one per core.
    """
    unknown = [video.path for video in videos if video.source is None]
    samples = tuple(Sample(path, 0, "") for path in unknown)
    features, _ = read_features(VideoSet("guess", ("",), samples, ()), workers)
    paths = sorted(features)
    histograms = np.array([features[path]["colour histogram"] for path in paths])
    names = {
        path: f"{GUESS}{cluster + 1:04d}"
        for path, cluster in zip(paths, link_nearest(histograms), strict=True)
    }
    return [
        replace(video, source=names.get(video.path)) if video.source is None else video
        for video in videos
    ]


def link_nearest(histograms: np.ndarray, max_distance: float = MAX_DISTANCE) -> list[int]:
    """Join every histogram with its nearest neighbour, unless that is too far.

    Args:
        histograms: Shape (N, bins); each sums to 1.
        max_distance: Largest distance that is joined, 0-1: one minus the sum of the smaller values.

    Returns:
        Number of the cluster of each histogram, in the order of their first members.
    """
    clusters = np.arange(len(histograms))
    for index, histogram in enumerate(histograms):
        distances = 1 - np.minimum(histograms, histogram).sum(axis=1)
        distances[index] = np.inf
        nearest = int(distances.argmin())
        if distances[nearest] <= max_distance:
            pair = clusters[[index, nearest]]
            clusters[clusters == pair.max()] = pair.min()
    return np.unique(clusters, return_inverse=True)[1].tolist()


def describe_guess(videos: Sequence[ListedVideo]) -> str:
    """Describe guessed sources in one line."""
    sizes = Counter(v.source for v in videos if v.source and v.source.startswith(GUESS))
    shared = sum(size for size in sizes.values() if size > 1)
    return (
        f"{len(sizes)} guessed by colours for {sum(sizes.values())} videos, {shared} of which "
        "share theirs; look at the groups in the list before you trust them"
    )
