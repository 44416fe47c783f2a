"""A golden clip: a drawn video with the inputs and outputs of a model that belong to it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch import nn

from hstlib.config import TrainConfig
from hstlib.data.augment import evaluation_views
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.scenes import draw_frames
from hstlib.files import complete

RATE = 25  # Hz; not the usual 16, so that the choice of frames is checked too


def write_golden(path: Path, model: nn.Module, config: TrainConfig) -> None:
    """Write a golden clip as an .npz file, atomically.

    Its arrays, V being the number of views (crops of clips):

    * ``video``: bytes of a Matroska file (lossless FFV1, YUV 4:2:0, 25 Hz), to be read as a video;
    * ``frames``: uint8 (V, T, S, S, 3), RGB before normalisation;
    * ``flow``: float16 (V, 2, T, S, S), in pixels per frame;
    * ``logits``: float32 (V, num_classes), the model's output for them;
    * ``probabilities``: float32 (num_classes,), the answer for the video.

    Args:
        path: File to write.
        model: The model, on the CPU, in evaluation mode.
        config: Settings that the model was trained with.
    """
    with TemporaryDirectory() as folder:
        video = Path(folder) / "golden.mkv"
        write_lossless(video, draw_frames("slide", (0,), (0,)), RATE)
        content = np.frombuffer(video.read_bytes(), np.uint8)
        clips, clip_flow, *_ = cut_clips(video, config.clip)
    frames, flow = evaluation_views(clips, clip_flow, config.crop_size, config.num_crops)
    with torch.inference_mode():
        logits = model(normalise(torch.from_numpy(frames)), torch.from_numpy(flow).float())
    arrays = {
        "video": content,
        "frames": frames,
        "flow": flow,
        "logits": logits.numpy(),
        "probabilities": logits.softmax(-1).mean(0).numpy(),
    }
    with complete(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_lossless(path: Path, frames: list[np.ndarray], rate: int) -> None:
    """Write RGB frames as YUV 4:2:0 with FFV1, which loses nothing more.

    Args:
        path: The .mkv file.
        frames: RGB frames, uint8, shape (H, W, 3).
        rate: Frame rate, in Hz.
    """
    height, width = frames[0].shape[:2]
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate, width=width, height=height)
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
