"""What file names tell: the tags of HMDB51, and the source that a video was cut from."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePath

HMDB51_TAGS = re.compile(
    r"_(?P<body>[hufl])_(?P<camera>cm|nm)_np(?P<people>\d+)_(?P<view>fr|le|ri|ba)"
    r"_(?P<quality>goo|med|bad)_\d+\.\w+$"
)
UCF101_NAME = re.compile(r"(?P<source>v_(?P<class_name>.+)_g\d+)_c\d+", re.IGNORECASE)
KINETICS_NAME = re.compile(r"(?P<source>[\w-]{11})_\d{6}_\d{6}")
CAMERA_WORDS = {"img", "vid", "mvi", "mov", "dsc", "dscf", "dji", "rec", "video", "movie", "clip"}
"""Starts of the names that cameras and phones give to all of their files."""
NUM_FOLDS = 3


def hmdb51_tags(file_name: str) -> dict[str, str]:
    """Read the tags of an HMDB51 file name.

    Returns:
        ``body``, ``camera``, ``people``, ``view`` and ``quality``; empty if the name has no tags.

    >>> hmdb51_tags("Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi")["view"]
    'le'
    """
    match = HMDB51_TAGS.search(file_name)
    return match.groupdict() if match else {}


def sources_from_names(names: Sequence[tuple[str, str]]) -> list[str | None]:
    """Find the source of every video by its file name.

    Names of HMDB51, UCF101 and Kinetics are known. Otherwise, the source is the name up to the last
    underscore: ``seq01`` of ``seq01_004.avi``. That says nothing if it is the name of the class or
    what cameras call all files, if no two videos share it, or if every class has one source only.

    Args:
        names: File name and class name of every video.

    Returns:
        One source per video; None if its name gives none.

    >>> sources_from_names([("seq01_1.avi", "hug"), ("seq01_2.avi", "hug"), ("seq02_1.avi", "hug")])
    ['seq01', 'seq01', 'seq02']
    >>> sources_from_names([("hug_1.avi", "hug"), ("push_1.avi", "push")])
    [None, None]
    """
    known = [known_source(file_name) for file_name, _ in names]
    guesses = [
        None if source else _source_before_underscore(*name)
        for source, name in zip(known, names, strict=True)
    ]
    by_class = defaultdict(set)
    for guess, (_, class_name) in zip(guesses, names, strict=True):
        if guess:
            by_class[class_name].add(guess)
    sizes = Counter(guess for guess in guesses if guess)
    if all(len(sources) == 1 for sources in by_class.values()) or max(sizes.values()) == 1:
        return known
    return [source or guess for source, guess in zip(known, guesses, strict=True)]


def known_source(file_name: str) -> str | None:
    """Return the source in a file name of HMDB51, UCF101 or Kinetics; None for other names."""
    if match := HMDB51_TAGS.search(file_name):
        return file_name[: match.start()]  # title and class
    stem = PurePath(file_name).stem
    match = UCF101_NAME.fullmatch(stem) or KINETICS_NAME.fullmatch(stem)
    return match["source"] if match else None


def _source_before_underscore(file_name: str, class_name: str) -> str | None:
    source = PurePath(file_name).stem.rpartition("_")[0]
    says_nothing = {"", letters(class_name), *CAMERA_WORDS}
    return None if letters(source) in says_nothing else source


def letters(text: str) -> str:
    """Return the letters and digits of a name, in which two spellings of it agree."""
    return "".join(filter(str.isalnum, text)).casefold()


def choose_fold(
    names: Sequence[str], classes: Sequence[str], sources: Sequence[str | None], split: int
) -> list[bool]:
    """Choose the test videos of one of three folds.

    Every third source, in sorted order, is tested. Where this would test all videos of a class in
    one fold, as with sources of one class each that are numbered in turn, the sources are sorted
    by their classes first. Videos without a source are chosen one by one: every third one of their
    class.

    Args:
        names: Path of every video; the order of those without a source.
        classes: Class of every video.
        sources: Source of every video; None if unknown.
        split: Fold, 1-3.

    Returns:
        For every video, whether it is tested.
    """
    test_sources = set(_order_sources(classes, sources)[split - 1 :: NUM_FOLDS])
    without = defaultdict(list)
    for name, class_name, source in zip(names, classes, sources, strict=True):
        if source is None:
            without[class_name].append(name)
    tested = {name for group in without.values() for name in sorted(group)[split - 1 :: NUM_FOLDS]}
    return [
        name in tested if source is None else source in test_sources
        for name, source in zip(names, sources, strict=True)
    ]


def _order_sources(classes: Sequence[str], sources: Sequence[str | None]) -> list[str]:
    """Sort sources by name, or, where a fold would take a whole class, by their classes first."""
    classes_of = defaultdict(set)
    for class_name, source in zip(classes, sources, strict=True):
        if source is not None:
            classes_of[source].add(class_name)
    by_name = sorted(classes_of)
    folds = defaultdict(set)
    for index, source in enumerate(by_name):
        for class_name in classes_of[source]:
            folds[class_name].add(index % NUM_FOLDS)
    if all(len(found) > 1 for found in folds.values()):
        return by_name
    return sorted(by_name, key=lambda source: sorted(classes_of[source]))
