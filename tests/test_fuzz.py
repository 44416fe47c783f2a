"""Five hundred damaged files through verify, prepare and a training epoch."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from hstlib.config import TrainConfig
from hstlib.data.clips import cut_clips
from hstlib.data.datasets import load_dataset
from hstlib.data.verify import verify
from hstlib.training.experiment import open_store, run_experiment

FILES = 500
CLASSES = ("a", "b", "c", "d")


def truncate(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(1, len(content))])


def flip_bits(path: Path, rng: np.random.Generator) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = rng.integers(len(content), size=rng.integers(1, 200))
    content[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    path.write_bytes(content.tobytes())


def scramble_header(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(rng.bytes(200) + content[200:])


def huge_header(path: Path, rng: np.random.Generator) -> None:
    """Announce 2^31 - 1 frames in AVI's stream header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 40
    content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)


def empty(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def text(path: Path, rng: np.random.Generator) -> None:
    path.write_text("<html>404</html>\n" * int(rng.integers(1, 300)))


def folder(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside.txt").touch()


def dangling(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def pipe(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    os.mkfifo(path)


def unreadable(path: Path, rng: np.random.Generator) -> None:
    path.chmod(0)


def foreign_name(path: Path, rng: np.random.Generator) -> None:
    """A name that is not UTF-8."""
    path.rename(os.fsdecode(os.fsencode(path.with_suffix("")) + b"_\xff\xfe.avi"))


def other_container(path: Path, rng: np.random.Generator) -> None:
    """The suffix of another container; the content is whole."""
    path.rename(path.with_suffix(".mp4"))


def swap(path: Path, rng: np.random.Generator) -> None:
    """The content of another video, whole."""
    shutil.copyfile(path.parent.parent / "a" / "seq00_000.avi", path)


CODECS = {".mkv": "libx264", ".webm": "libvpx", ".ts": "libx264", ".mov": "libx264"}


def write_container(path: Path, frames: np.ndarray) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(CODECS[path.suffix], rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode())
    return path


def cut_as(suffix: str) -> Callable[[Path, np.random.Generator], None]:
    """Put the first bytes of a video in another container in the place of a file."""

    def cut(path: Path, rng: np.random.Generator) -> None:
        content = (path.parent.parent.parent / f"whole{suffix}").read_bytes()
        length = int(rng.integers(1, len(content)))
        length -= length % 188 == 0  # a whole number of transport packets is a whole video
        path.unlink()
        path.with_suffix(suffix).write_bytes(content[:length])

    cut.__name__ = f"cut{suffix}"
    return cut


DAMAGE: list[Callable[[Path, np.random.Generator], None]] = [
    truncate, flip_bits, scramble_header, huge_header, empty, text, folder, dangling, pipe,
    unreadable, foreign_name, other_container, swap, *map(cut_as, CODECS),
]  # fmt: skip
CUTS = {f"cut{suffix}" for suffix in CODECS}
SURE = {"huge_header", "empty", "text", "dangling", "pipe"} | CUTS
WHOLE = {"other_container", "swap", "foreign_name"}


@pytest.fixture
def fuzzed(tmp_path, video_file, moving) -> tuple[Path, dict[str, set[str]]]:
    """A data set of 500 damaged files and 20 whole ones, and the names by kind of damage."""
    root, rng = tmp_path / "fuzzed", np.random.default_rng(0)
    whole = [video_file(tmp_path / f"{i}.avi", moving(seed=i)) for i in range(8)]
    for suffix in CODECS:
        write_container(tmp_path / f"whole{suffix}", moving(seed=9, count=60))
    done: dict[str, set[str]] = {"whole": set()}
    for number in range(FILES + 20):
        label = CLASSES[number % 4]
        path = root / label / f"seq{number % 15:02d}_{number:03d}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole[number % 8], path)
        if number < 20:
            done["whole"].add(path.stem)
            continue
        damage = DAMAGE[number % len(DAMAGE)]
        damage(path, rng)
        done.setdefault(damage.__name__, set()).add(path.stem)
    return root, done


def children() -> set[str]:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for file in listed for child in file.read_text().split()}


def original(path: str) -> str:
    return "_".join(Path(path).stem.split("_")[:2])


def test_500_damaged_files_are_listed_and_none_is_substituted(fuzzed, tmp_path):
    root, done = fuzzed
    before = children()
    manifest = verify("folder", root, workers=2)
    listed = {original(p.name): p.fault for p in manifest.problems if p.fault}
    unusable = set(listed)
    assert done["folder"] == {original(p.name) for p in manifest.problems if p.kind == "stray"}

    config = TrainConfig(
        dataset="folder", data_dir=str(root), model="r3d", backbone="demo", epochs=1,
        batch_size=8, learning_rate=1e-3, size=16, num_workers=1, device="cpu",
    )  # fmt: skip
    data = load_dataset("folder", root)
    store = open_store(data, config.clip, workers=2)
    assert {original(name): error.kind for name, error in store.problems.items()} == listed
    kinds = {kind: {listed.get(name) for name in done[kind]} for kind in CUTS}
    assert all(found <= {"cut off", "not a video"} for found in kinds.values()), kinds
    for kind in SURE:
        assert done[kind] <= unusable, kind
    for kind in WHOLE | {"whole"}:
        assert not done[kind] & unusable, kind
    for sample in data.samples:
        if sample.path in store:
            for stored, cut in zip(
                store.read_all(sample.path), cut_clips(sample.path, config.clip), strict=True
            ):
                assert np.array_equal(stored, cut)

    row = run_experiment(config, tmp_path / "results")
    assert row.problems == len(store.problems)
    assert row.test["unreadable"] == sum(str(s.path) in store.problems for s in data.test) > 0
    assert row.train_videos + row.test["videos"] == len(data.samples)
    assert children() <= before | {c for c in children() if "resource_tracker" in command(c)}


def command(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode()
    except OSError:
        return "resource_tracker"
