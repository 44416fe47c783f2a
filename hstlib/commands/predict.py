"""Commands that use a trained model: on videos and streams, and outside of hstlib."""

import re
import sys
from collections import deque
from collections.abc import Iterable
from json import dumps
from pathlib import Path

import tyro

from hstlib.commands.output import say

Positional = tyro.conf.Positional
RECENT = 10_000  # windows that the speed of a stream is computed from


def predict(
    videos: Positional[list[Path]],
    checkpoint: Path,
    top: int = 5,
    json: bool = False,
    annotated: Path | None = None,
    explain: Path | None = None,
    force: bool = False,
) -> None:
    """Classify video files, and all videos in folders.

    Args:
        videos: Video files and folders.
        checkpoint: A .safetensors file written by train.
        top: Number of classes to print for each video.
        json: Print one JSON object per video; of one that cannot be used, the reason.
        annotated: Write a copy of the video with the prediction drawn on it, as .mp4, .webm, .avi
            or .gif; takes one video.
        explain: Write a copy of the video with maps of where the model looked, in the same formats;
            takes one video.
        force: Replace existing copies.
    """
    from hstlib import load
    from hstlib.data.overlay import annotate_video
    from hstlib.inference.explained_video import explain_video
    from hstlib.inference.predictor import list_videos

    for video in videos:
        if re.match(r"\w{2,}:/", str(video)):
            raise ValueError(f"{video} is an address; use `python -m hstlib stream`")
    files = list_videos(videos)
    for option, copy in {"annotated": annotated, "explain": explain}.items():
        if copy:
            _check_copy(option, copy, files, force)
    failed = 0
    for prediction in load(checkpoint).each(files, top):
        if json:
            say(dumps(prediction.as_dict()))
        elif prediction.error:
            say(prediction.error, to_errors=True)
        else:
            guesses = (f"{guess.label} {guess.probability:.3f}" for guess in prediction.top)
            say("  ".join([str(prediction.video), *guesses]))
        failed += prediction.error is not None
        if annotated and not prediction.error:
            annotate_video(prediction.video, annotated, *prediction.best)
        if explain and not prediction.error:
            explain_video(checkpoint, prediction.video, explain, force)
    if failed:
        raise SystemExit(f"{failed} of {len(files)} files cannot be used")


def _check_copy(option: str, copy: Path, files: list[Path], force: bool) -> None:
    """Check that a copy of the only video can be written."""
    from hstlib.data.overlay import check_target

    if len(files) != 1:
        raise ValueError(f"--{option} {copy} takes one video, not {len(files)}")
    check_target(files[0], copy)
    _refuse_existing(copy, force)


def stream(source: Positional[str], checkpoint: Path, every: float = 0.5, top: int = 5) -> None:
    """Classify a camera, a network stream or a video with a sliding window, until Ctrl-C.

    Prints one JSON object per window: its start and end in seconds of the source, the most
    probable classes, the time to compute it, and the delay since its last frame. Windows of a live
    source that come too late are left out, so the delay does not grow.

    Args:
        source: Number of a camera (0 is the first), an address such as rtsp://..., or a video file.
        checkpoint: A .safetensors file written by train.
        every: Time from one window to the next, in seconds.
        top: Number of classes to print for each window.
    """
    from hstlib import load
    from hstlib.inference.source import shown

    computes, delays = deque(maxlen=RECENT), deque(maxlen=RECENT)
    count = skipped = 0
    try:
        for window in load(checkpoint).watch(source, every, top):
            computes.append(window.compute)
            delays.append(window.delay)
            count, skipped = count + 1, skipped + window.skipped
            say(dumps(window.as_dict()))  # after the count: its reader may send Ctrl-C at once
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    finally:
        if count:
            line = f"{shown(source)}: {count} windows, {skipped} left out"
            times = {"compute": computes, "delay": [delay for delay in delays if delay is not None]}
            speed = (_speed(name, seconds) for name, seconds in times.items() if seconds)
            say("; ".join([line, *speed]), to_errors=True)


def _speed(name: str, seconds: Iterable[float]) -> str:
    """Return median and 95th percentile of a time, in words."""
    import numpy as np

    median, high = 1000 * np.percentile([*seconds], [50, 95])
    return f"{name} {median:.0f} ms (95 % within {high:.0f} ms)"


def export(
    checkpoint: Positional[Path], onnx: Positional[Path | None] = None, force: bool = False
) -> None:
    """Export a checkpoint as an ONNX file, which can be used without hstlib and torch.

    Beside it, a golden clip is written: a drawn video with the inputs and outputs that belong to
    it, to check another implementation of the preprocessing with.

    Args:
        checkpoint: A .safetensors file written by train.
        onnx: File to write; by default next to the checkpoint.
        force: Replace existing files.
    """
    from hstlib.inference.export import export_onnx, golden_path
    from hstlib.training.checkpoint import load_checkpoint

    path = onnx or checkpoint.with_suffix(".onnx")
    files = path, golden_path(path)
    for file in files:
        _refuse_existing(file, force)
    export_onnx(path, *load_checkpoint(checkpoint))
    say(*files)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ValueError(f"{path} exists; name another file, or replace it with --force")
