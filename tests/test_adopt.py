"""Folders as they are found: what they are, how they are split, and the list that adopt writes."""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hstlib.__main__ import main
from hstlib.data.adopt import adopt, describe, look_at
from hstlib.data.datasets import load_dataset, load_splits
from hstlib.data.guess import link_nearest
from hstlib.data.layouts import find_videos
from hstlib.data.leakage import find_leaks, leak_rules, leakage_summary
from hstlib.data.lists import read_list
from hstlib.data.naming import sources_from_names

UT_SPLIT_IDS = ["8ab12e92c2820f47", "19ebc6d016968a84", "2c046c0d533484fb"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def by_class(tmp_path) -> Path:
    """Own videos with names that say no more than the class."""
    names = [f"{c}/{c}_{i:03}.avi" for c in ("jump", "run", "walk") for i in range(10)]
    return touch(tmp_path / "own", *names)


@pytest.fixture
def by_source(tmp_path) -> Path:
    names = [f"{c}/s{i:02}_1.avi" for c in ("jump", "run", "walk") for i in range(10)]
    return touch(tmp_path / "own", *names)


def counts(samples, data) -> dict[str, int]:
    return dict(Counter(data.classes[s.label] for s in samples))


# Sources


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["hug/seq01_1.avi", "hug/seq02_1.avi", "push/seq01_2.avi"], ["seq01", "seq02", "seq01"]),
        (["hug/hug_1.avi", "hug/hug_2.avi", "push/push_1.avi"], [None] * 3),
        (["High Jump/high_jump_1.avi", "run/RUN_1.avi"], [None] * 2),
        (["hug/IMG_1.mp4", "hug/IMG_2.mp4", "push/IMG_3.mp4"], [None] * 3),
        (["hug/IMG_1.mp4", "hug/VID_2.mp4", "push/IMG_3.mp4"], [None] * 3),
        (
            ["hug/VID_0101_1.mp4", "push/VID_0101_2.mp4", "hug/VID_0102_1.mp4"],
            ["VID_0101", "VID_0101", "VID_0102"],
        ),
        (["hug/1.mp4", "push/1.mp4"], [None] * 2),
        (["hug/a_1.mp4", "hug/b_1.mp4", "push/c_1.mp4"], [None] * 3),
        (["x/v_Bow_g01_c02.mp4"], ["v_Bow_g01"]),
        (["walk/A_Film_walk_f_cm_np1_ba_med_12.mp4"], ["A_Film_walk"]),
        (["x/Q7-_fTEh07w_000010_000020.mp4"], ["Q7-_fTEh07w"]),
    ],
)
def test_sources_by_file_name(names, expected):
    pairs = [(name.split("/")[1], name.split("/")[0]) for name in names]
    assert sources_from_names(pairs) == expected


def test_published_folds_stay_as_they_are(real_clips):
    splits = load_splits("folder", real_clips / "ut_interaction" / "videos")
    assert [data.split_id for data in splits] == UT_SPLIT_IDS
    assert all(data.sources_known and not any(find_leaks(data)) for data in splits)


@pytest.mark.parametrize(
    "names",
    [
        ["Jump/a.avi", "jump/b.avi", "run/c.avi"],
        ["train/Jump/a.avi", "test/jump/b.avi", "train/run/c.avi", "test/run/d.avi"],
    ],
)
def test_classes_that_differ_in_capitals_only_are_refused(tmp_path, names):
    root = touch(tmp_path / "own", *names)
    if len({path.name for path in root.rglob("[jJ]ump")}) < 2:
        pytest.skip("this file system takes the two folders for one")
    message = "own: the classes 'Jump' and 'jump' differ only in capitals; give them one name"
    for read in (look_at, lambda place: load_dataset("folder", place)):
        with pytest.raises(ValueError, match=message):
            read(root)


# Honest splits


@pytest.mark.parametrize("split", [1, 2, 3])
def test_names_without_sources_are_split_by_video(by_class, split, caplog):
    data = load_dataset("folder", by_class, split)
    assert set(counts(data.test, data).values()) <= {3, 4} and len(counts(data.test, data)) == 3
    assert len(counts(data.train, data)) == 3 and len(data.train) + len(data.test) == 30
    assert not data.sources_known and "may share sources" in caplog.text
    tested = {s.path for n in (1, 2, 3) for s in load_dataset("folder", by_class, n).test}
    assert len(tested) == 30


def test_leakage_of_unknown_sources_is_unknown(by_class, monkeypatch, capsys):
    data = load_dataset("folder", by_class)
    assert [*leak_rules(data)] == ["video"]
    with pytest.raises(ValueError, match="own: sources unknown.*adopt"):
        find_leaks(data)
    assert [line.split(",")[0] for line in leakage_summary(data)][0] == "video"
    monkeypatch.setattr(sys, "argv", ["hstlib", "leakage", "folder", "--data-dir", str(by_class)])
    main()
    output = capsys.readouterr().out
    assert "group: sources unknown" in output and "group, " not in output


def test_a_tested_class_without_training_videos_is_refused(by_source):
    touch(by_source, *(f"sit/s03_{i}.avi" for i in range(4)))
    with pytest.raises(ValueError, match=r"own: split 1 tests \['sit'\].*adopt .*own"):
        load_dataset("folder", by_source)
    assert load_dataset("folder", by_source, 2).train
    assert load_dataset("folder", by_source, 1, protocol="random-by-video").test


# Leftovers of other systems


def test_leftovers_are_no_videos(by_source):
    videos = find_videos(by_source)
    twins = [f"{path.parent.name}/._{path.name}" for path in videos]
    junk = ["__MACOSX/._s.avi", "__MACOSX/s_1.avi", ".Trash-1000/old_1.avi", "run/Thumbs.db"]
    touch(by_source, *twins, *junk, ".hidden/run/s00_1.avi")
    (by_source / "run" / "folder.avi").mkdir()
    touch(by_source, "run/folder.avi/s77_1.avi")
    data = load_dataset("folder", by_source)
    assert data.classes == ("jump", "run", "walk") and list(data.paths) == videos
    assert look_at(by_source).ignored == {
        "hidden files, such as ._ twins": 30,
        "hidden folders and those of operating systems": 3,
        "folders named like videos": 1,
        "files that are no videos": 1,
    }


def test_a_link_to_a_folder_is_followed_once(by_source, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in by_source.iterdir():
        (linked / path.name).symlink_to(path)
    (by_source / "run" / "again").symlink_to(by_source)
    assert len(load_dataset("folder", linked).samples) == 30


def test_videos_deeper_than_those_of_their_class_are_left_out(by_source):
    touch(by_source, "run/old/s00_9.avi", "clip.avi", "sit/mon/s00_2.avi", "sit/tue/s01_2.avi")
    layout = look_at(by_source)
    assert len(layout.videos) == 32 and load_dataset("folder", by_source).classes[2] == "sit"
    assert layout.ignored["videos in folders inside class folders"] == 1
    assert layout.ignored["videos outside of class folders"] == 1


# Layouts


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_a_ready_split_is_used_as_it_is(tmp_path, validation):
    root = touch(
        tmp_path / "five",
        *(
            f"{part}/{c}/v_{c}_g{g:02}_c01.avi"
            for part in ("train", validation, "test")
            for c in ("Basketball", "Biking")
            for g in range(1, 5)
        ),
    )
    (data,) = load_splits("folder", root)
    assert data.classes == ("Basketball", "Biking")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [8, 8, 8]
    assert {s.path.parts[-3] for s in data.test} == {"test"}
    assert all(find_leaks(data))  # the names say that every source is on both sides
    assert "a ready split in the folders" in describe(look_at(root))


def test_a_ready_split_without_test_folder_is_tested_on_its_validation_folder(tmp_path):
    names = [f"{part}/run/s{g}_{part}.avi" for part in ("train", "val") for g in range(4)]
    data = load_dataset("folder", touch(tmp_path / "own", *names))
    assert len(data.test) == 4 and not data.validation


def test_a_ready_split_without_class_folders_has_the_classes_of_its_names(tmp_path):
    names = [
        f"{part}/v_{c}_g{g:02}_c01.avi" for part, g in (("train", 8), ("test", 1)) for c in "ab"
    ]
    data = load_dataset("folder", touch(tmp_path / "top", *names))
    assert data.classes == ("a", "b") and len(data.train) == len(data.test) == 2


def test_train_and_test_can_be_classes(tmp_path):
    names = [f"{c}/s{i}_{c}.avi" for c in ("train", "test", "walk") for i in range(3)]
    data = load_dataset("folder", touch(tmp_path / "own", *names))
    assert data.classes == ("test", "train", "walk")


def test_class_folders_are_found_inside_of_other_folders(by_source, tmp_path):
    shutil.move(by_source, tmp_path / "download" / "own")
    data = load_dataset("folder", tmp_path / "download")
    assert data.classes == ("jump", "run", "walk") and data.folder == tmp_path / "download" / "own"
    assert data.name == "download"


UCF101_PLACES = {
    "train": lambda entry: f"train/{entry}",
    "videos": lambda entry: f"videos/{entry}",
    "in the root": lambda entry: entry,
    "nested twice": lambda entry: f"UCF-101/UCF-101/{entry}",
    "transcoded": lambda entry: f"UCF-101/{entry.replace('.avi', '.mp4')}",
    "capitals": lambda entry: f"ucf101/{entry.upper()}",
    "flat": lambda entry: f"UCF-101/{entry.split('/')[1]}",
}


@pytest.fixture(params=UCF101_PLACES)
def ucf101_elsewhere(request, ucf101_root, tmp_path) -> Path:
    """The lists of the small UCF101, and all of its videos in another place."""
    lists = ucf101_root / "ucfTrainTestlist"
    root = tmp_path / "elsewhere"
    shutil.copytree(lists, root / lists.name)
    names = [s.path for s in load_dataset("ucf101", ucf101_root).samples]
    entries = [f"{path.parent.name}/{path.name}" for path in names]
    return touch(root, *map(UCF101_PLACES[request.param], entries))


def test_official_lists_find_videos_elsewhere(ucf101_elsewhere, ucf101_root):
    for split in (1, 2, 3):
        data = load_dataset("ucf101", ucf101_elsewhere, split)
        usual = load_dataset("ucf101", ucf101_root, split)
        assert not data.missing and data.classes == usual.classes
        assert [(s.label, s.group) for s in data.test] == [(s.label, s.group) for s in usual.test]
        assert all(path.is_relative_to(data.folder) for path in data.paths)


def test_adopt_sees_official_lists(ucf101_elsewhere):
    layout = look_at(ucf101_elsewhere)
    assert len(layout.videos) == 303
    assert layout.kind == "official lists of ucf101 (ucfTrainTestlist)"


def test_real_lists_find_all_videos_of_ucf101(real_clips, tmp_path):
    lists = real_clips / "ucf101" / "ucfTrainTestlist"
    shutil.copytree(lists, tmp_path / lists.name)
    entries = [
        line.split()[0]
        for name in ("trainlist01.txt", "testlist01.txt")
        for line in (lists / name).read_text().splitlines()
    ]
    touch(tmp_path, *(f"train/{entry.replace('.avi', '.mp4')}" for entry in entries))
    data = load_dataset("ucf101", tmp_path)
    assert len(data.samples) == 13320 and not data.missing and data.folder == tmp_path / "train"


def test_hmdb51_in_the_root_transcoded(hmdb51_root, tmp_path):
    lists = hmdb51_root / "testTrainMulti_7030_splits"
    shutil.copytree(lists, tmp_path / lists.name)
    names = [s.path for s in load_dataset("hmdb51", hmdb51_root).samples]
    touch(tmp_path, *(f"{path.parent.name}/{path.stem}.mp4" for path in names))
    assert not load_dataset("hmdb51", tmp_path).missing


# The verb


def test_adopt_prints_what_a_folder_is_and_writes_its_list(by_source, capsys, monkeypatch):
    before = load_splits("folder", by_source)
    touch(by_source, ".DS_Store")
    monkeypatch.setattr(sys, "argv", ["hstlib", "adopt", str(by_source)])
    main()
    output = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in output.splitlines()[:5])
    assert lines["layout"] == f"class folders, in {by_source}"
    assert lines["videos"] == "30 in 3 classes"
    assert lines["sources"] == (
        "10, a guess (the name up to the last underscore): 's00' of s00_1.avi"
    )
    assert lines["split"] == "3 computed folds: every third source is tested"
    assert lines["ignored"] == "1 hidden files, such as ._ twins"
    assert output.splitlines()[7].split() == ["jump", "10", "10", "6/4", "7/3", "7/3"]
    after = load_splits("folder", by_source)
    assert [data.split_id for data in after] == [data.split_id for data in before]
    assert after[0].from_list and after[0].test == before[0].test


def test_adopt_keeps_a_list_unless_it_is_forced(by_source):
    (by_source / "videos.csv").write_text("edited by hand")
    with pytest.raises(ValueError, match=r"videos\.csv exists; use --force"):
        adopt(by_source)
    assert (by_source / "videos.csv").read_text() == "edited by hand"
    assert len(adopt(by_source, force=True).read_text().splitlines()) == 31


def test_adopt_writes_a_subset_of_classes(by_source, tmp_path):
    file = adopt(by_source, tmp_path / "two.csv", ["walk", "run"])
    assert load_dataset("folder", file).classes == ("run", "walk")
    with pytest.raises(ValueError, match="no class 'sit'; it has jump, run, walk"):
        look_at(by_source, ["sit"])


def test_adopt_says_that_sources_are_unknown(by_class):
    text = describe(look_at(by_class))
    assert "unknown: file names such as jump_000.avi do not give them" in text
    assert "3 computed folds by video" in text and "problem" not in text


def test_adopt_says_where_official_lists_are(ucf101_root, tmp_path):
    root = shutil.copytree(ucf101_root, tmp_path / "download" / "ucf101")
    text = describe(look_at(root.parent))
    assert f"1 folder with the official lists of ucf101: adopt {root} to use them" in text
    assert "official lists of ucf101 (ucfTrain" in describe(look_at(root))


def test_adopt_says_that_a_split_is_unusable(by_source):
    touch(by_source, *(f"sit/s03_{i}.avi" for i in range(4)))
    assert "problem" in describe(look_at(by_source))


def test_adopt_needs_a_folder_with_videos(tmp_path):
    with pytest.raises(ValueError, match="none: no folder"):
        look_at(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no videos; expected <class>/<file>.*videos\.csv"):
        look_at(tmp_path)


def test_a_list_of_real_jhmdb_gives_its_official_splits(real_clips, tmp_path):
    official = load_splits("jhmdb", real_clips / "jhmdb")
    adopted = load_splits("folder", adopt(real_clips / "jhmdb", tmp_path / "jhmdb.csv"))
    assert [a.split_id for a in adopted] == [o.split_id for o in official]
    assert [a.missing for a in adopted] == [()] * 3


# Guessed sources


def test_near_colours_are_linked_and_far_ones_are_not():
    histograms = np.array([[1, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0, 0.85, 0.15], [0.5, 0, 0.5]])
    assert link_nearest(histograms) == [0, 1, 0, 1, 2]
    assert link_nearest(histograms, 0.12) == [0, 1, 0, 2, 3]


def test_guessed_sources_are_kept_apart_but_stay_unknown(
    tmp_path, video_file, moving, monkeypatch, capsys
):
    tints = np.eye(3)[[0, 1, 2, 0, 1, 2]]  # red, green and blue rooms, in two classes
    for number, tint in enumerate(tints):
        frames = (moving(seed=number) // 8 + 200 * tint).astype(np.uint8)
        name = ("run", "walk")[number // 3]
        video_file(tmp_path / "own" / name / f"{name}_{number}.avi", frames)
    (tmp_path / "own" / "walk" / "walk_9.avi").write_text("no video")
    monkeypatch.setattr(
        "hstlib.data.shortcuts.map_in_processes",
        lambda function, items, workers, seconds: ((item, function(item)) for item in items),
    )
    file = adopt(tmp_path / "own", find_sources=True)
    assert "3 guessed by colours for 6 videos, 6 of which share theirs" in capsys.readouterr().out
    sources = {video.path.name: video.source for video in read_list(file)}
    assert sources["run_0.avi"] == sources["walk_3.avi"] == "guess-0001"
    assert sources["run_2.avi"] == sources["walk_5.avi"] and sources["walk_9.avi"] is None
    data = load_dataset("folder", file, 2)
    assert not data.sources_known and "group" not in leak_rules(data)
    assert not {s.group for s in data.train} & {s.group for s in data.test}
