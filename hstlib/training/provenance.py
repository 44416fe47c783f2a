"""What a result depends on beside its settings: data, versions, hardware and commit."""

import logging
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import accelerate
import cv2
import numpy as np
import torch

from hstlib.config import TrainConfig, project_root
from hstlib.data.datasets import VideoSet
from hstlib.data.verify import verified_sha256
from hstlib.training.rows import RunRecord, load_record
from hstlib.training.state import STATE

log = logging.getLogger("hstlib")


def start_record(config: TrainConfig, data: VideoSet, folder: Path) -> RunRecord:
    """Return the record of a run that starts or resumes now.

    Args:
        config: Settings of the run.
        data: Data set at the run's split.
        folder: Folder of the run. If it has a state to resume from, the start time and the
            evaluations of the run's first part are kept.
    """
    commit, dirty = checkout_commit()
    record = RunRecord(
        run_id=config.run_id,
        config=config,
        split_id=data.split_id,
        manifest=verified_sha256(data),
        started=now(),
        commit=commit,
        dirty=dirty,
        environment=environment(),
    )
    earlier = load_record(folder) if (folder / STATE).is_file() else None
    if earlier is None:
        return record
    if commit != earlier.commit:
        log.warning("%s began at commit %s, this is %s", record.run_id, earlier.commit, commit)
    first_part = {"started": earlier.started, "test_evaluations": earlier.test_evaluations}
    return record.model_copy(update=first_part)


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


def checkout_commit() -> tuple[str, bool]:
    """Return the commit of the checkout, and whether tracked files differ from it.

    Outside a checkout, the commit is "unknown".
    """
    try:
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(project_root()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
