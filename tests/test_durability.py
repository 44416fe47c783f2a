"""What was reported as done survives signals, kills and power cuts."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from test_resume import command, epochs
from test_train import Clips, Net, settings, weights

from hstlib.config import ClipConfig
from hstlib.data.cache import check_stores
from hstlib.data.store import prepare_store
from hstlib.files import UNFINISHED
from hstlib.training.experiment import run_experiment
from hstlib.training.loop import train
from hstlib.training.sealed import load_sealed
from hstlib.training.state import PREVIOUS, STATE, describe_place


def stop_in_training(arguments: list[str], results: Path, number: int) -> subprocess.Popen:
    """Start a run, and send all its processes a signal once an epoch is finished."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        arguments, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    while process.poll() is None and not epochs(results):
        time.sleep(0.005)
    os.killpg(process.pid, number)
    return process


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_its_code_and_one_line(
    class_folders, tmp_path, number, code, workers
):
    results = tmp_path / "results"
    process = stop_in_training(command(class_folders, results, workers), results, number)
    _, errors = process.communicate()
    done = len(epochs(results))
    assert process.returncode == code and done > 0, errors
    line = errors.splitlines()[-1]
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    assert len(load_sealed(folder / STATE)[0]["records"]) == done
    place = describe_place(folder)
    assert f"after epoch {done}" == place or f"in epoch {done + 1}, after step " in place
    assert line.endswith(f"stopped by {number.name}; the same command resumes {place}")
    assert "Traceback" not in errors
    assert line[9:] in (folder / "log.txt").read_text()
    assert not list(folder.glob(f".*{UNFINISHED}"))


def test_what_killed_processes_left_is_swept_at_the_next_start(
    finished_run, in_its_data_root, tmp_path
):
    folder = tmp_path / finished_run.config.run_id
    for name in (STATE, "last.safetensors", "epochs.jsonl"):
        leftover = folder / f".{name}.77{UNFINISHED}"
        (leftover.with_name(leftover.name + UNFINISHED)).mkdir(parents=True)
        leftover.write_bytes(b"part")
    (folder / ".notes").write_text("of the user")
    run_experiment(finished_run.config, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.endswith(UNFINISHED)]
    assert ".notes" in names and PREVIOUS not in names
    (folder / PREVIOUS).write_bytes(b"a kill came after the row")
    run_experiment(finished_run.config, tmp_path)
    assert not (folder / PREVIOUS).exists()
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.*")} == {0o644}


TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_durability import train_for
from hstlib.training.sealed import save_sealed
from hstlib.files import complete

folder = Path(sys.argv[1])
for epochs in range(1, 999):
    model = train_for(epochs, folder / "run")
    save_sealed(folder / f"{epochs}.safetensors", model.state_dict(), {"epochs": epochs})
    with complete(folder / f"{epochs}.json") as unfinished:
        unfinished.write_text(str(epochs))
    print(epochs, flush=True)
"""
PREPARING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import hstlib.data.shards
from conftest import map_here
from test_durability import prepare_nth

hstlib.data.shards.map_in_processes = map_here
for number in range(1, 999):
    prepare_nth(number, Path(sys.argv[3]), Path(sys.argv[1]))
    print(number, flush=True)
"""


def train_for(epochs: int, folder: Path | None = None) -> Net:
    torch.manual_seed(7)
    model = Net()
    train(model, Clips(), settings(epochs=epochs), folder=folder)
    return model


def prepare_nth(number: int, videos: Path, stores: Path) -> None:
    clip = ClipConfig(size=16, clips_per_video=1, fps=10 + number / 8)
    prepare_store(sorted(videos.rglob("*.avi")), clip, stores)


@pytest.fixture
def images(tmp_path) -> Iterator[Path]:
    """A folder for images of disks, in memory if there is room: its flushes cost no time."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    with TemporaryDirectory(dir=memory if roomy else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def disk(request, tmp_path, images) -> Iterator[Path]:
    """A small file system in a file, ``disk.img`` in the folder of images, mounted at a folder."""
    needed = (f"mkfs.{request.param}", "mount", "umount")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        pytest.skip(f"needs root and {', '.join(needed)}")
    folder, image = tmp_path / "disk", images / "disk.img"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(300 << 20)  # xfs takes no less
    subprocess.run([f"mkfs.{request.param}", "-q", image], check=True)
    with mounted(image, folder):
        yield folder


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    with image.open("rb") as file:  # the copy of an xfs has the same UUID as the mounted original
        options = "loop,nouuid" if file.read(4) == b"XFSB" else "loop"
    mount = ["mount", "-o", options, image, folder]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a loop device: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


EACH_DISK = [
    ("ext4", 2),  # one right after a report, one at random
    pytest.param("ext4", 20, marks=pytest.mark.slow),
    pytest.param("xfs", 20, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("disk", "cuts"), EACH_DISK, indirect=["disk"])
def test_a_power_cut_in_training_loses_nothing_that_was_reported(disk, images, tmp_path, cuts):
    for folder, done in power_cuts(TRAINING, disk, images, tmp_path, cuts):
        for number in range(1, done + 1):
            assert json.loads((folder / f"{number}.json").read_text()) == number
            metadata, _, _ = load_sealed(folder / f"{number}.safetensors")
            assert metadata == {"epochs": number}
        states = [path for name in (STATE, PREVIOUS) if (path := folder / "run" / name).is_file()]
        assert len(load_sealed(states[0])[0]["records"]) >= done
        resumed = train_for(done + 2, folder / "run")
        assert torch.equal(weights(resumed), weights(train_for(done + 2)))
        assert len((folder / "run" / "epochs.jsonl").read_text().splitlines()) == done + 2


@pytest.mark.parametrize(("disk", "cuts"), EACH_DISK, indirect=["disk"])
def test_a_power_cut_while_clips_are_prepared_loses_no_finished_store(
    disk, images, tmp_path, cuts, class_folders, inline_pool, monkeypatch
):
    whole, prepared = images / "whole", 0
    for folder, done in power_cuts(PREPARING, disk, images, tmp_path, cuts, str(class_folders)):
        assert not list(check_stores(folder))
        while prepared < done + 1:
            prepared += 1
            prepare_nth(prepared, class_folders, whole)
        with monkeypatch.context() as patch:
            patch.setattr("hstlib.data.shards.cut_clips", lambda *_: pytest.fail("lost"))
            for number in range(1, done + 1):
                prepare_nth(number, class_folders, folder)
        prepare_nth(done + 1, class_folders, folder)
        assert contents(folder) == contents(whole)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.glob("[!l]*/[!.]*/**/*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def power_cuts(
    script: str, disk: Path, images: Path, scratch: Path, cuts: int, *arguments: str
) -> Iterator[tuple[Path, int]]:
    """Run a script that writes to a disk, and cut the power right after a report or at random.

    The image is copied as it is: what is only in the memory of the mounted file system is not in
    the copy.

    Yields:
        The folder where the copy is mounted, and how much the script had reported as done.
    """
    said, copy, rng = scratch / "said", images / "copy.img", random.Random(0)
    command = [sys.executable, "-c", script, str(disk), str(Path(__file__).parent), *arguments]
    with said.open("w") as out, subprocess.Popen(command, stdout=out) as writer:
        try:
            for number in range(cuts):
                reported = said.read_text()
                writer.send_signal(signal.SIGCONT)
                while said.read_text() == reported:
                    assert writer.poll() is None
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.25 if number % 2 else 0)
                writer.send_signal(signal.SIGSTOP)
                subprocess.run(["cp", "--sparse=always", images / "disk.img", copy], check=True)
                after = scratch / f"after{number}"
                after.mkdir()
                with mounted(copy, after):
                    yield after, len(said.read_text().splitlines())
        finally:
            writer.kill()


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_full_disk_keeps_the_last_state(disk):
    train(Net(), Clips(), settings(epochs=2), folder=disk / "run")
    with (disk / "rest").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    with pytest.raises(OSError, match="No space left"):
        train(Net(), Clips(), settings(epochs=4), folder=disk / "run")
    assert not list(disk.glob(f"run/.*{UNFINISHED}"))
    (disk / "rest").unlink()
    records = train(Net(), Clips(), settings(epochs=4), folder=disk / "run").records
    assert [record.epoch for record in records] == [0, 1, 2, 3]
