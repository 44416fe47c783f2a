"""What was reported as done survives signals, kills and power cuts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_resume import command, epochs
from test_train import Clips, Net, settings

from hstlib.files import UNFINISHED
from hstlib.training.experiment import run_experiment
from hstlib.training.loop import train
from hstlib.training.sealed import load_sealed
from hstlib.training.state import PREVIOUS, STATE


def stop_in_training(arguments: list[str], results: Path, number: int) -> subprocess.Popen:
    """Start a run, and send a signal once an epoch is finished; return the ended process."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None and not epochs(results):
        time.sleep(0.005)
    process.send_signal(number)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_its_code_and_one_line(class_folders, tmp_path, number, code):
    results = tmp_path / "results"
    process = stop_in_training(command(class_folders, results), results, number)
    _, errors = process.communicate()
    done = len(epochs(results))
    assert process.returncode == code and done > 0
    line = f"stopped by {number.name}; the same command resumes after epoch {done}"
    assert errors.count(line) == 1 and errors.splitlines()[-1].endswith(line)
    assert "Traceback" not in errors
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    assert line in (folder / "log.txt").read_text()
    assert len(load_sealed(folder / STATE)[0]["records"]) == done
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
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.*")} == {0o644}


WRITER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
from test_train import Clips, Net, settings
from hstlib.training.loop import train
from hstlib.training.sealed import save_sealed
from hstlib.files import complete

folder = Path(sys.argv[1])
for epochs in range(1, 99):
    model = Net()
    train(model, Clips(), settings(epochs=epochs), folder=folder / "run")
    save_sealed(folder / f"{epochs}.safetensors", model.state_dict(), {"epochs": epochs})
    with complete(folder / f"{epochs}.json") as unfinished:
        unfinished.write_text(str(epochs))
    print(epochs, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small ext4 file system in a file, ``<folder>.img``, mounted at a folder."""
    needed = ("mkfs.ext4", "mount", "umount")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        pytest.skip(f"needs root and {', '.join(needed)}")
    folder, image = tmp_path / "disk", tmp_path / "disk.img"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, folder):
        yield folder


class mounted:  # noqa: N801, it is used as a function
    def __init__(self, image: Path, folder: Path):
        self.image, self.folder = image, folder

    def __enter__(self) -> None:
        made = subprocess.run(
            ["mount", "-o", "loop", self.image, self.folder], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"cannot mount a loop device: {made.stderr.strip()}")

    def __exit__(self, *_) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.mark.parametrize("cuts", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_power_cut_loses_nothing_that_was_reported(disk, tmp_path, cuts):
    """The image is copied as the disk has it: what is only in memory is not in the copy."""
    arguments = [sys.executable, "-c", WRITER, str(disk), str(Path(__file__).parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as writer:
        for _ in range(cuts):
            done = int(writer.stdout.readline())
            after, copy = tmp_path / f"after{done}", tmp_path / f"{done}.img"
            copy_of_the_disk(disk.with_suffix(".img"), copy)
            writer.stdin.write("\n")
            writer.stdin.flush()
            after.mkdir()
            with mounted(copy, after):
                check_all_is_there(after, done)
            copy.unlink()
        writer.kill()


def copy_of_the_disk(image: Path, copy: Path) -> None:
    """Copy the blocks that have reached the image, past the memory of the mounted file system."""
    dd = ["dd", f"if={image}", f"of={copy}", "bs=1M", "iflag=direct", "conv=sparse", "status=none"]
    subprocess.run(dd, check=True)


def check_all_is_there(folder: Path, done: int) -> None:
    for number in range(1, done + 1):
        assert json.loads((folder / f"{number}.json").read_text()) == number
        metadata, _, _ = load_sealed(folder / f"{number}.safetensors")
        assert metadata == {"epochs": number}
    assert len(load_sealed(folder / "run" / STATE)[0]["records"]) == done
    assert len((folder / "run" / "epochs.jsonl").read_text().splitlines()) == done


def test_a_full_disk_keeps_the_last_state(disk):
    train(Net(), Clips(), settings(epochs=2), folder=disk / "run")
    with (disk / "rest").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(OSError, match="No space left"):
        train(Net(), Clips(), settings(epochs=4), folder=disk / "run")
    assert not list(disk.glob(f"run/.*{UNFINISHED}"))
    (disk / "rest").unlink()
    records = train(Net(), Clips(), settings(epochs=4), folder=disk / "run").records
    assert [record.epoch for record in records] == [0, 1, 2, 3]
