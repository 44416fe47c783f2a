import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import matplotlib
import numpy as np
import pytest
import torch

from hstlib.__main__ import main
from hstlib.config import TrainConfig
from hstlib.data import demo
from hstlib.training.experiment import evaluated_checkpoint, run_experiment

matplotlib.use("agg")  # not MPLBACKEND, which notebook kernels would inherit
torch.set_num_threads(1)

HMDB51_LISTS = "testTrainMulti_7030_splits"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        if os.environ.get("FAIL_WITHOUT_CUDA"):
            pytest.fail("needs a GPU, and FAIL_WITHOUT_CUDA is set")
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Every test has its own random state and data root, so nothing lands in the checkout."""
    monkeypatch.setenv("HST_DATA", str(tmp_path / "data-root"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.backends.cuda.matmul.allow_tf32 = False
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


def map_here(function, items, workers=None, seconds=None):
    """Stands in for worker processes: same results, without the seconds to start them."""
    return ((item, function(item)) for item in items)


@pytest.fixture
def inline_pool(monkeypatch):
    monkeypatch.setattr("hstlib.data.shards.map_in_processes", map_here)
    monkeypatch.setattr("hstlib.data.demo.map_in_processes", map_here)


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float = 25) -> Path:
    height, width = frames[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter_fourcc(*"XVID")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="session")
def video_file() -> Callable[..., Path]:
    return write_video


def moving_frames(seed: int, count: int = 28, height: int = 24, width: int = 32) -> np.ndarray:
    """Soft noise that moves one pixel to the right per frame, RGB."""
    rng = np.random.default_rng(seed)
    wide = rng.uniform(0, 255, (height, width + count, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.5).clip(0, 255).astype(np.uint8)
    return np.stack([wide[:, count - t : count - t + width] for t in range(count)])


@pytest.fixture(scope="session")
def moving() -> Callable[..., np.ndarray]:
    return moving_frames


@pytest.fixture(scope="session")
def real_clips() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HST_REAL_CLIPS") or default)
    if not folder.is_dir():
        pytest.skip(f"no folder of real clips at {folder}; set HST_REAL_CLIPS")
    return folder


@pytest.fixture(scope="session")
def hmdb51_root(tmp_path_factory) -> Path:
    """A small HMDB51: 51 classes of two train, one test and one unused clip; two files exist."""
    root = tmp_path_factory.mktemp("hmdb51")
    lists = root / HMDB51_LISTS
    lists.mkdir()
    for label in range(51):
        name = f"class_{label:02d}"
        for split in (1, 2, 3):
            clips = [f"Film_{i}_{name}_f_nm_np1_fr_goo_{i}.avi" for i in range(4)]
            tags = np.roll([1, 1, 2, 0], split - 1)
            lines = [f"{clip} {tag} \n" for clip, tag in zip(clips, tags, strict=True)]
            (lists / f"{name}_test_split{split}.txt").write_text("".join(lines))
    for clip in (0, 2):
        path = root / "hmdb51_org" / "class_07" / f"Film_{clip}_class_07_f_nm_np1_fr_goo_{clip}.avi"
        write_video(path, moving_frames(seed=clip))
    return root


@pytest.fixture(scope="session")
def ucf101_root(tmp_path_factory) -> Path:
    """A small UCF101: 101 classes of three groups, one of them tested in each split."""
    root = tmp_path_factory.mktemp("ucf101")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    names = ["HandStandPushups", *(f"Class{i:03d}" for i in range(1, 101))]
    write = {"classInd": [f"{i} {name}" for i, name in enumerate(names, start=1)]}
    for split in (1, 2, 3):
        clips = [
            (label, f"{name}/v_{name}_g{group:02d}_c01.avi", group)
            for label, name in enumerate(names, start=1)
            for group in (1, 2, 3)
        ]
        write[f"trainlist{split:02d}"] = [f"{clip} {i}" for i, clip, g in clips if g != split]
        write[f"testlist{split:02d}"] = [clip for _, clip, g in clips if g == split]
    for file, lines in write.items():
        (lists / f"{file}.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    folder = root / "UCF-101" / "HandstandPushups"  # the archive's capitals, not the lists'
    for group in (1, 2):
        write_video(folder / f"v_HandstandPushups_g{group:02d}_c01.avi", moving_frames(seed=group))
    return root


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory) -> Path:
    """Two classes of six groups: the same textures, moving to the right or to the left."""
    root = tmp_path_factory.mktemp("folders") / "moves"
    for group in range(6):
        frames = moving_frames(seed=group)
        write_video(root / "right" / f"seq{group:02d}_0.avi", frames)
        write_video(root / "left" / f"seq{group:02d}_1.avi", frames[::-1])
    return root


@pytest.fixture(params=["demo-hmdb51", "demo-ucf101"])
def drawn_corpus(request, tmp_path, inline_pool, monkeypatch) -> str:
    """Name of a drawn corpus; every 25th of its videos is in the data root."""
    writer = f"_write_{request.param.removeprefix('demo-')}"
    write_all = getattr(demo, writer)
    monkeypatch.setattr(demo, writer, lambda root, seed: write_all(root, seed)[::25])
    demo.make_demo(request.param)
    return request.param


@pytest.fixture(scope="session")
def finished_run(class_folders, tmp_path_factory) -> SimpleNamespace:
    """One epoch of R3D on the class folders: config, row, results, data root and checkpoint."""
    results = tmp_path_factory.mktemp("results")
    data_root = tmp_path_factory.mktemp("data-root")
    config = TrainConfig(
        dataset="folder", data_dir=str(class_folders), model="r3d", backbone="demo",
        epochs=1, batch_size=4, device="cpu", size=16, clips_per_video=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("HST_DATA", str(data_root))
        patch.setattr("hstlib.data.shards.map_in_processes", map_here)
        row = run_experiment(config, results)
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)
    checkpoint = evaluated_checkpoint(config, results)
    return SimpleNamespace(
        config=config, row=row, results=results, data_root=data_root, checkpoint=checkpoint
    )


@pytest.fixture
def in_its_data_root(finished_run, monkeypatch, inline_pool):
    """Use the data root of the finished run, which has its clip store."""
    monkeypatch.setenv("HST_DATA", str(finished_run.data_root))


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command line; returns the lines of its standard output."""

    def call(*arguments) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["hstlib", *map(str, arguments)])
        main()
        return capsys.readouterr().out.splitlines()

    return call
