import hashlib
import json

import numpy as np
import pytest

from hstlib.config import LIST_NAME
from hstlib.data import demo, dial
from hstlib.data.datasets import hmdb51_tags, load_dataset, split_at_random
from hstlib.data.demo import (
    APPEARANCE,
    MARKER,
    MOTION_PAIRS,
    class_kinds,
    draw_clip,
    make_demo,
    reverse_classes,
)
from hstlib.data.dial import dial_name, dial_videos, make_dial
from hstlib.data.flow import optical_flow
from hstlib.data.leakage import find_leaks
from hstlib.data.lists import write_list
from hstlib.data.scenes import NUM_SOURCE_FRAMES, draw_frames
from hstlib.data.shortcuts import shortcut_features, shortcuts
from hstlib.data.video import read_video

CORPORA = ["demo-hmdb51", "demo-ucf101"]
WRITERS = {"demo-hmdb51": demo._write_hmdb51, "demo-ucf101": demo._write_ucf101}
SCENES = ["slide", "open", "spin", *(name.lower() for kind in APPEARANCE.values() for name in kind)]


@pytest.fixture(params=CORPORA)
def dataset(request):
    return request.param


@pytest.fixture
def three_clips(monkeypatch, inline_pool):
    for write in WRITERS.values():
        monkeypatch.setattr(demo, write.__name__, lambda root, seed, w=write: w(root, seed)[:3])


@pytest.mark.parametrize("scene", SCENES)
def test_frames_are_a_function_of_scene_and_seeds(scene):
    frames = np.stack(draw_frames(scene, (0, 1), (0, 1, 2)))
    assert frames.shape == (NUM_SOURCE_FRAMES, 120, 160, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, draw_frames(scene, (0, 1), (0, 1, 2)))
    assert not np.array_equal(frames, draw_frames(scene, (0, 1), (0, 1, 3)))
    assert not np.array_equal(frames, draw_frames(scene, (0, 2), (0, 1, 2)))


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_moves(scene):
    frames = np.stack(draw_frames(scene, (0, 3), (0, 3, 0)))
    assert (frames[10:] != frames[:-10]).any((1, 2, 3)).all()


def test_the_group_fixes_the_background():
    def corner(group, clip):
        return draw_frames("disc", (0, group), (0, group, clip))[0][:8, :8]

    assert np.array_equal(corner(1, 1), corner(1, 2))
    assert not np.array_equal(corner(1, 1), corner(2, 1))


def test_kinds_cover_the_classes_half_and_half(dataset):
    kinds = list(class_kinds(dataset).values())
    assert (kinds.count("motion"), kinds.count("appearance")) == (4, 4)


def test_every_motion_class_has_its_reverse(dataset):
    reverse = reverse_classes(dataset)
    assert reverse.keys() == {c for c, kind in class_kinds(dataset).items() if kind == "motion"}
    assert all(other != name and reverse[other] == name for name, other in reverse.items())


def test_a_motion_pair_is_the_same_stills_in_reverse_in_the_list(dataset, tmp_path):
    by_class = {}
    for clip in WRITERS[dataset](tmp_path, 0):
        by_class.setdefault(clip.path.parent.name, []).append(clip)
    for forwards, backwards in MOTION_PAIRS[dataset].values():
        for a, b in zip(by_class[forwards], by_class[backwards], strict=True):
            assert (a.scene, a.group_seed, a.clip_seed) == (b.scene, b.group_seed, b.clip_seed)
            assert (a.reverse, b.reverse) == (False, True)


def test_a_motion_pair_is_the_same_stills_in_reverse_on_disk(tmp_path):
    videos = []
    for reverse in (False, True):
        path = tmp_path / f"{reverse}.avi"
        draw_clip(demo.DemoClip(path, "slide", reverse, (0, 1), (0, 1, 2), fps=25))
        videos.append(read_video(path, size=32, fps=25).frames.astype(int))
    assert np.abs(videos[0] - videos[1][::-1]).mean() < 4
    assert np.abs(videos[0] - videos[1]).mean() > 8


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scene", "measure"),
    [
        ("slide", lambda x, y: x),
        ("open", lambda x, y: np.gradient(x, axis=1) + np.gradient(y, axis=0)),
        ("spin", lambda x, y: np.gradient(y, axis=1) - np.gradient(x, axis=0)),
    ],
    ids=["to the right", "outwards", "clockwise"],
)
def test_motion_scenes_go_the_way_their_first_class_says(scene, measure, seed):
    frames = np.stack(draw_frames(scene, (0, seed), (0, seed, 0)))
    for shown, sign in ((frames, 1), (frames[::-1], -1)):
        flow = optical_flow(shown)
        amount = np.mean([measure(x, y).mean() for x, y in flow.transpose(1, 0, 2, 3)])
        assert sign * amount > 0


@pytest.mark.parametrize("split", [1, 2, 3])
def test_lists_keep_groups_on_one_side(dataset, split, tmp_path):
    WRITERS[dataset](tmp_path, 0)
    (tmp_path / MARKER).touch()
    data = load_dataset(dataset, tmp_path, split)
    train, test = ({(s.label, s.group) for s in part} for part in (data.train, data.test))
    assert not train & test
    assert set(data.classes) == set(class_kinds(dataset))
    sizes = {"demo-hmdb51": (70, 30, 5), "demo-ucf101": (72, 28, 0)}[dataset]
    assert (len(data.train), len(data.test), len(data.unused)) == tuple(8 * n for n in sizes)


def test_lists_name_the_clips_to_draw(dataset, tmp_path):
    to_draw = {clip.path for clip in WRITERS[dataset](tmp_path, 0)}
    (tmp_path / MARKER).touch()
    assert {s.path for s in load_dataset(dataset, tmp_path).samples} == to_draw


def test_every_group_is_tested_in_one_split_at_most(dataset, tmp_path):
    WRITERS[dataset](tmp_path, 0)
    (tmp_path / MARKER).touch()
    tested = [s.path for n in (1, 2, 3) for s in load_dataset(dataset, tmp_path, n).test]
    assert len(tested) == len(set(tested))


def test_names_are_official(tmp_path):
    names = [clip.path.name for clip in WRITERS["demo-hmdb51"](tmp_path / "h", 0)]
    assert all(hmdb51_tags(name) for name in names) and len(set(names)) == len(names)
    for clip in WRITERS["demo-ucf101"](tmp_path / "u", 0):
        assert clip.path.name.startswith(f"v_{clip.path.parent.name}_g")


def test_the_default_place_is_under_the_data_root(dataset, tmp_path, three_clips):
    root = make_demo(dataset)
    assert root == tmp_path / "data-root" / dataset.replace("-", "/")
    assert len(list(root.rglob("*.avi"))) == 3


def test_unknown_names_are_shown_with_the_known_ones():
    for call in (make_demo, class_kinds, reverse_classes):
        with pytest.raises(ValueError, match="'hmdb51' is unknown; use one of .*'demo-hmdb51'"):
            call("hmdb51")
    with pytest.raises(ValueError, match="scene 'jump' is unknown; use one of .*'slide'.*'rings'"):
        draw_frames("jump", (0, 1), (0, 1, 2))


def test_drawn_files_decode(dataset, tmp_path, three_clips):
    root = make_demo(dataset, tmp_path / dataset)
    videos = sorted(root.rglob("*.avi"))
    assert len(videos) == 3
    for path in videos:
        video = read_video(path, size=32)
        info = video.info
        assert (info.frames, info.width, info.height) == (NUM_SOURCE_FRAMES, 160, 120)
        assert info.rate == pytest.approx(30 if dataset == "demo-hmdb51" else 25)
        assert len(video.frames) >= 17


def test_same_seed_same_bytes(dataset, tmp_path, three_clips):
    roots = [
        make_demo(dataset, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in roots
    ]
    assert files[0] == files[1]
    assert files[0].keys() == files[2].keys() and files[0] != files[2]


def test_a_finished_corpus_is_left_alone(dataset, tmp_path, three_clips):
    root = make_demo(dataset, tmp_path / dataset)
    next(root.rglob("*.avi")).unlink()
    assert make_demo(dataset, root) == root
    assert len(list(root.rglob("*.avi"))) == 2


def test_marker_says_what_was_drawn(dataset, tmp_path, three_clips):
    root = make_demo(dataset, tmp_path / dataset, seed=4)
    identity = json.loads((root / MARKER).read_text())
    assert (identity["dataset"], identity["seed"]) == (dataset, 4)


@pytest.mark.parametrize("other", [{"seed": 1}, {"code": "older"}], ids=str)
def test_a_corpus_drawn_otherwise_is_replaced(dataset, tmp_path, three_clips, other):
    root = make_demo(dataset, tmp_path / dataset)
    marker = json.loads((root / MARKER).read_text())
    (root / MARKER).write_text(json.dumps(marker | other))
    next(root.rglob("*.avi")).write_bytes(b"stale")
    (root / "stale.txt").touch()
    make_demo(dataset, root)
    assert json.loads((root / MARKER).read_text()) == marker
    assert all(len(read_video(path, size=16).frames) for path in root.rglob("*.avi"))
    assert not (root / "stale.txt").exists()


def test_a_corpus_with_a_damaged_marker_is_replaced(dataset, tmp_path, three_clips):
    root = make_demo(dataset, tmp_path / dataset)
    (root / MARKER).write_text("{")
    next(root.rglob("*.avi")).unlink()
    make_demo(dataset, root)
    assert json.loads((root / MARKER).read_text())["dataset"] == dataset
    assert len(list(root.rglob("*.avi"))) == 3


def test_a_foreign_folder_is_refused_and_kept(dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ValueError, match="mine exists and is not a demo corpus"):
        make_demo(dataset, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_nothing_is_left_behind_by_an_exception(dataset, tmp_path, three_clips, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(demo, "draw_clip", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo(dataset, tmp_path / "corpora" / "a")
    assert [p.name for p in (tmp_path / "corpora").iterdir()] == [".a.lock"]


def test_a_codec_that_is_not_there_names_the_file(tmp_path):
    clip = demo.DemoClip(tmp_path / "none" / "a.avi", "slide", False, (0, 1), (0, 1, 2), fps=25)
    with pytest.raises(OSError, match=r"a\.avi: OpenCV cannot write an XVID AVI file; check"):
        draw_clip(clip)


@pytest.mark.parametrize(
    ("dataset", "lists_and_seeds", "brightness"),
    [("demo-hmdb51", "b9f19fdca79539f6", 87.4155), ("demo-ucf101", "b7b9f7c626c9bfbb", 91.9601)],
)
def test_the_demo_corpora_stay_the_same(dataset, lists_and_seeds, brightness, tmp_path):
    """Lists, names, scenes and seeds of all videos, and the frames of every 80th."""
    clips = WRITERS[dataset](tmp_path, 0)
    digest = hashlib.sha256()
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    for clip in clips:
        drawing = (clip.scene, clip.reverse, clip.group_seed, clip.clip_seed, clip.fps)
        digest.update(repr((clip.path.name, *drawing)).encode())
    assert digest.hexdigest()[:16] == lists_and_seeds
    frames = [draw_frames(clip.scene, clip.group_seed, clip.clip_seed) for clip in clips[::80]]
    assert np.mean(frames) == pytest.approx(brightness, abs=0.001)


DIAL = (0, 0.25, 0.5, 0.75, 1)


def dial_set(folder, shared, tied=True, split=1):
    """A corpus with a dial at one split, from its list; no video is drawn."""
    folder.mkdir(exist_ok=True)
    write_list(folder / LIST_NAME, [video for video, _ in dial_videos(folder, shared, tied, 0)])
    return load_dataset("folder", folder, split)


@pytest.mark.parametrize("shared", DIAL)
def test_the_dial_is_the_share_that_a_random_split_leaks(shared, tmp_path):
    data = dial_set(tmp_path, shared)
    leaks = [np.mean(find_leaks(split_at_random(data, seed))) for seed in range(1, 6)]
    assert np.mean(leaks) == pytest.approx(shared, abs=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shared", DIAL)
def test_splits_of_the_dial_never_leak_and_test_a_fifth_of_each_class(shared, tied, tmp_path):
    tested = []
    for split in (1, 2, 3):
        data = dial_set(tmp_path, shared, tied, split)
        assert not any(find_leaks(data))
        labels = [sample.label for sample in data.test]
        assert np.bincount(labels).tolist() == 4 * [16] and len(data.train) == 4 * 64
        tested += [sample.path for sample in data.test]
    assert len(tested) == len(set(tested))


def test_a_film_has_one_class_only_if_it_is_tied(tmp_path):
    for tied, classes in ((True, 1), (False, 4)):
        labels = {}
        for sample in dial_set(tmp_path, 1, tied).samples:
            labels.setdefault(sample.group, set()).add(sample.label)
        assert {len(found) for found in labels.values()} == {classes}


def test_videos_share_a_look_if_and_only_if_they_share_a_source(tmp_path):
    looks = {}
    for video, clip in dial_videos(tmp_path, 0.5, True, 0):
        looks.setdefault(video.source, set()).add(clip.group_seed)
    assert {len(seeds) for seeds in looks.values()} == {1}
    assert len(set.union(*looks.values())) == len(looks) == 20 + 160


@pytest.fixture
def small_dial(monkeypatch, inline_pool):
    monkeypatch.setattr("hstlib.data.dial.map_in_processes", demo.map_in_processes)
    monkeypatch.setattr(dial, "CLIPS_PER_FILM", 2)


def test_a_histogram_finds_the_films_of_a_random_split_only(tmp_path, small_dial):
    root = make_dial(1, root=tmp_path / "dial")
    splits = [load_dataset("folder", root, split) for split in (1, 2, 3)]
    features = {path: shortcut_features(path) for path in splits[0].paths}
    honest = np.mean([shortcuts(split, features)["colour histogram"] for split in splits])
    random = split_at_random(splits[0], 1)
    leaked = np.mean(find_leaks(random))
    assert honest < 0.5 < leaked <= shortcuts(random, features)["colour histogram"]


def test_the_same_dial_is_drawn_once_and_byte_for_byte(tmp_path, small_dial, monkeypatch):
    monkeypatch.setattr(dial, "FILMS", 1)
    roots = [make_dial(0.5, root=tmp_path / name) for name in ("a", "b")]
    files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("*.*")} for r in roots]
    assert files[0] == files[1] and len(files[0]) == 8 + 2
    next(roots[0].rglob("*.avi")).unlink()
    make_dial(0.5, root=roots[0])
    assert len(list(roots[0].rglob("*.avi"))) == 7


def test_the_default_place_of_a_dial_is_its_name_under_the_data_root(
    tmp_path, small_dial, monkeypatch
):
    monkeypatch.setattr(dial, "FILMS", 1)
    assert make_dial(0.75) == tmp_path / "data-root/demo/dial-75"
    assert dial_name(1, tied=False) == "dial-100-untied"


def test_a_dial_refuses_other_shares_and_other_folders(tmp_path):
    with pytest.raises(ValueError, match=r"shared is 0\.3; use 0, 0\.25, 0\.5, 0\.75 or 1"):
        make_dial(0.3)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine exists and is not this corpus of this version; rem"):
        make_dial(0.5, root=tmp_path / "mine")
