"""What a result depends on beside its settings: data, versions, hardware and commit."""

import hashlib
import logging
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import accelerate
import cv2
import numpy as np
import torch

import hstlib
from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.cache import store_root
from hstlib.data.datasets import Sample, VideoSet
from hstlib.data.index import INDEX, Index, StoredVideo, video_name
from hstlib.data.inspection import identity, size_and_mtime
from hstlib.data.store import list_key, settings_key
from hstlib.data.verify import verified_sha256
from hstlib.training.identity import DataIdentity, RunIdentity
from hstlib.training.rows import RunRecord, load_record
from hstlib.training.state import has_state

log = logging.getLogger("hstlib")

PACKAGE_ROOT = Path(hstlib.__file__).resolve().parents[1]
"""Folder that contains the package: its checkout, or the folder that it is installed in."""


def identify_data(data: VideoSet, clip: ClipConfig) -> DataIdentity:
    """Return the lists and contents of a data set at one split.

    A video's hash is read from its clip store, if the video has not changed since; otherwise from
    the file.

    Args:
        data: Data set at the split.
        clip: How the clips of the store are cut.
    """
    train, test = [*data.train, *data.validation], data.test
    hashes = content_hashes(data, clip)
    return DataIdentity(
        class_names=data.classes,
        split_id=data.split_id,
        train_contents=_contents_sha256(train, hashes),
        test_contents=_contents_sha256(test, hashes),
    )


def content_hashes(data: VideoSet, clip: ClipConfig) -> dict[Path, str]:
    """Return the SHA-256 of each file that a split uses; ``missing`` or ``unreadable`` without one.

    Args:
        data: Data set at the split.
        clip: How the clips of the store are cut, which knows the hashes of unchanged videos.
    """
    folder = store_root() / settings_key(clip) / list_key(data.paths)
    stored = {}
    if (folder / INDEX).is_file():
        stored = {video.name: video for video in Index(folder / INDEX)}
    paths = {sample.path for sample in (*data.train, *data.validation, *data.test)}
    return {path: _file_sha256(path, stored.get(video_name(path))) for path in paths}


def _contents_sha256(samples: Sequence[Sample], hashes: Mapping[Path, str]) -> str:
    """Return one hash of the names, labels and contents of videos, wherever they are stored."""
    lines = {
        f"{sample.label} {video_name(Path(sample.path.name))} {hashes[sample.path]}"
        for sample in samples
    }
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def _file_sha256(path: Path, known: StoredVideo | None) -> str:
    """Return the hash of a file's content; ``missing`` or ``unreadable`` without one."""
    if known and known.sha256:
        status = size_and_mtime(path)
        if status in ((known.bytes, known.mtime_ns), (None, None)):  # clips outlive their video
            return known.sha256
    try:
        return identity(path).get("sha256", "missing")
    except OSError:
        return "unreadable"


def start_record(
    config: TrainConfig, data: VideoSet, run_identity: RunIdentity, folder: Path
) -> RunRecord:
    """Return the record of a run that starts or resumes now.

    Args:
        config: Settings of the run.
        data: Data set at the run's split.
        run_identity: Result of :func:`identify_data`, and the weights that the run starts from.
        folder: Folder of the run. The evaluations on the test set that its record has are kept; if
            it has a state to resume from, the start time is kept too.
    """
    commit, dirty = checkout_commit()
    record = RunRecord(
        run_id=config.run_id,
        config=config,
        **dict(run_identity),
        manifest=verified_sha256(data),
        started=now(),
        version=hstlib.__version__,
        commit=commit,
        dirty=dirty,
        environment=environment(),
    )
    earlier = load_record(folder)
    if earlier is None:
        return record
    kept = {"test_evaluations": earlier.test_evaluations}
    if has_state(folder):
        kept["started"] = earlier.started
        if commit != earlier.commit:
            log.warning("%s began at commit %s, this is %s", record.run_id, earlier.commit, commit)
    return record.model_copy(update=kept)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """Return the versions of the main packages, and the hardware."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def checkout_commit(root: Path = PACKAGE_ROOT) -> tuple[str, bool]:
    """Return the commit of hstlib's own checkout, and whether tracked files differ from it.

    If hstlib is no part of a repository, the commit is "unknown"; a repository that only surrounds
    an installed package does not count.

    Args:
        root: Folder that contains the package.
    """
    try:
        _git(root, "ls-files", "--error-unmatch", "hstlib/__init__.py")
        return _git(root, "rev-parse", "HEAD"), bool(_git(root, "status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def _git(root: Path, *arguments: str) -> str:
    # GIT_DIR and the like name another repository, for example in a hook.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return ran.stdout.strip()
