"""Commands that use a trained model: on videos, and outside of hstlib."""

from pathlib import Path

import tyro

from hstlib.commands.models import device
from hstlib.commands.output import say

Positional = tyro.conf.Positional


def predict(
    videos: Positional[list[Path]],
    checkpoint: Path,
    top: int = 5,
    annotated: Path | None = None,
    force: bool = False,
) -> None:
    """Classify video files.

    Args:
        videos: Video files.
        checkpoint: A .safetensors file written by train.
        top: Number of classes to print for each video.
        annotated: Write a copy of the video with the prediction drawn on it, as .mp4, .webm, .avi
            or .gif; takes one video.
        force: Replace an existing copy.
    """
    from hstlib.data.container import VideoError
    from hstlib.data.overlay import annotate_video, check_target
    from hstlib.training.checkpoint import load_checkpoint
    from hstlib.training.evaluate import predict_video

    if annotated:
        if len(videos) != 1:
            raise ValueError(f"--annotated {annotated} takes one video, not {len(videos)}")
        check_target(videos[0], annotated)
        _refuse_existing(annotated, force)
    model, config, classes = load_checkpoint(checkpoint, device())
    failed = 0
    for path in videos:
        try:
            probabilities = predict_video(model, path, config)
            if annotated:
                first = int(probabilities.argmax())
                annotate_video(path, annotated, classes[first], probabilities[first])
        except VideoError as error:
            failed += 1
            say(error, to_errors=True)
            continue
        best = probabilities.argsort()[::-1][:top]
        guesses = (f"{classes[i]} {probabilities[i]:.3f}" for i in best)
        say("  ".join([str(path), *guesses]))
    if failed:
        raise SystemExit(f"{failed} of {len(videos)} files cannot be used")


def export(
    checkpoint: Positional[Path], onnx: Positional[Path | None] = None, force: bool = False
) -> None:
    """Export a checkpoint as an ONNX file, which can be used without hstlib and torch.

    Args:
        checkpoint: A .safetensors file written by train.
        onnx: File to write; by default next to the checkpoint.
        force: Replace an existing file.
    """
    from hstlib.inference.export import export_onnx
    from hstlib.training.checkpoint import load_checkpoint

    path = onnx or checkpoint.with_suffix(".onnx")
    _refuse_existing(path, force)
    model, config, classes = load_checkpoint(checkpoint)
    export_onnx(path, model, config, classes)
    say(path)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ValueError(f"{path} exists; name another file, or replace it with --force")
