import errno
import json
import os
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
from hstlib.data.clips import cut_clips
from hstlib.data.container import VideoError
from hstlib.data.flow import flow_parameters
from hstlib.data.store import ClipStore, VideoClips, prepare_store, store_key
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
    assert "empty, 0 bytes" in store.problems[empty]
    assert "does not exist" in store.problems[absent]
    assert [path in store for path in paths] == [True, False, True, False]


def test_reading_a_file_that_cannot_be_used_gives_the_reason(store, paths):
    with pytest.raises(VideoError, match=r"b\.avi: empty, 0 bytes"):
        store.read_all(paths[1])
    with pytest.raises(VideoError, match=r"d\.avi: does not exist"):
        store.read(paths[3], 0)


def test_reading_a_file_that_is_not_in_the_store_is_refused(store, tmp_path):
    unknown = tmp_path / "unknown.avi"
    assert unknown not in store
    with pytest.raises(ValueError, match=r"unknown\.avi: not in the clip store") as error:
        store.read_all(unknown)
    assert not isinstance(error.value, VideoError)  # it is no fault of the file


def test_opening_again_does_not_decode_again(store, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_prepare", lambda *_: pytest.fail("decodes again"))
    again = prepare_store(paths, CLIP, tmp_path / "store")
    assert again.folder == store.folder and again.problems == store.problems
    assert again.config == CLIP


def test_another_setting_gives_another_store(paths):
    keys = {
        store_key(paths, CLIP),
        store_key(paths, ClipConfig(size=18, clips_per_video=2)),
        store_key(paths, ClipConfig(size=16, clips_per_video=2, flow="farneback")),
        store_key(paths[:2], CLIP),
    }
    assert len(keys) == 4


def test_a_changed_file_gives_another_store(paths):
    before = store_key(paths, CLIP)
    os.utime(paths[0], ns=(0, 0))
    touched = store_key(paths, CLIP)
    paths[1].write_bytes(b"more")
    assert len({before, touched, store_key(paths, CLIP)}) == 3


def test_an_absent_file_that_comes_gives_another_store(paths, store, tmp_path, video_file, moving):
    video_file(paths[3], moving(seed=4))
    later = prepare_store(paths, CLIP, tmp_path / "store")
    assert later.folder != store.folder and paths[3] in later


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def many(tmp_path, video_file, moving) -> list[Path]:
    """Twenty videos, three shards, one of them empty and one damaged."""
    paths = [
        video_file(tmp_path / "many" / f"{i:02d}.avi", moving(seed=i, count=20 + i))
        for i in range(20)
    ]
    paths[3].write_bytes(b"")
    paths[11].write_bytes(paths[11].read_bytes()[:1500])
    return paths


def test_one_and_three_workers_write_the_same_bytes(many, tmp_path):
    one, three = (prepare_store(many, CLIP, tmp_path / f"{n}", workers=n).folder for n in (1, 3))
    assert tree(one) == tree(three)
    assert len(tree(one)) == 1 + 5 * 5


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
    index = json.loads((store.folder / "index.json").read_text())
    assert index["clip"] == CLIP.model_dump()
    assert index["decoder"] == f"{decoder_version()}, OpenCV {cv2.__version__}"
    assert index["version"] == store_module.VERSION
    assert index["flow"] == flow_parameters("dis") and index["flow"]["PatchSize"] == 8


def test_a_store_of_another_version_is_refused(store):
    index = store.folder / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 1}))
    with pytest.raises(ValueError, match="clips of version 1, this is 4; remove it"):
        ClipStore(store.folder)


def test_settings_of_an_earlier_version_say_how_to_make_the_store_anew(store):
    index = store.folder / "index.json"
    index.write_text(index.read_text().replace("clips_per_video", "num_windows"))
    with pytest.raises(ValueError, match="unknown setting 'num_windows'.*remove it and run"):
        ClipStore(store.folder)


@pytest.mark.parametrize("array", ["frames", "flow", "sources", "times"])
def test_a_bit_that_flipped_on_the_disk_is_found_when_it_is_read(store, paths, array):
    file = store.folder / "00000" / f"{array}.npy"
    content = bytearray(file.read_bytes())
    content[130] ^= 1  # in the first video's row, behind the header of 128 bytes
    file.write_bytes(content)
    opened = ClipStore(store.folder)
    opened.read_all(paths[2])
    with pytest.raises(ValueError, match=r"00000: the clips of .*a\.avi changed on the disk"):
        opened.read_all(paths[0])


def test_too_little_room_is_reported_before_anything_is_decoded(paths, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(store_module, "write_shards", lambda *_: pytest.fail("decodes"))
    needed = 4 * 2 * (16 * 16 * 16 * 3 + 2 * 16 * 16 * 16 * 2 + 17 * 4 + 17 * 8)
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
    for complete in (0, 0, 1):  # killed with at least this number of complete shards
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            shards = [p.name for p in (tmp_path / "killed").glob("*/*0*") if p.is_dir()]
            if len(shards) > complete and sum(name[0] != "." for name in shards) >= complete:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                break
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert killed >= 2
    assert tree(tmp_path / "killed" / whole.folder.name) == tree(whole.folder)


BAD_DECODER = """
import os, time
from hstlib.data.shards import _write_row as write_row

def crash_or_hang_on_some(row):
    if row.path.stem in ("05", "17"):
        os.abort()
    if row.path.stem == "12":
        time.sleep(60)
    return write_row(row)
"""


def test_a_file_that_kills_the_decoder_is_listed_and_the_rest_is_kept(many, tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "bad_store_decoder.py").write_text(BAD_DECODER)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import bad_store_decoder

    whole = prepare_store(many, CLIP, tmp_path / "whole", workers=2)
    monkeypatch.setattr(shards, "_write_row", bad_store_decoder.crash_or_hang_on_some)
    monkeypatch.setattr(shards, "SECONDS_PER_FILE", 1.5)
    monkeypatch.setattr("hstlib.data.inspection.SECONDS_PER_FILE", 1.5)
    store = prepare_store(many, CLIP, tmp_path / "store", workers=2)
    bad = {str(many[number]) for number in (5, 12, 17)}
    assert store.problems.keys() - whole.problems.keys() == bad
    assert store.problems[str(many[5])] == f"{many[5]}: crashes the decoder; fetch the file again"
    assert "12.avi: is not decoded in 1.5 s" in store.problems[str(many[12])]
    assert sum(path in store for path in many) == 15
    for path in many:
        if path in store:
            assert np.array_equal(store.read_all(path).flow, whole.read_all(path).flow)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_no_shard_that_is_not_complete(
    many, tmp_path, monkeypatch, inline_pool, error
):
    real, count = cut_clips, iter(range(100))

    def fail(path, config):
        if next(count) == 6:
            raise error("stop")
        return real(path, config)

    monkeypatch.setattr(shards, "cut_clips", fail)
    with pytest.raises(error, match="stop"):
        prepare_store(many, CLIP, tmp_path / "store")
    (folder,) = (p for p in (tmp_path / "store").iterdir() if p.is_dir())
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == {"00000"}
    monkeypatch.undo()
    again = prepare_store(many, CLIP, tmp_path / "store")
    assert tree(again.folder) == tree(prepare_store(many, CLIP, tmp_path / "other").folder)


def test_the_finished_store_is_all_that_is_there(store, tmp_path):
    names = {p.name for p in (tmp_path / "store").iterdir() if not p.name.endswith(".lock")}
    assert names == {store.folder.name}
    assert {p.name for p in store.folder.iterdir()} == {"00000", "index.json"}


def test_changing_what_was_read_does_not_change_the_store(store, paths):
    frames = store.read_all(paths[0]).frames
    before = frames.copy()
    frames[:] = 0
    assert np.array_equal(ClipStore(store.folder).read_all(paths[0]).frames, before)


def test_a_folder_without_index_is_no_store(tmp_path):
    with pytest.raises(ValueError, match=r"holds no finished clip store.*hstlib prepare"):
        ClipStore(tmp_path)
