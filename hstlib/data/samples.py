"""The videos of a data set at one split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One video of a data set, or one of its clips.

    Attributes:
        path: Video file; it may be missing.
        label: Index of the class.
        group: Source that the video was cut from, such as a film. Official splits never divide a
            group between training and test. Without a known source, the video itself.
        clip_index: Index of the clip in the video; None stands for all clips.
    """

    path: Path
    label: int
    group: str
    clip_index: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """A data set at one split.

    Attributes:
        name: Name of the data set.
        classes: Class names, in the order of the labels.
        train: Training samples.
        test: Test samples.
        unused: Samples that are in no part of this split.
        folder: Folder of the videos.
        validation: Validation samples, if the data set brings its own.
        sources_known: Whether the groups are sources that the lists or the file names give. If
            not, nobody knows whether training and test share sources.
        from_list: Whether a list chooses the videos, so that the folder may hold others.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unused: tuple[Sample, ...] = ()
    folder: Path = Path()
    validation: tuple[Sample, ...] = ()
    sources_known: bool = True
    from_list: bool = False

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of train, test, validation and unused, sorted by path."""
        parts = self.train + self.test + self.validation + self.unused
        return tuple(sorted(parts, key=lambda s: str(s.path)))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of all samples, sorted and each once; the same for every protocol."""
        return tuple(dict.fromkeys(sample.path for sample in self.samples))

    @property
    def split_id(self) -> str:
        """Hash of the class names in order and the lists: training, test, own validation."""
        parts = {"train": self.train, "test": self.test, "validation": self.validation}
        lines = [repr(self.classes)]
        for role, samples in parts.items():
            lines += sorted(f"{role} {s.label} {s.path.name} {s.clip_index}" for s in samples)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def missing(self) -> tuple[Path, ...]:
        """Listed files that are not on disk."""
        return tuple(path for path in self.paths if not path.is_file())
