from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from hstlib.config import TrainConfig
from hstlib.data.clips import cut_clips, normalise
from hstlib.data.datasets import load_dataset
from hstlib.data.overlay import put_heat
from hstlib.data.video import inspect_video
from hstlib.inference.explained_video import arrange, explain_clips, explain_video
from hstlib.inference.explanation import (
    choice_of_softmax,
    explain_clip,
    feature_layers,
    layers_to_draw,
)
from hstlib.inference.predictor import Predictor
from hstlib.model.registry import MODELS, build_model
from hstlib.model.residual import VideoResNet
from hstlib.training.checkpoint import save_checkpoint
from hstlib.training.provenance import identify_data

SIZE = 32


def clip(seed: int = 0, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (16, size, size, 3), np.uint8)
    return frames, rng.normal(size=(2, 16, size, size)).astype(np.float16)


def inputs(frames: np.ndarray, flow: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return normalise(torch.from_numpy(frames))[None], torch.from_numpy(flow).float()[None]


def grad_cam_by_definition(features: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """Sum the channels, each weighted by its mean gradient times the number of positions."""
    (gradient,) = torch.autograd.grad(logit, features, retain_graph=True)
    cam = 0
    for channel, slope in zip(features[0], gradient[0], strict=True):
        cam = cam + slope.mean() * slope.numel() * channel
    size = (16, SIZE, SIZE)
    return functional.interpolate(cam[None, None], size, mode="trilinear")[0, 0]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_explained_without_configuration(name):
    model = build_model(name, 5, "demo").eval()
    frames, flow = clip()
    maps = explain_clip(model, frames, flow, label=3)
    assert maps.grad_cam.shape == (16, SIZE, SIZE) and maps.grad_cam.dtype == np.float32
    assert np.isfinite(maps.grad_cam).all() and maps.grad_cam.min() >= 0
    with torch.no_grad():
        probabilities = model(*inputs(frames, flow)).softmax(-1)[0]
    assert maps.probability == pytest.approx(float(probabilities[3]), abs=1e-5)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert explain_clip(model, frames, flow).label == int(probabilities.argmax())
    assert (maps.hst is not None) == (name == "hst")


@pytest.mark.parametrize("name", ["r3d-standard", "c3d"])
def test_grad_cam_is_what_plain_autograd_gives(name):
    model = build_model(name, 5, "demo").eval()
    frames, flow = clip()
    clips, _ = inputs(frames, flow)
    if name == "c3d":
        features = model.features[:-1](clips)
        grid = model.features[-1](features).squeeze(2)
        logits = model.head(functional.adaptive_avg_pool2d(grid, model.grid))[0]
    else:
        features = model.blocks(model.stem(clips))
        logits = model.head(features.mean((2, 3, 4)))[0]
    largest = 0.0
    for label, logit in enumerate(logits):
        expected = grad_cam_by_definition(features, logit).relu().detach()
        cam = torch.from_numpy(explain_clip(model, frames, flow, label).grad_cam)
        assert_close(cam, expected, rtol=1e-3, atol=1e-6)
        largest = max(largest, float(expected.max()))
    assert largest > 1e-4


def test_grad_cam_of_hst_is_that_of_its_last_windows():
    model = build_model("hst", 5, "demo").eval()
    frames, flow = clip()
    clips, fields = inputs(frames, flow)
    windows = model.windows(clips)
    prior = model.hierarchy.prior(windows.flatten(1, 2))
    for unit in model.hierarchy.units:
        windows, prior = unit(windows, prior), None
    first, second = windows[:, :4].mean(1), windows[:, 4:].mean(1)
    spatial = model.spatial_attention(first, second)
    temporal = model.temporal(fields, first.shape[-2:])
    logits = model.head(model.hybrid_attention(spatial, temporal))[0]
    (gradient,) = torch.autograd.grad(logits[1], windows)
    weights = gradient[0].sum((0, 2, 3))
    cam = torch.einsum("c,kchw->khw", weights, windows[0])
    expected = functional.interpolate(cam[None, None], (16, SIZE, SIZE), mode="trilinear")[0, 0]
    found = torch.from_numpy(explain_clip(model, frames, flow, label=1).grad_cam)
    assert_close(found, expected.relu().detach(), rtol=1e-3, atol=1e-6)


def reds_against_blues() -> VideoResNet:
    """A network whose evidence is known: red speaks for class 0, blue for class 1."""
    stem = nn.Conv3d(3, 2, 1, stride=(1, 2, 2), bias=False)
    model = VideoResNet(stem, [nn.ReLU()], nn.Linear(2, 2)).eval()
    with torch.no_grad():
        stem.weight.zero_()
        stem.weight[0, 0], stem.weight[1, 2] = 1, 1
        model.head.weight.copy_(torch.eye(2))
    return model


def test_the_map_is_where_the_evidence_is_and_sums_to_the_logit():
    frames, flow = np.zeros((16, SIZE, SIZE, 3), np.uint8), clip()[1]
    frames[:8, :16, :16, 0] = 255  # red: upper left corner, first half
    frames[8:, 16:, 16:, 2] = 255  # blue: lower right corner, second half
    model = reds_against_blues()
    for label, (times, half) in enumerate([(slice(8), slice(16)), (slice(8, 16), slice(16, 32))]):
        cam = explain_clip(model, frames, flow, label).grad_cam
        inside = cam[times, half, half]
        assert inside.min() > 0 and inside.sum() > 0.9 * cam.sum()
        logit = model(*inputs(frames, flow))[0, label]
        assert cam.mean() == pytest.approx(float(logit.detach()), rel=1e-4)


def test_random_weights_give_another_map():
    frames, flow = clip()
    maps = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model("r3d-standard", 5, "demo").eval()
        cams = [explain_clip(model, frames, flow, label).grad_cam for label in range(5)]
        maps.append(np.ravel(cams))
    assert abs(np.corrcoef(maps)[0, 1]) < 0.7


def test_the_maps_of_hst_are_those_of_the_equations():
    model = build_model("hst", 5, "demo").eval()
    frames, flow = clip()
    maps = explain_clip(model, frames, flow).hst
    assert [mask.shape for mask in maps.masks[::2]] == [(8, 16, 16), (8, 16, 16), (8, 8, 8)]
    assert all(0 < mask.min() and mask.max() < 1 for mask in maps.masks)
    assert maps.beta.shape == maps.gamma.shape == maps.score.shape == (48, 4, 4)
    assert_close(torch.from_numpy(maps.beta.mean((1, 2))), torch.ones(48))
    with torch.no_grad():
        clips, fields = inputs(frames, flow)
        first, _ = model.maps(model, clips, fields)
        temporal = model.temporal(fields, first.shape[-2:])[0]
        vector = torch.from_numpy(maps.score).softmax(0).mean((1, 2)) * 48
        assert_close(torch.from_numpy(maps.temporal), temporal)
        assert_close(model.head(vector[None]), model(clips, fields), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("reading", "missing"),
    [
        ("trunk-alone", {"beta (11)", "score (17)", "T (1)"}),
        ("trunk-and-hybrid-attention", {"beta (11)"}),
        ("without-mask", {"mask (9)"}),
        ("without-flow", set()),
        ("text-of-equation-17", set()),
        ("modules-in-each-unit", set()),
        ("hard-mask+no-norm-on-mix", set()),
    ],
)
def test_readings_of_hst_have_the_maps_that_they_compute(reading, missing):
    model = build_model("hst", 5, "demo", reading).eval()
    layers = layers_to_draw(explain_clip(model, *clip()))
    names = {"Grad-CAM", "mask (9)", "beta (11)", "score (17)", "T (1)"}
    assert layers.keys() == names - missing
    assert all(layer.values.shape == (16, SIZE, SIZE) for layer in layers.values())
    assert all(layer.values.min() >= 0 for layer in layers.values())


def test_the_choice_of_a_softmax_is_zero_if_it_prefers_nothing():
    assert choice_of_softmax(np.zeros((4, 2, 2), np.float32), True).max() == 0
    decided = np.zeros((4, 1, 1), np.float32)
    decided[2] = 50
    assert choice_of_softmax(decided, True).item() == pytest.approx(np.log(4), abs=1e-4)
    assert choice_of_softmax(np.zeros((4, 2, 2), np.float32), False).tolist() == [[1, 1], [1, 1]]


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="Linear is no model of hstlib"):
        feature_layers(nn.Linear(2, 2))


def test_a_map_is_drawn_over_grey_only_where_it_is_high():
    values = np.zeros((4, 6), np.float32)
    values[:, 3:] = 1
    frame = put_heat(np.full((4, 6, 3), (200, 20, 20), np.uint8), values)
    assert (frame[:, :3] == frame[:, :3, :1]).all()
    red, green, blue = frame[0, 5].astype(int)
    assert red > 180 and green > 180 and blue < 80  # yellow


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (1920, 1080), (64, 96)])
@pytest.mark.parametrize("panels", [2, 3, 6])
def test_panels_fit_and_can_be_read(panels, width, height):
    columns, (w, h) = arrange(panels, width, height)
    rows = -(-panels // columns)
    assert columns * w <= 1920 and rows * h <= 1080 and w % 2 == h % 2 == 0
    assert w / h == pytest.approx(width / height, rel=0.03) and max(w, h) >= 236


def checkpoint(folder: Path, data: Path, **settings) -> Path:
    config = TrainConfig(
        dataset="folder", data_dir=str(data), backbone="demo", size=SIZE, **settings
    )
    videos = load_dataset("folder", data)
    model = build_model(config.model, len(videos.classes), config.backbone)
    identity = identify_data(videos, config.clip)
    save_checkpoint(folder / "last.safetensors", model, config, identity)
    return folder / "last.safetensors"


@pytest.mark.parametrize(("model", "panels"), [("hst", 6), ("r3d-flow", 2)])
def test_a_video_is_explained(model, panels, class_folders, video_file, moving, tmp_path):
    source = video_file(tmp_path / "tall.avi", moving(0, count=17, height=64, width=48), fps=20)
    weights = checkpoint(tmp_path, class_folders, model=model)
    label, probability = explain_video(weights, source, tmp_path / "out.avi")
    assert label in ("left", "right") and 0.5 <= probability <= 1
    before, after = inspect_video(source), inspect_video(tmp_path / "out.avi")
    assert after.frames == before.frames and after.rate == pytest.approx(20, abs=0.1)
    _, (width, height) = arrange(panels, 48, 64)
    assert (after.width, after.height) == (panels * width, height)
    with pytest.raises(ValueError, match=r"out\.avi exists; .* --force"):
        explain_video(weights, source, tmp_path / "out.avi")


def test_a_gif_is_explained(class_folders, tmp_path):
    source = next(class_folders.rglob("*.avi"))
    explain_video(checkpoint(tmp_path, class_folders, model="r3d"), source, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size[0] <= 640 and image.n_frames > 1


def test_frames_between_clips_have_no_map_and_crops_come_back_in_place(
    video_file, moving, tmp_path
):
    config = TrainConfig(
        model="r3d", backbone="demo", size=32, crop_size=16, num_crops=3, clips_per_video=2
    )
    predictor = Predictor(build_model("r3d", 3, "demo"), config, "abc")
    source = video_file(tmp_path / "long.avi", moving(0, count=80), fps=16)
    maps = explain_clips(predictor, cut_clips(source, config.clip))
    assert maps.sources.shape == (2, 16) and maps.at(40) is None
    (cam,) = maps.at(3).values()
    assert cam.shape == (32, 32) and not cam[:8].any() and not cam[24:].any()
    assert max(values.max() for values in maps.layers.values()) == pytest.approx(1)
