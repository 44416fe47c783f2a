"""Smoke tests: a few videos of each part of a split."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest

from hstlib.data.samples import Sample, VideoSet


def limit_videos(data: VideoSet, limit: int) -> VideoSet:
    """Return a data set with a few videos of each part, spread over classes and their sources.

    Args:
        data: Data set at a split.
        limit: Maximum number of training, of test and of validation samples.
    """
    parts = {
        name: tuple(islice(_spread(getattr(data, name)), limit))
        for name in ("train", "test", "validation")
    }
    return replace(data, **parts, unused=())


def _spread(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield samples class by class in turn, and within a class source by source in turn."""
    classes: dict[int, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        classes[sample.label][sample.group].append(sample)
    return _in_turn(_in_turn(sources.values()) for _, sources in sorted(classes.items()))


def _in_turn(queues) -> Iterator[Sample]:
    """Yield the first of every queue, then the second of every queue, to the end of the longest."""
    rounds = zip_longest(*queues)
    return (sample for sample in chain.from_iterable(rounds) if sample is not None)
