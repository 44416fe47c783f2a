"""Classify a video with an exported model, without torch and hstlib.

    pip install av numpy onnxruntime opencv-python-headless
    python onnx_predict.py model.onnx clip.mp4

All it needs to know about the model is in the metadata of the ONNX file.
"""

import json
import sys

import av
import cv2
import numpy as np
from onnxruntime import InferenceSession

session = InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map
classes, how = json.loads(metadata["classes"]), json.loads(metadata["preprocessing"])
rate, size = how["frames"]["rate"], how["resize"]["size"]
count, crop, colours = how["clips"]["frames"], how["crops"]["size"], how["normalisation"]
kind = how["resize"]["fit"], how["clips"]["sampling"], how["flow"]["algorithm"]
if kind != ("stretch", "consecutive", "cv2.DISOpticalFlow"):
    sys.exit(f"this example does not cover {kind}; see the rules in the metadata")

with av.open(sys.argv[2]) as container:
    decoded = list(container.decode(video=0))
times = np.array([(frame.pts - decoded[0].pts) * float(frame.time_base) for frame in decoded])
halfway = (times[:-1] + times[1:]) / 2 - how["frames"]["tolerance"]
end = times[-1] + np.median(np.diff(times)) / 2 - how["frames"]["tolerance"]
shown = np.searchsorted(halfway, np.arange(np.ceil(end * rate)) / rate, side="right")


def picture(frame: av.VideoFrame) -> np.ndarray:
    """Resize a frame as shown: RGB, (size, size, 3)."""
    method = "AREA" if size < frame.width else "BILINEAR"
    pixels = frame.reformat(size, size, "rgb24", interpolation=method).to_ndarray()
    return np.rot90(pixels, frame.rotation // 90)


views = []
free, number = max(0, len(shown) - count), how["clips"]["per_video"]
for i in range(number):
    start = free // 2 if number == 1 else round(i * free / (number - 1))
    indices = np.minimum(np.arange(start, start + count + 1), len(shown) - 1)
    frames = np.stack([picture(decoded[shown[index]]) for index in indices])
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    dis = cv2.DISOpticalFlow_create(how["flow"]["preset"])
    fields = [dis.calc(a, b, None) for a, b in zip(grey, grey[1:], strict=False)]
    if start + count >= len(shown):  # no frame after the clip
        fields[-1] = fields[-2]
    flow = np.stack(fields).astype(np.float16).astype(np.float32)
    clip = (frames[:-1] / colours["divide_by"] - colours["mean"]) / colours["std"]
    for top, left in how["crops"]["top_left"]:
        rows, columns = slice(top, top + crop), slice(left, left + crop)
        inputs = {"clips": clip[:, rows, columns], "flow": flow[:, rows, columns]}
        # (T, H, W, channels) -> (1, channels, T, H, W)
        inputs = {k: np.moveaxis(v, -1, 0)[None].astype(np.float32) for k, v in inputs.items()}
        logits = session.run(None, inputs)[0][0].astype(np.float64)
        views.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())

probabilities = np.mean(views, axis=0)
for index in np.argsort(-probabilities):
    print(f"{classes[index]}\t{probabilities[index]:.6f}")
