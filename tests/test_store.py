import errno
import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hstlib.config import ClipConfig
from hstlib.data import shards
from hstlib.data import store as store_module
from hstlib.data.cache import check_stores, list_stores, remove_unused
from hstlib.data.clips import cut_clips
from hstlib.data.container import VideoError
from hstlib.data.flow import flow_parameters
from hstlib.data.index import INDEX, Index, StoredVideo, video_name, write_index
from hstlib.data.store import ClipStore, VideoClips, list_key, prepare_store, settings_key
from hstlib.data.video import decoder_version, read_video

CLIP = ClipConfig(size=16, clips_per_video=2)


@pytest.fixture
def paths(tmp_path, video_file, moving):
    """Three videos, the middle one an empty file, and one that does not exist."""
    for name, count in (("a", 40), ("c", 9)):
        video_file(tmp_path / "videos" / f"{name}.avi", moving(seed=ord(name), count=count))
    (tmp_path / "videos" / "b.avi").touch()
    return [tmp_path / "videos" / f"{name}.avi" for name in "abcd"]


@pytest.fixture
def store(paths, tmp_path, inline_pool):
    return prepare_store(paths, CLIP, tmp_path / "store")


def test_store_holds_what_cut_clips_gives(store, paths):
    for path in (paths[0], paths[2]):
        for stored, cut in zip(store.read_all(path), cut_clips(path, CLIP), strict=True):
            assert stored.dtype == cut.dtype and np.array_equal(stored, cut)


def test_read_gives_one_clip(store, paths):
    clips = store.read_all(paths[0])
    for clip_index in range(2):
        frames, flow = store.read(paths[0], clip_index)
        assert np.array_equal(frames, clips.frames[clip_index])
        assert np.array_equal(flow, clips.flow[clip_index])


def test_cut_clips_shapes_and_types(paths):
    frames, flow, sources, times = cut_clips(paths[0], CLIP)
    assert frames.shape == (2, 16, 16, 16, 3) and frames.dtype == np.uint8
    assert flow.shape == (2, 2, 16, 16, 16) and flow.dtype == np.float16
    assert sources.shape == times.shape == (2, 17)
    assert sources.dtype == np.int32 and times.dtype == np.float64


def test_cut_clips_cuts_the_resampled_video(paths):
    video = read_video(paths[0], size=16).frames  # 40 frames at 25 Hz: 26 at 16
    frames = cut_clips(paths[0], CLIP).frames
    assert np.array_equal(frames[0], video[:16]) and np.array_equal(frames[1], video[-16:])


def test_last_flow_comes_from_the_following_frame_where_there_is_one(paths):
    flow = cut_clips(paths[0], CLIP).flow
    assert not np.array_equal(flow[0, :, -1], flow[0, :, -2])
    assert np.array_equal(flow[1, :, -1], flow[1, :, -2])


def test_files_that_cannot_be_used_are_listed_with_the_reason(store, paths):
    empty, absent = str(paths[1]), str(paths[3])
    assert set(store.problems) == {empty, absent}
    assert (store.problems[empty].kind, store.problems[absent].kind) == ("not a video", "missing")
    assert "empty, 0 bytes" in str(store.problems[empty])
    assert "does not exist" in str(store.problems[absent])
    assert [path in store for path in paths] == [True, False, True, False]


def test_reading_a_file_that_cannot_be_used_gives_the_reason(store, paths):
    with pytest.raises(VideoError, match=r"b\.avi: empty, 0 bytes"):
        store.read_all(paths[1])
    with pytest.raises(VideoError, match=r"d\.avi: does not exist"):
        store.read(paths[3], 0)


def test_few_shards_stay_mapped(many, tmp_path, monkeypatch, inline_pool):
    monkeypatch.setattr(store_module, "MAX_OPEN", 2)
    usable = many[4:9]
    store = prepare_store(usable, CLIP, tmp_path / "store")
    for path in [*usable, *usable]:
        assert np.array_equal(store.read_all(path).frames, cut_clips(path, CLIP).frames)
        assert len(store._opened) <= 2
    assert store.read_all(usable[-1]).flow is store.read_all(usable[-1]).flow


def test_reading_a_file_that_is_not_in_the_store_is_refused(store, tmp_path):
    unknown = tmp_path / "unknown.avi"
    assert unknown not in store
    with pytest.raises(ValueError, match=r"unknown\.avi: not in the clip store") as error:
        store.read_all(unknown)
    assert not isinstance(error.value, VideoError)  # it is no fault of the file


def test_opening_again_does_not_decode_again(store, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "store_videos", lambda *_: pytest.fail("decodes again"))
    again = prepare_store(paths, CLIP, tmp_path / "store")
    assert again.folder == store.folder and again.config == CLIP
    assert {name: str(error) for name, error in again.problems.items()} == {
        name: str(error) for name, error in store.problems.items()
    }


def test_another_setting_gives_another_store(paths):
    settings = [
        CLIP,
        ClipConfig(size=18, clips_per_video=2),
        ClipConfig(size=16, clips_per_video=2, flow="farneback"),
    ]
    assert len({settings_key(clip) for clip in settings}) == 3
    assert list_key(paths) == list_key(paths[::-1]) != list_key(paths[:2])


@pytest.fixture
def cut(monkeypatch, inline_pool) -> list[str]:
    """Names of the videos whose clips are cut."""
    names = []

    def cut_and_note(path, config):
        names.append(path.name)
        return cut_clips(path, config)

    monkeypatch.setattr(shards, "cut_clips", cut_and_note)
    return names


def test_a_video_that_changed_costs_that_video_only(
    store, paths, tmp_path, cut, video_file, moving
):
    before = store.read_all(paths[0]).frames.copy()
    video_file(paths[0], moving(seed=7, count=40))
    video_file(paths[1], moving(seed=8))  # the empty one, repaired
    again = prepare_store(paths, CLIP, tmp_path / "store")
    assert sorted(cut) == ["a.avi", "b.avi"] and again.folder == store.folder
    assert paths[1] in again and not np.array_equal(again.read_all(paths[0]).frames, before)
    expected = cut_clips(paths[2], CLIP)
    assert np.array_equal(again.read_all(paths[2]).frames, expected.frames)


def test_a_video_with_the_same_content_is_not_decoded_again(store, paths, tmp_path, cut):
    os.utime(paths[0], ns=(0, 0))
    paths[2].rename(paths[2].with_name("e.avi"))
    moved = [paths[0], paths[2].with_name("e.avi")]
    again = prepare_store(moved, CLIP, tmp_path / "store")
    assert cut == [] and not again.problems and moved[1] in again


def test_a_list_with_one_video_more_decodes_that_one_only(store, paths, tmp_path, cut, video_file):
    more = video_file(tmp_path / "videos" / "more.avi", np.zeros((20, 24, 32, 3), np.uint8))
    later = prepare_store([*paths, more], CLIP, tmp_path / "store")
    assert cut == ["more.avi"] and later.folder != store.folder and paths[0] in later


def test_an_absent_file_that_comes_is_added(paths, store, tmp_path, cut, video_file, moving):
    video_file(paths[3], moving(seed=4))
    later = prepare_store(paths, CLIP, tmp_path / "store")
    assert cut == ["d.avi"] and paths[3] in later and list(later.problems) == [str(paths[1])]


def test_clips_outlive_a_video_that_is_gone(store, paths, tmp_path, cut):
    expected = store.read_all(paths[0]).frames.copy()
    paths[0].unlink()
    later = prepare_store(paths, CLIP, tmp_path / "store")
    assert cut == [] and np.array_equal(later.read_all(paths[0]).frames, expected)


def test_a_store_is_sent_to_a_process_without_its_clips(store, paths):
    store.read_all(paths[0])
    sent = pickle.dumps(store)
    opened = pickle.loads(sent)
    assert len(sent) < 2000
    assert np.array_equal(opened.read_all(paths[0]).flow, store.read_all(paths[0]).flow)
    assert opened.problems.keys() == store.problems.keys()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def many(tmp_path, video_file, moving) -> list[Path]:
    """Twenty videos, one of them empty and one damaged."""
    paths = [
        video_file(tmp_path / "many" / f"{i:02d}.avi", moving(seed=i, count=20 + i))
        for i in range(20)
    ]
    paths[3].write_bytes(b"")
    paths[11].write_bytes(paths[11].read_bytes()[:1500])
    return paths


def test_one_and_three_workers_write_the_same_bytes(many, tmp_path):
    one, three = (tmp_path / f"{n}" for n in (1, 3))
    folder = prepare_store(many, CLIP, one, workers=1).folder
    prepare_store(many, CLIP, three, workers=3)
    assert tree(one) == tree(three)
    assert {p.name for p in folder.parent.iterdir()} == {
        "clips", folder.name, f".{folder.name}.lock"
    }  # fmt: skip
    assert len(list(folder.parent.glob("clips/*/*"))) == 18


def test_shards_are_read_as_they_were_cut(many, tmp_path):
    store = prepare_store(many, CLIP, tmp_path / "store")
    assert list(store.problems) == [str(many[3]), str(many[11])]
    for path in many:
        if path in store:
            for stored, cut in zip(store.read_all(path), cut_clips(path, CLIP), strict=True):
                assert np.array_equal(stored, cut)


def test_clips_without_a_store_are_the_same(store, paths):
    direct = VideoClips(CLIP)
    for path in (paths[0], paths[2]):
        for stored, cut in zip(store.read_all(path), direct.read_all(path), strict=True):
            assert np.array_equal(stored, cut)
        for stored, cut in zip(store.read(path, 1), direct.read(path, 1), strict=True):
            assert np.array_equal(stored, cut)
    assert [path in direct for path in paths] == [True, True, True, False]


def test_sources_are_the_frames_of_the_file(tmp_path, video_file):
    """Each frame of the file has its own grey level, which identifies it after decoding."""
    levels = np.arange(28) * 9
    path = video_file(tmp_path / "a.avi", [np.full((32, 32, 3), v, np.uint8) for v in levels])
    clips = cut_clips(path, CLIP)
    grey = clips.frames.mean((2, 3, 4))
    nearest = np.abs(grey[..., None] - levels).argmin(-1)
    assert np.array_equal(nearest, clips.sources[:, :-1])
    assert clips.sources[0, :4].tolist() == [0, 2, 3, 5] and clips.sources[1, -1] == -1


def test_the_index_records_decoder_and_settings(store):
    header = Index(store.folder / INDEX).header
    assert header["clip"] == CLIP.model_dump()
    assert header["decoder"] == f"{decoder_version()}, OpenCV {cv2.__version__}"
    assert header["version"] == store_module.VERSION
    assert header["flow"] == flow_parameters("dis") and header["flow"]["PatchSize"] == 8


def rewrite(store: ClipStore, **changes) -> Path:
    index = Index(store.folder / INDEX)
    write_index(index.file, index.header | changes, list(index))
    return store.folder


def test_a_store_of_another_version_is_refused(store):
    with pytest.raises(ValueError, match="clips of version 1, this is 5; remove it"):
        ClipStore(rewrite(store, version=1))


def test_settings_of_another_version_are_refused(store):
    with pytest.raises(ValueError, match="unknown setting 'num_windows'"):
        ClipStore(rewrite(store, clip={**CLIP.model_dump(), "num_windows": 2}))


# What the disk does


def shard_of(store: ClipStore, path: Path) -> Path:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return store.folder.parent / "clips" / sha256[:2] / f"{sha256}.npy"


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_every_flipped_bit_of_a_shard_is_found_or_changes_nothing(store, paths):
    expected = [array.copy() for array in store.read_all(paths[0])]
    file = shard_of(store, paths[0])
    whole, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    header = 8 * (len(whole) - store._layout.record.itemsize)
    bits = [*rng.integers(header, size=60), *rng.integers(header, 8 * len(whole), size=100)]
    for bit in bits:
        flip(file, int(bit))
        opened = ClipStore(store.folder)
        opened.read_all(paths[2])
        try:
            for array, values in zip(opened.read_all(paths[0]), expected, strict=True):
                assert np.array_equal(array, values) and bit < header
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{file} changed on the disk, which holds the clips of ")
            assert "a.avi; remove it and run `python -m hstlib prepare`" in str(error)
        file.write_bytes(whole)
    assert refused >= 100


def test_every_flipped_bit_of_the_index_is_found(store, paths):
    file = store.folder / INDEX
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for bit in rng.integers(8 * len(whole), size=100):
        flip(file, int(bit))
        with pytest.raises(ValueError, match="changed on the disk|not in the clip store"):
            opened = ClipStore(store.folder)
            for path in (paths[0], paths[2]):
                opened.read_all(path)
            list(opened._index)
        file.write_bytes(whole)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off"])
def test_a_shard_that_is_not_whole_is_refused_and_made_anew(store, paths, tmp_path, cut, damage):
    file = shard_of(store, paths[0])
    content = {"missing": None, "empty": b"", "cut off": file.read_bytes()[:-64]}[damage]
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ValueError, match="which holds the clips of .*a.avi; remove it and run"):
        ClipStore(store.folder).read_all(paths[0])
    again = prepare_store(paths, CLIP, tmp_path / "store")
    assert cut == ["a.avi"]
    assert np.array_equal(again.read_all(paths[0]).frames, cut_clips(paths[0], CLIP).frames)


def test_a_million_lines_are_searched_not_loaded(tmp_path):
    names = [f'/a/{number * 7919 % 1000003:07d} \t"\n.avi' for number in range(20000)]
    videos = [StoredVideo(name, 1, 2, "ab", number) for number, name in enumerate(names)]
    write_index(tmp_path / INDEX, {"problems": []}, videos)
    index = Index(tmp_path / INDEX)
    for number in (0, 1, 777, 19999):
        assert index.find(Path(names[number])).repeats == number
    assert index.find(Path("/a/0000001")) is None and index.find(Path("/zzz")) is None
    assert index.find(Path("/")) is None
    assert {video.name for video in index} == set(names)
    odd = Path(os.fsdecode(b"/\xff.avi"))
    write_index(tmp_path / INDEX, {}, [StoredVideo(video_name(odd))])
    assert Index(tmp_path / INDEX).find(odd).sha256 is None


# Keeping order


def test_stores_are_listed_with_their_sizes(store, paths, tmp_path):
    (summary,) = list_stores(tmp_path / "store")
    assert (summary.folder, summary.videos, summary.problems) == (store.folder, 3, 1)
    assert summary.num_bytes == 2 * shard_of(store, paths[0]).stat().st_size
    assert summary.clip == CLIP
    assert summary.place == str(tmp_path / "videos")
    assert f"3 videos of {tmp_path}" in str(summary) and "size 16" in str(summary)


def test_check_names_every_damaged_shard(store, paths, tmp_path):
    assert list(check_stores(tmp_path / "store")) == []
    flip(shard_of(store, paths[0]), 8000)
    shard_of(store, paths[2]).unlink()
    found = sorted(check_stores(tmp_path / "store"))
    assert len(found) == 2 and all("which holds the clips of" in line for line in found)
    assert any("a.avi" in line and "changed" in line for line in found)
    assert any("c.avi" in line and "is missing" in line for line in found)
    flip(store.folder / INDEX, 100)
    (line,) = check_stores(tmp_path / "store")
    assert "index.jsonl: changed on the disk" in line


def test_clips_that_no_store_needs_are_removed(store, paths, tmp_path, inline_pool):
    parent = tmp_path / "store"
    other = prepare_store(paths[2:], CLIP, parent)
    assert remove_unused(parent) == (0, 0)
    shutil.rmtree(store.folder)
    (other.folder / ".x.1.unfinished").touch()
    (parent / "0123" / "00000").mkdir(parents=True)  # of an earlier format
    (parent / "0123" / "index.json").touch()
    a, c = shard_of(store, paths[0]), shard_of(store, paths[2])
    size = a.stat().st_size
    assert remove_unused(parent) == (3, size)
    assert not a.exists() and c.exists() and not (parent / "0123" / "index.json").exists()
    other.read_all(paths[2])


def test_too_little_room_is_reported_before_anything_is_decoded(paths, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(store_module, "store_videos", lambda *_: pytest.fail("decodes"))
    needed = 3 * (2 * (16 * 16 * 16 * 3 + 2 * 16 * 16 * 16 * 2 + 17 * 4 + 17 * 8) + 4 + 256)
    with pytest.raises(OSError, match=f"{needed:,} bytes are needed, 1,000 are free") as caught:
        prepare_store(paths, CLIP, tmp_path / "store")
    assert caught.value.errno == errno.ENOSPC


PREPARE = """
import sys
from pathlib import Path
from hstlib.config import ClipConfig
from hstlib.data.store import prepare_store
if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).iterdir())
    prepare_store(paths, ClipConfig(size=16, clips_per_video=2), Path(sys.argv[2]), workers=2)
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_store(many, tmp_path):
    script = tmp_path / "prepare.py"
    script.write_text(PREPARE)
    command = [sys.executable, str(script), str(many[0].parent), str(tmp_path / "killed")]
    whole = prepare_store(many, CLIP, tmp_path / "whole")
    killed = 0
    for complete in (1, 3, 8):  # killed with at least this number of shards
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(list((tmp_path / "killed").glob("*/clips/*/*.npy"))) >= complete:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                break
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert killed >= 2
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert ClipStore(whole.folder).problems.keys() == {str(many[3]), str(many[11])}


BAD_DECODER = """
import os, signal, time
from hstlib.data.shards import _store_video as store_video

def crash_or_hang_on_some(task):
    if task.path.stem in ("05", "17"):
        os.abort()
    if task.path.stem == "12":
        time.sleep(60)
    if task.path.stem == "07":
        os.kill(os.getpid(), signal.SIGKILL)
    return store_video(task)
"""


def test_a_file_that_kills_the_decoder_is_listed_and_the_rest_is_kept(many, tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "bad_store_decoder.py").write_text(BAD_DECODER)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import bad_store_decoder

    whole = prepare_store(many, CLIP, tmp_path / "whole", workers=2)
    monkeypatch.setattr(shards, "_store_video", bad_store_decoder.crash_or_hang_on_some)
    monkeypatch.setattr(shards, "SECONDS_PER_FILE", 1.5)
    monkeypatch.setattr("hstlib.data.inspection.SECONDS_PER_FILE", 1.5)
    store = prepare_store(many, CLIP, tmp_path / "store", workers=2)
    bad = {str(many[number]) for number in (5, 7, 12, 17)}
    assert store.problems.keys() - whole.problems.keys() == bad
    crash, hang, killed = (store.problems[str(many[number])] for number in (5, 12, 7))
    assert str(crash) == f"{many[5]}: crashes the decoder; fetch the file again"
    assert [error.kind for error in (crash, hang, killed)] == ["damaged", "timed out", "killed"]
    assert "killed, perhaps for lack of memory; use fewer workers" in str(killed)
    assert "12.avi: is not decoded in 1.5 s; it is tried again at the next call" in str(hang)
    moments = {str(many[number]) for number in (7, 12)}
    assert not moments & ClipStore(store.folder).problems.keys()  # not stored
    assert sum(path in store for path in many) == 14
    for path in many:
        if path in store:
            assert np.array_equal(store.read_all(path).flow, whole.read_all(path).flow)
    monkeypatch.undo()
    again = prepare_store(many, CLIP, tmp_path / "store", workers=2)
    assert again.problems.keys() == store.problems.keys() - moments


def test_an_interruption_leaves_whole_shards_only(many, tmp_path, monkeypatch, inline_pool):
    count = iter(range(100))

    def interrupt(path, config):
        if next(count) == 6:
            raise KeyboardInterrupt
        return cut_clips(path, config)

    monkeypatch.setattr(shards, "cut_clips", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_store(many, CLIP, tmp_path / "store")
    names = [p.name for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert sum(name.endswith(".npy") for name in names) == 6 and len(names) == 7
    monkeypatch.undo()
    prepare_store(many, CLIP, tmp_path / "store")
    prepare_store(many, CLIP, tmp_path / "other")
    assert tree(tmp_path / "store") == tree(tmp_path / "other")


MOMENTS = [
    (PermissionError(errno.EACCES, "Permission denied"), "unreadable", "cannot be read (Permi"),
    (OSError(errno.EIO, "Input/output error"), "unreadable", "cannot be read (Input/output error)"),
    (MemoryError(), "out of memory", "there is too little memory"),
    (KeyError("a"), "unreadable", "reading it failed (KeyError: 'a')"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "reason"), MOMENTS)
def test_a_fault_of_the_moment_is_tried_again_and_never_stored(
    paths, tmp_path, monkeypatch, inline_pool, error, kind, reason
):
    def fail(path, config):
        if path.stem == "a":
            raise error
        return cut_clips(path, config)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "cut_clips", fail)
        store = prepare_store(paths, CLIP, tmp_path / "store")
    problem = store.problems[str(paths[0])]
    assert problem.kind == kind and problem.reason.startswith(reason)
    assert problem.reason.endswith("; it is tried again at the next call")
    assert paths[0] not in store and paths[2] in store
    with pytest.raises(VideoError, match="tried again"):
        store.read_all(paths[0])
    assert str(paths[0]) not in (store.folder / INDEX).read_text()
    later = prepare_store(paths, CLIP, tmp_path / "store")
    assert paths[0] in later and later.problems.keys() == {str(paths[1]), str(paths[3])}


def test_an_unmounted_disk_is_named_and_forgotten(tmp_path, video_file, moving, inline_pool):
    path = video_file(tmp_path / "disk" / "a.avi", moving(seed=1))
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    store = prepare_store([path], CLIP, tmp_path / "store")
    reason = "does not exist, nor does its folder; is the disk mounted?"
    assert store.problems[str(path)].reason == reason
    (tmp_path / "elsewhere").rename(tmp_path / "disk")
    assert path in prepare_store([path], CLIP, tmp_path / "store")


def test_a_full_disk_ends_the_preparation(paths, tmp_path, monkeypatch, inline_pool):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "seal", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_store(paths, CLIP, tmp_path / "store")
    assert not [p for p in (tmp_path / "store").rglob("*") if p.suffix == ".npy"]


def test_the_finished_store_is_all_that_is_there(store, tmp_path):
    assert [p.name for p in (tmp_path / "store").iterdir()] == [store.folder.parent.name]
    names = {p.name for p in store.folder.parent.iterdir() if not p.name.endswith(".lock")}
    assert names == {store.folder.name, "clips"}
    assert [p.name for p in store.folder.iterdir()] == [INDEX]


def test_changing_what_was_read_does_not_change_the_store(store, paths):
    frames = store.read_all(paths[0]).frames
    before = frames.copy()
    frames[:] = 0
    assert np.array_equal(ClipStore(store.folder).read_all(paths[0]).frames, before)


def test_a_folder_without_index_is_no_store(tmp_path):
    with pytest.raises(ValueError, match=r"holds no finished clip store.*hstlib prepare"):
        ClipStore(tmp_path)
