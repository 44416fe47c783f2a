"""Export of a trained model as an ONNX file, which runs without this package and without torch."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from hstlib.config import TrainConfig
from hstlib.files import complete
from hstlib.inference.golden import write_golden
from hstlib.inference.preprocessing import describe_preprocessing
from hstlib.model.registry import USES_FLOW

CLIPS = (
    "RGB frames, chosen, resized and normalised as the metadata's 'preprocessing' says; float32, "
    "(batch, 3, frames, height, width)"
)
FLOW = (
    "Optical flow from each frame to the next, x then y, in pixels per frame at the size before "
    "cropping, as the metadata's 'preprocessing' says; float32, (batch, 2, frames, height, width)"
)
LOGITS = (
    "One logit per class of the metadata's 'classes', before softmax; average the probabilities "
    "over the clips of a video to classify it"
)


def export_onnx(path: Path, model: nn.Module, config: TrainConfig, classes: Sequence[str]) -> None:
    """Write a model as one ONNX file and a golden clip beside it, each atomically.

    All models have the inputs ``clips`` (batch, 3, 16, size, size) and ``flow`` (batch, 2, 16,
    size, size), float32 with any batch size, and the output ``logits`` (batch, num_classes). Models
    that ignore ``flow`` have the input too, and runtimes require it; pass zeros.

    The file's metadata are JSON: ``classes``, ``config`` (settings of the run) and
    ``preprocessing`` (:func:`hstlib.inference.preprocessing.describe_preprocessing`: how a video
    becomes the inputs). :func:`hstlib.inference.golden.write_golden` describes the golden clip.

    Args:
        path: Path of the .onnx file.
        model: The model, on the CPU; it is put into evaluation mode.
        config: Settings that the model was trained with.
        classes: Class names, in the order of the labels.

    Raises:
        ValueError: If the packages that write ONNX are not installed, or the suffix is not .onnx.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: suffix {path.suffix!r} is not .onnx")
    if find_spec("onnxscript") is None:
        raise ValueError("writing ONNX needs additional packages: pip install 'hstlib[export]'")
    program = _trace(model.eval(), config)
    graph = program.model.graph
    for part in (graph, *graph):
        part.metadata_props.clear()  # stack traces, which contain paths of this machine
    flow = FLOW if isinstance(model, USES_FLOW) else f"Ignored by this model. {FLOW}"
    for value, text in zip((*graph.inputs, *graph.outputs), (CLIPS, flow, LOGITS), strict=True):
        value.doc_string = text
    program.model.metadata_props.update(
        classes=json.dumps(list(classes)),
        config=config.model_dump_json(),
        preprocessing=json.dumps(describe_preprocessing(config)),
    )
    with complete(path) as unfinished:
        program.save(str(unfinished), external_data=False)
    write_golden(golden_path(path), model, config)


def golden_path(path: Path) -> Path:
    """Return where the golden clip of an .onnx file is stored."""
    return path.with_suffix(".golden.npz")


def _trace(model: nn.Module, config: TrainConfig) -> torch.onnx.ONNXProgram:
    shape = (config.num_frames, config.input_size, config.input_size)
    batch = torch.export.Dim("batch")
    with _quiet():
        return torch.onnx.export(
            model,
            (torch.zeros(2, 3, *shape), torch.zeros(2, 2, *shape)),
            input_names=["clips", "flow"],
            output_names=["logits"],
            dynamic_shapes={"clips": {0: batch}, "flow": {0: batch}},
            dynamo=True,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's exporter: hundreds of log lines and warnings about its own code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
