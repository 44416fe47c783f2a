import os

import numpy as np
import pytest

from hstlib import store as store_module
from hstlib.config import ClipConfig
from hstlib.store import ClipStore, cut_clips, prepare_store, store_key
from hstlib.video import VideoError, read_video

CLIP = ClipConfig(size=16, num_windows=2)


@pytest.fixture
def paths(tmp_path, video_file, moving):
    """Three videos, of which the middle one is an empty file, and one that is not there."""
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


def test_read_gives_one_window(store, paths):
    frames, flow = store.read_all(paths[0])
    for window in range(2):
        one = store.read(paths[0], window)
        assert np.array_equal(one[0], frames[window]) and np.array_equal(one[1], flow[window])


def test_cut_clips_shapes_and_types(paths):
    frames, flow = cut_clips(paths[0], CLIP)
    assert frames.shape == (2, 16, 16, 16, 3) and frames.dtype == np.uint8
    assert flow.shape == (2, 2, 16, 16, 16) and flow.dtype == np.float16


def test_cut_clips_takes_the_windows_of_the_resampled_video(paths):
    video = read_video(paths[0], size=16).frames  # 40 frames at 25 Hz: 26 at 16
    frames, _ = cut_clips(paths[0], CLIP)
    assert np.array_equal(frames[0], video[:16]) and np.array_equal(frames[1], video[-16:])


def test_last_flow_comes_from_the_following_frame_where_there_is_one(paths):
    _, flow = cut_clips(paths[0], CLIP)
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
    other = tmp_path / "other.avi"
    assert other not in store
    with pytest.raises(VideoError, match=r"other\.avi: not in the clip store"):
        store.read_all(other)


def test_opening_again_does_not_decode_again(store, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_fill", lambda *_: pytest.fail("decodes again"))
    again = prepare_store(paths, CLIP, tmp_path / "store")
    assert again.folder == store.folder and again.problems == store.problems
    assert again.config == CLIP


def test_another_setting_gives_another_store(paths):
    keys = {
        store_key(paths, CLIP),
        store_key(paths, ClipConfig(size=18, num_windows=2)),
        store_key(paths, ClipConfig(size=16, num_windows=2, flow="farneback")),
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


def test_one_and_two_workers_write_the_same_bytes(paths, tmp_path):
    one, two = (prepare_store(paths, CLIP, tmp_path / f"{n}", workers=n).folder for n in (1, 2))
    for name in ("frames.npy", "flow.npy", "index.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_an_exception(paths, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("stop")

    monkeypatch.setattr(store_module, "_fill", fail)
    with pytest.raises(error, match="stop"):
        prepare_store(paths, CLIP, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_the_finished_store_is_all_that_is_there(store, tmp_path):
    assert list((tmp_path / "store").iterdir()) == [store.folder]
    assert {p.name for p in store.folder.iterdir()} == {"frames.npy", "flow.npy", "index.json"}


def test_changing_what_was_read_does_not_change_the_store(store, paths):
    frames, _ = store.read_all(paths[0])
    before = frames.copy()
    frames[:] = 0
    assert np.array_equal(ClipStore(store.folder).read_all(paths[0])[0], before)


def test_a_folder_without_index_is_no_store(tmp_path):
    with pytest.raises(ValueError, match=r"holds no finished clip store.*hstlib prepare"):
        ClipStore(tmp_path)
