"""How a video becomes the inputs of a model, written down for other implementations."""

from hstlib.config import TrainConfig
from hstlib.data.clips import RGB_MEAN, RGB_STD
from hstlib.data.flow import DIS_PRESETS, flow_parameters
from hstlib.data.video import TIME_TOLERANCE

CHOICE = (
    "Decode every frame of the video stream, with its rotation applied. Times start at the first "
    "frame. Frame k of the resampled video is the decoded frame that is nearest to k / rate; "
    "halfway between two, the later one, and times within the tolerance count as halfway. The "
    "resampled video ends half a frame, the median time between two, after the last time."
)
RESIZE = {
    "stretch": "Resize every frame to size x size, whatever its aspect ratio.",
    "letterbox": (
        "Apply the pixel aspect ratio, resize the longer side to size, round the shorter, and "
        "centre the frame on black."
    ),
}
INTERPOLATION = (
    "FFmpeg's swscale with the area method if the width gets smaller, else the bilinear one; in "
    "PyAV: frame.reformat(width, height, 'rgb24', interpolation='AREA' or 'BILINEAR'). OpenCV's "
    "INTER_AREA and INTER_LINEAR are close, not equal."
)
SAMPLING = {
    "consecutive": (
        "A clip is 'frames' consecutive frames of the resampled video. With free = max(0, length - "
        "frames), a single clip starts at free // 2, clip i of n at round(i * free / (n - 1)). A "
        "shorter video repeats its last frame."
    ),
    "uniform": (
        "A clip is frames round(linspace(0, length - 1, frames)) of the resampled video, ties to "
        "even."
    ),
}
LAST_FIELD = {
    "consecutive": (
        "The last field of a clip is from its last frame to the next frame of the resampled video. "
        "If the video has no next frame, it repeats the field before it."
    ),
    "uniform": "The last field of a clip repeats the field before it.",
}
UNITS = (
    "x to the right, then y downwards, in pixels per frame of the clip at 'size', before cropping; "
    "neither scaled nor clipped; rounded to float16, then float32."
)
VIEWS = (
    "Each crop of each clip is one item of a batch. The probabilities of a video are the mean of "
    "softmax(logits) over all of them."
)


def describe_preprocessing(config: TrainConfig) -> dict:
    """Describe how a video becomes the inputs of a model, as JSON.

    Numbers are values to compute with, ``rule`` and ``units`` are sentences.

    Args:
        config: Settings that the model was trained with.

    Returns:
        One entry per step, in order: ``frames``, ``resize``, ``clips``, ``flow``, ``crops``,
        ``normalisation``, ``views``.
    """
    return {
        "frames": {"rate": config.fps, "tolerance": TIME_TOLERANCE, "rule": CHOICE},
        "resize": {
            "size": config.size,
            "fit": config.fit,
            "interpolation": {"smaller": "area", "larger": "bilinear"},
            "colours": "RGB",
            "rule": f"{RESIZE[config.fit]} {INTERPOLATION}",
        },
        "clips": {
            "frames": config.num_frames,
            "sampling": config.sampling,
            "per_video": config.clips_per_video,
            "rule": SAMPLING[config.sampling],
        },
        "flow": _describe_flow(config),
        "crops": {"size": config.input_size, "top_left": _crops(config)},
        "normalisation": {
            "divide_by": 255,
            "mean": RGB_MEAN,
            "std": RGB_STD,
            "rule": "(frames / divide_by - mean) / std, by channel",
        },
        "views": {"rule": VIEWS},
    }


def _describe_flow(config: TrainConfig) -> dict:
    algorithm = {"farneback": "cv2.calcOpticalFlowFarneback", "difference": "cv2.absdiff"}
    rule = (
        "Convert the resized frames to grey with cv2.COLOR_RGB2GRAY, and compute the field from "
        f"each frame of a clip to the next. {LAST_FIELD[config.sampling]}"
    )
    if config.flow == "difference":
        rule += " A field is x = 0, y = absdiff / LevelsPerPixel."
    return {
        "algorithm": algorithm.get(config.flow, "cv2.DISOpticalFlow"),
        "preset": DIS_PRESETS.get(config.flow),
        "parameters": flow_parameters(config.flow),
        "rule": rule,
        "units": UNITS,
    }


def _crops(config: TrainConfig) -> list[tuple[int, int]]:
    """Return row and column of the upper left corner of every crop."""
    margin = config.size - config.input_size
    columns = [0, margin // 2, margin] if config.num_crops == 3 and margin else [margin // 2]
    return [(margin // 2, column) for column in columns]
