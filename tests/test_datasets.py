import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import default_collate

from hstlib.config import ClipConfig, TrainConfig
from hstlib.data.clips import RGB_MEAN, RGB_STD, normalise
from hstlib.data.datasets import (
    Sample,
    VideoSet,
    hmdb51_tags,
    hold_out_validation,
    load_dataset,
    split_at_random,
)
from hstlib.data.demo import MARKER, _write_hmdb51, _write_ucf101
from hstlib.data.loader import VideoDataset
from hstlib.data.store import prepare_store

LISTS = "testTrainMulti_7030_splits"
CARTWHEEL = "Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"


def groups_of(samples: tuple[Sample, ...]) -> set[tuple[int, str]]:
    return {(sample.label, sample.group) for sample in samples}


def copied(root, tmp_path):
    return shutil.copytree(root, tmp_path / root.name)


# HMDB51


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_tags_of_the_lists_are_train_test_and_unused(hmdb51_root, split):
    data = load_dataset("hmdb51", hmdb51_root, split)
    assert (len(data.train), len(data.test), len(data.unused)) == (2 * 51, 51, 51)
    assert data.classes == tuple(f"class_{i:02d}" for i in range(51))
    for part in (data.train, data.test, data.unused):
        assert all(data.classes[s.label] in s.path.name for s in part)
    tested = {s.path.name for s in data.test}
    assert (
        f"Film_{(2 + split - 1) % 4}_class_00_f_nm_np1_fr_goo_{(2 + split - 1) % 4}.avi" in tested
    )


def test_hmdb51_samples_are_the_same_in_every_split(hmdb51_root):
    paths = [[s.path for s in load_dataset("hmdb51", hmdb51_root, n).samples] for n in (1, 2, 3)]
    assert paths[0] == paths[1] == paths[2] == sorted(paths[0])
    assert len(set(paths[0])) == 4 * 51


def test_hmdb51_missing_lists_the_files_that_are_not_there(hmdb51_root):
    data = load_dataset("hmdb51", hmdb51_root)
    assert len(data.missing) == 4 * 51 - 2
    there = {s.path for s in data.samples} - set(data.missing)
    assert {path.name[:6] for path in there} == {"Film_0", "Film_2"}
    assert all(path.parent.name == "class_07" for path in there)


def one_class_lists(root, lines):
    """Write lists of 51 classes, the last of which is ``pour`` with these lines."""
    (root / LISTS).mkdir(parents=True)
    for name in (*(f"class_{i:02d}" for i in range(50)), "pour"):
        text = lines if name == "pour" else f"Film_{name}_f_nm_np1_fr_goo_0.avi 1 \n"
        (root / LISTS / f"{name}_test_split1.txt").write_text(text)
    return root


def test_hmdb51_group_is_the_title(tmp_path):
    names = ["Bar_0_pour_u_nm_np1_fr_goo_0.avi", "Bar_0_pour_u_cm_np2_le_bad_1.avi"]
    root = one_class_lists(tmp_path / "hmdb51", "".join(f"{name} 2 \n" for name in names))
    assert len(groups_of(load_dataset("hmdb51", root).test)) == 1


def test_hmdb51_group_is_the_title_where_that_holds_the_name_of_the_class(tmp_path):
    names = [
        "How_to_pour_beer_pour_u_nm_np1_fr_goo_0.avi",
        "How_to_pour_wine_pour_u_nm_np1_fr_med_0.avi",
    ]
    root = one_class_lists(tmp_path / "hmdb51", "".join(f"{name} 2 \n" for name in names))
    assert len(groups_of(load_dataset("hmdb51", root).test)) == 2


@pytest.mark.parametrize("line", ["a_pour_u_nm_np1_fr_goo_0.avi 3", "a.avi", "1", "a.avi 1 x"])
def test_hmdb51_malformed_line_is_shown_with_its_file_and_number(tmp_path, line):
    root = one_class_lists(tmp_path / "hmdb51", f"a_pour_u_nm_np1_fr_goo_0.avi 1\n\n{line}\n")
    with pytest.raises(ValueError, match=r"pour_test_split1\.txt:3: "):
        load_dataset("hmdb51", root)


def test_hmdb51_with_another_number_of_classes_is_refused(hmdb51_root, tmp_path):
    root = copied(hmdb51_root, tmp_path)
    (root / LISTS / "class_50_test_split1.txt").unlink()
    with pytest.raises(ValueError, match="has 51 classes, but the split lists have 50; fetch"):
        load_dataset("hmdb51", root)


def test_a_folder_with_the_name_of_a_video_is_none(hmdb51_root, tmp_path):
    root = copied(hmdb51_root, tmp_path)
    video = next((root / "hmdb51_org").rglob("*.avi"))
    (root / "hmdb51_org" / "copy" / video.name).mkdir(parents=True)
    assert load_dataset("hmdb51", root).missing == tuple(
        root / path.relative_to(hmdb51_root) for path in load_dataset("hmdb51", hmdb51_root).missing
    )


def test_two_files_of_one_name_are_refused(hmdb51_root, tmp_path):
    root = copied(hmdb51_root, tmp_path)
    video = next((root / "hmdb51_org").rglob("*.avi"))
    (root / "hmdb51_org" / "copy").mkdir()
    shutil.copy(video, root / "hmdb51_org" / "copy")
    with pytest.raises(ValueError, match="have the same name; remove one"):
        load_dataset("hmdb51", root)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_real_hmdb51_lists(real_clips, split):
    data = load_dataset("hmdb51", real_clips / "hmdb51", split)
    assert (len(data.train), len(data.test), len(data.unused)) == (3570, 1530, 1666)
    assert set(Counter(s.label for s in data.train).values()) == {70}
    assert set(Counter(s.label for s in data.test).values()) == {30}
    assert len(data.samples) == len({s.path for s in data.samples}) == 6766
    assert len(data.missing) == 6766 - 3
    assert all(hmdb51_tags(s.path.name) for s in data.samples)


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_real_lists_have_no_group_on_both_sides(real_clips, name, split):
    data = load_dataset(name, real_clips / name, split)
    assert not groups_of(data.train) & groups_of(data.test)


# UCF101


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_lists(ucf101_root, split):
    data = load_dataset("ucf101", ucf101_root, split)
    assert (len(data.classes), len(data.train), len(data.test)) == (101, 202, 101)
    assert data.classes[0] == "HandStandPushups" and not data.unused
    assert all(f"_g{split:02d}_" in s.path.name for s in data.test)
    assert not groups_of(data.train) & groups_of(data.test)
    assert Counter(s.label for s in data.train) == dict.fromkeys(range(101), 2)


def test_ucf101_lines_end_in_cr_lf(ucf101_root):
    assert b"\r\n" in (ucf101_root / "ucfTrainTestlist" / "testlist01.txt").read_bytes()
    data = load_dataset("ucf101", ucf101_root)
    assert not any("\r" in str(s.path) + s.group for s in data.samples)


def test_ucf101_files_are_found_whatever_their_capitals(ucf101_root):
    data = load_dataset("ucf101", ucf101_root)
    there = {s.path.name for s in data.samples} - {path.name for path in data.missing}
    assert there == {f"v_HandstandPushups_g{g:02d}_c01.avi" for g in (1, 2)}
    assert {s.label for s in data.samples if "Handstand" in s.path.name} == {0}


def test_ucf101_without_class_folders(ucf101_root, tmp_path):
    root = copied(ucf101_root, tmp_path)
    (root / "UCF101").mkdir()
    for video in (root / "UCF-101").rglob("*.avi"):
        video.rename(root / "UCF101" / video.name)
    shutil.rmtree(root / "UCF-101")
    assert len(load_dataset("ucf101", root).missing) == 3 * 101 - 2


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("trainlist01.txt", "Class001/v_Class001_g02_c01.avi 2\r\nNoClass/a.avi 3\r\n", ":2: "),
        ("testlist01.txt", "v_Class001_g01_c01.avi\r\n", ":1: "),
        ("classInd.txt", "1 HandStandPushups\r\n2\r\n", ":2: "),
    ],
)
def test_ucf101_malformed_line_is_shown_with_its_file_and_number(
    ucf101_root, tmp_path, file, text, place
):
    root = copied(ucf101_root, tmp_path)
    (root / "ucfTrainTestlist" / file).write_bytes(text.encode())
    with pytest.raises(ValueError, match=file.replace(".", r"\.") + place):
        load_dataset("ucf101", root)


@pytest.mark.parametrize("file", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_ucf101_missing_list_is_named(ucf101_root, tmp_path, file):
    root = copied(ucf101_root, tmp_path)
    (root / "ucfTrainTestlist" / file).unlink()
    with pytest.raises(ValueError, match=f"{file}.*unpack the official split lists"):
        load_dataset("ucf101", root)


@pytest.mark.parametrize(
    ("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_real_ucf101_lists(real_clips, split, train, test):
    data = load_dataset("ucf101", real_clips / "ucf101", split)
    assert (len(data.train), len(data.test)) == (train, test)
    assert len(data.samples) == len({s.path for s in data.samples}) == 13320
    assert len(data.missing) == 13320 - 4
    assert len(groups_of(data.samples)) == 101 * 25


def test_real_ucf101_files_are_on_the_known_side(real_clips):
    data = load_dataset("ucf101", real_clips / "ucf101", 1)
    tested = {data.classes[s.label] for s in data.test if s.path.is_file()}
    trained = {data.classes[s.label] for s in data.train if s.path.is_file()}
    assert tested == {"ApplyEyeMakeup", "BaseballPitch", "Basketball"}
    assert trained == {"SoccerJuggling"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_official_lists_of_other_encodings_are_read(ucf101_root, tmp_path, encoding):
    root = copied(ucf101_root, tmp_path)
    for file in (root / "ucfTrainTestlist").iterdir():
        file.write_bytes(file.read_bytes().decode().encode(encoding))
    assert load_dataset("ucf101", root).split_id == load_dataset("ucf101", ucf101_root).split_id


# J-HMDB


JHMDB_ROWS = """file,class,source,split1,split2,split3
{0}/A_{0}_f_cm_np1_fr_med_0.mp4,{0},A,1,1,2
{0}/B_{0}_f_cm_np1_fr_med_0.mp4,{0},B,2,0,1
{0}/B_{0}_f_cm_np1_fr_med_1.mp4,{0},B,-1,-1,-1
"""


@pytest.fixture
def jhmdb_root(tmp_path) -> Path:
    """A small J-HMDB without videos: 21 classes of one train, one test and one unlisted clip."""
    header, *rows = JHMDB_ROWS.splitlines()
    lines = [row.format(f"class_{i:02d}") for i in range(21) for row in rows]
    root = tmp_path / "data-root" / "jhmdb"
    root.mkdir(parents=True)
    (root / "splits.csv").write_text("\n".join([header, *lines]))
    return root


def test_jhmdb_has_the_official_numbers_of_hmdb51(jhmdb_root):
    data = load_dataset("jhmdb")
    assert (len(data.classes), len(data.train), len(data.test), len(data.unused)) == (21, 21, 21, 0)
    assert data.train[0].group == "A_class_00" and data.folder == jhmdb_root / "videos"
    assert len(load_dataset("jhmdb", split=3).samples) == 2 * 21 == len(data.missing)
    assert len(load_dataset("jhmdb", split=2).unused) == 21


@pytest.mark.parametrize("folder", ["", "videos", "ReCompress_Videos", "a/b/original"])
def test_jhmdb_is_found_as_avi_in_any_folder(jhmdb_root, folder):
    for sample in load_dataset("jhmdb").samples:
        path = jhmdb_root / folder / sample.path.parent.name / f"{sample.path.stem.upper()}.AVI"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data = load_dataset("jhmdb")
    assert not data.missing and data.folder == jhmdb_root / folder
    check_labels(data)


def test_jhmdb_without_its_list_or_with_other_classes_is_refused(jhmdb_root):
    file = jhmdb_root / "splits.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:7]))
    with pytest.raises(ValueError, match="jhmdb has 21 classes, but the split lists have 2; fetch"):
        load_dataset("jhmdb")
    file.unlink()
    with pytest.raises(ValueError, match=r"splits\.csv is missing"):
        load_dataset("jhmdb")


@pytest.mark.parametrize(("split", "train", "test"), [(1, 665, 257), (2, 505, 248), (3, 511, 241)])
def test_real_jhmdb_lists(real_clips, split, train, test):
    data = load_dataset("jhmdb", real_clips / "jhmdb", split)
    assert (len(data.train), len(data.test), len(data.samples)) == (train, test, 922)
    assert not data.missing and not groups_of(data.train) & groups_of(data.test)
    assert data.from_list  # the six clips that are in no list of HMDB51 are no strays
    assert all(hmdb51_tags(s.path.name) for s in data.samples)
    check_labels(data)
    check_validation(data)


def test_published_clips_of_real_jhmdb_are_found(real_clips, tmp_path):
    shutil.copy(real_clips / "jhmdb" / "splits.csv", tmp_path)
    (tmp_path / "JHMDB_video").symlink_to(real_clips / "jhmdb" / "original")
    data = load_dataset("jhmdb", tmp_path)
    there = set(data.paths) - set(data.missing)
    assert len(there) == 7 and {path.suffix for path in there} == {".avi"}
    assert data.split_id != load_dataset("jhmdb", real_clips / "jhmdb").split_id


def test_a_random_split_of_real_jhmdb_leaks(real_clips):
    data = load_dataset("jhmdb", real_clips / "jhmdb", protocol="random-by-video")
    trained = groups_of(data.train)
    leaks = [(s.label, s.group) in trained for s in data.test]
    assert len(data.samples) == 922 and sum(leaks) > 0.6 * len(leaks)


# Which data set


def test_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'kinetics' is unknown.*hmdb51.*folder"):
        load_dataset("kinetics")


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_data_set_that_is_not_there_says_where_it_was_looked_for(tmp_path, name):
    with pytest.raises(ValueError, match=rf"data-root.{name}.*unpack the official split lists"):
        load_dataset(name)


def test_the_default_place_is_under_the_data_root(hmdb51_root, tmp_path):
    (tmp_path / "data-root").mkdir()
    (tmp_path / "data-root" / "hmdb51").symlink_to(hmdb51_root)
    assert len(load_dataset("hmdb51").train) == 102


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_a_real_corpus_is_no_demo_corpus(request, name):
    root = request.getfixturevalue(f"{name}_root")
    with pytest.raises(ValueError, match=f"holds no demo corpus.*'demo-{name}'.*hstlib demo"):
        load_dataset(f"demo-{name}", root)


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_a_demo_corpus_is_no_real_corpus(request, tmp_path, name):
    root = copied(request.getfixturevalue(f"{name}_root"), tmp_path)
    (root / MARKER).write_text("{}")
    with pytest.raises(ValueError, match=f"is a drawn demo corpus.*'{name}'"):
        load_dataset(name, root)


@pytest.mark.parametrize("data_dir", ["moves", "~/moves"])
def test_a_relative_place_starts_at_the_project_and_a_tilde_is_the_home(
    class_folders, tmp_path, monkeypatch, data_dir
):
    monkeypatch.setattr("hstlib.config.project_root", lambda: class_folders.parent)
    monkeypatch.setenv("HOME", str(class_folders.parent))
    (tmp_path / "moves").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_dataset("folder", data_dir).folder == class_folders


@pytest.mark.parametrize("split", [0, 4])
def test_a_split_that_does_not_exist_is_shown(class_folders, split):
    with pytest.raises(ValueError, match=f"split is {split}; use 1, 2 or 3"):
        load_dataset("folder", class_folders, split)


def test_an_unknown_protocol_is_shown_with_the_known_ones(class_folders):
    with pytest.raises(ValueError, match="'by-clip' is unknown; use one of .*'random-by-clip'"):
        load_dataset("folder", class_folders, protocol="by-clip")


def test_a_list_that_is_not_text_is_named(hmdb51_root, tmp_path):
    root = copied(hmdb51_root, tmp_path)
    (root / LISTS / "class_03_test_split1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"class_03_test_split1\.txt:1: not a text file.*fetch"):
        load_dataset("hmdb51", root)


# Other protocols


RANDOM = ["random-by-video", "random-by-clip"]


@pytest.fixture(params=["hmdb51", "ucf101", "folder"])
def any_set(request) -> tuple[str, Path]:
    name = request.param
    roots = {"hmdb51": "hmdb51_root", "ucf101": "ucf101_root", "folder": "class_folders"}
    return name, request.getfixturevalue(roots[name])


@pytest.mark.parametrize("protocol", RANDOM)
def test_a_random_split_is_a_function_of_the_split_number(any_set, protocol):
    name, root = any_set
    first, again, other = (
        load_dataset(name, root, split, protocol=protocol, clips_per_video=3) for split in (1, 1, 2)
    )
    assert first == again
    assert set(first.test) != set(other.test)


@pytest.mark.parametrize("protocol", RANDOM)
def test_a_random_split_has_every_sample_once_and_a_fifth_of_each_class_in_test(any_set, protocol):
    name, root = any_set
    data = load_dataset(name, root, protocol=protocol, clips_per_video=3)
    official = load_dataset(name, root)
    indices = [None] if protocol == "random-by-video" else [0, 1, 2]
    pooled = [replace(s, clip_index=i) for s in official.samples for i in indices]
    assert Counter(data.train + data.test) == Counter(pooled) and not data.unused
    assert data.paths == official.paths and data.missing == official.missing
    sizes, tested = Counter(s.label for s in pooled), Counter(s.label for s in data.test)
    assert all(tested[label] == round(sizes[label] / 5) for label in sizes)


@pytest.mark.parametrize("split", [1, 2])
def test_the_validation_protocol_divides_the_training_set_and_reads_no_test_video(any_set, split):
    name, root = any_set
    data = load_dataset(name, root, split, protocol="validation")
    official = load_dataset(name, root, split)
    assert (data.train, data.test) == hold_out_validation(official)
    assert not set(data.train + data.test) & set(official.test)
    assert data.paths == official.paths and data.split_id != official.split_id


def test_by_clip_tears_videos_apart_and_by_video_does_not(class_folders):
    both = {}
    for protocol in RANDOM:
        data = load_dataset("folder", class_folders, protocol=protocol, clips_per_video=4)
        both[protocol] = {s.path for s in data.train} & {s.path for s in data.test}
    assert both["random-by-video"] == set() and both["random-by-clip"]


def test_a_random_split_does_not_depend_on_what_is_on_disk(ucf101_root, tmp_path):
    root = copied(ucf101_root, tmp_path)
    shutil.rmtree(root / "UCF-101")
    with_files, without = (
        [s.path.name.lower() for s in load_dataset("ucf101", r, protocol="random-by-video").test]
        for r in (ucf101_root, root)
    )
    assert with_files == without


def test_a_video_of_one_clip_cannot_be_torn_apart(class_folders):
    with pytest.raises(ValueError, match="clips_per_video is 1; to draw clips, use 2"):
        load_dataset("folder", class_folders, protocol="random-by-clip")


def test_too_few_videos_for_a_random_split_are_refused(class_folders):
    data = load_dataset("folder", class_folders)
    few = replace(data, train=data.train[:2], test=data.test[:0])
    with pytest.raises(ValueError, match="moves: 2 videos are too few"):
        split_at_random(few, seed=1)


@pytest.mark.parametrize("protocol", ["official", *RANDOM])
def test_run_id_names_a_protocol_that_is_not_the_official(protocol):
    run_id = TrainConfig(protocol=protocol, split=2).run_id
    inserted = "" if protocol == "official" else f"{protocol}-"
    assert run_id == f"hmdb51-{inserted}hst-resnet21-s2-seed0"


# Validation


def check_validation(data: VideoSet) -> None:
    train, validation = hold_out_validation(data)
    assert hold_out_validation(data) == (train, validation)
    assert Counter(train + validation) == Counter(data.train)
    assert not {s.group for s in train} & {s.group for s in validation}
    groups, held_out = (
        Counter(label for label, _ in groups_of(part)) for part in (data.train, validation)
    )
    clips, set_aside = (Counter(s.label for s in part) for part in (data.train, validation))
    for label in clips:
        assert (groups[label] > 1) <= held_out[label] <= max(1, 0.2 * groups[label])
        assert set_aside[label] <= 0.21 * clips[label]


def test_validation_of_real_and_drawn_lists(official_split):
    check_validation(official_split)


def test_validation_of_classes_that_share_groups(class_folders):
    data = load_dataset("folder", class_folders)
    train, validation = hold_out_validation(data)
    assert len({s.group for s in validation}) == 1 and len(validation) == 2
    assert Counter(train + validation) == Counter(data.train)


def test_a_film_that_gave_most_clips_of_a_class_stays_in_training():
    films = ["big"] * 30 + ["small"] * 3 + ["tiny"]
    train = tuple(Sample(Path(f"{i}.avi"), 0, film) for i, film in enumerate(films))
    kept, validation = hold_out_validation(VideoSet("x", ("y",), train, ()))
    assert len(validation) in (1, 3) and len(kept) + len(validation) == 34


def test_a_class_of_one_group_stays_in_training(class_folders):
    data = load_dataset("folder", class_folders)
    one = replace(data, train=tuple(s for s in data.train if s.label or s.group == "seq01"))
    train, validation = hold_out_validation(one)
    assert "seq01" not in {s.group for s in validation} and {s.label for s in train} == {0, 1}
    assert validation


def test_classes_of_one_group_each_cannot_be_validated(class_folders):
    data = load_dataset("folder", class_folders)
    one = replace(data, train=tuple(s for s in data.train if s.group == "seq01"))
    with pytest.raises(ValueError, match=r"moves: no group can be held out.*two groups or more"):
        hold_out_validation(one)


# Labels


@pytest.fixture(scope="module")
def drawn_roots(tmp_path_factory) -> dict[str, Path]:
    """The lists of the drawn corpora without their videos."""
    roots = {}
    for name, write in (("demo-hmdb51", _write_hmdb51), ("demo-ucf101", _write_ucf101)):
        roots[name] = tmp_path_factory.mktemp(name)
        write(roots[name], 0)
        (roots[name] / MARKER).touch()
    return roots


@pytest.fixture(params=[1, 2, 3])
def split(request) -> int:
    return request.param


@pytest.fixture(params=["hmdb51", "ucf101", "demo-hmdb51", "demo-ucf101"])
def official_split(request, split) -> VideoSet:
    """Every split of the real lists, where they exist, and of the drawn ones."""
    if request.param.startswith("demo-"):
        root = request.getfixturevalue("drawn_roots")[request.param]
    else:
        root = request.getfixturevalue("real_clips") / request.param
    return load_dataset(request.param, root, split)


def check_labels(data: VideoSet) -> None:
    """The class of every label is the one in the folder and in the name of the file."""
    for sample in data.samples:
        name = data.classes[sample.label].lower()
        assert sample.path.parent.name.lower() == name
        assert f"_{name}_" in sample.path.name.lower()


def test_labels_of_real_and_drawn_lists_are_the_class_folders(official_split):
    check_labels(official_split)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_labels_of_the_real_ucf101_lists_are_one_less_than_the_numbers_there(real_clips, split):
    root = real_clips / "ucf101"
    lines = (root / "ucfTrainTestlist" / f"trainlist{split:02d}.txt").read_text().split("\n")
    numbers = [int(line.split()[1]) for line in lines if line.strip()]
    assert [s.label + 1 for s in load_dataset("ucf101", root, split).train] == numbers


# Folders of classes


def test_folders_are_the_classes(class_folders):
    data = load_dataset("folder", class_folders)
    assert (data.name, data.classes) == ("moves", ("left", "right"))
    assert all(data.classes[s.label] == s.path.parent.name for s in data.samples)
    assert len(data.samples) == 12 and not data.missing


def test_every_group_is_tested_once_and_never_trained_then(class_folders):
    tested = []
    for split in (1, 2, 3):
        data = load_dataset("folder", class_folders, split)
        held_out = {s.group for s in data.test}
        assert not held_out & {s.group for s in data.train}
        tested += held_out
    assert sorted(tested) == [f"seq{i:02d}" for i in range(6)]


def test_files_that_are_no_videos_are_left_out(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    (root / "left" / "notes.txt").write_text("no video")
    (root / "README.md").write_text("no class")
    assert len(load_dataset("folder", root).samples) == 12


def test_folder_needs_a_place():
    with pytest.raises(ValueError, match="'folder' needs data_dir"):
        load_dataset("folder")


def test_folder_without_videos_is_named(tmp_path):
    with pytest.raises(ValueError, match="empty: no videos"):
        load_dataset("folder", tmp_path / "empty")


@pytest.mark.parametrize(("groups", "split"), [(1, 1), (2, 3)])
def test_folder_with_too_few_groups_for_a_split_is_refused(class_folders, tmp_path, groups, split):
    root = copied(class_folders, tmp_path)
    for path in root.rglob("*.avi"):
        if int(path.name[3:5]) >= groups:
            path.unlink()
    with pytest.raises(ValueError, match=re.escape(str(root))):
        load_dataset("folder", root, split)


# Tensors


@pytest.fixture
def store(class_folders, tmp_path, inline_pool):
    paths = sorted(class_folders.rglob("*.avi"))
    return prepare_store(paths, ClipConfig(size=16, clips_per_video=3), tmp_path / "store")


@pytest.fixture
def samples(class_folders):
    return load_dataset("folder", class_folders).samples


def test_a_sample_is_frames_flow_and_label(store, samples):
    frames, flow, label = VideoDataset(samples, store)[0]
    assert frames.shape == (16, 16, 16, 3) and frames.dtype == torch.uint8
    assert flow.shape == (2, 16, 16, 16) and flow.dtype == torch.float16
    assert label == samples[0].label


def test_the_inputs_of_a_model_are_clips_and_flow_in_float32(store, samples):
    data = VideoDataset(samples, store)
    *items, labels = default_collate([data[0], data[1]])
    clips, flow = data.model_inputs(*items)
    assert labels.tolist() == [sample.label for sample in samples[:2]]
    assert_close(clips, torch.stack([normalise(data[i][0]) for i in (0, 1)]))
    assert flow.dtype == torch.float32
    assert torch.equal(flow, torch.stack([data[i][1].float() for i in (0, 1)]))


def test_a_sample_is_described_by_its_file_name(store, samples):
    assert VideoDataset(samples, store).describe(3) == samples[3].path.name


def clips_drawn(store, samples, seed: int, epoch: int) -> list[int]:
    data = VideoDataset(samples, store, seed)
    data.epoch = epoch
    every = [store.read_all(s.path)[0] for s in samples]
    return [
        next(c for c in range(3) if np.array_equal(every[i][c], data[i][0].numpy()))
        for i in range(len(samples))
    ]


def test_the_random_clip_is_a_function_of_seed_epoch_and_index(store, samples):
    drawn = clips_drawn(store, samples, seed=3, epoch=5)
    assert drawn == clips_drawn(store, samples, seed=3, epoch=5)
    assert drawn != clips_drawn(store, samples, seed=4, epoch=5)
    assert drawn != clips_drawn(store, samples, seed=3, epoch=6)
    assert set(drawn) == {0, 1, 2}
    for index, clip_index in enumerate(drawn):
        assert clip_index == np.random.default_rng((3, 5, index)).integers(3)


def test_a_sample_of_one_clip_is_always_that_clip(store, samples):
    single = [replace(sample, clip_index=i % 3) for i, sample in enumerate(samples)]
    for epoch in range(4):
        assert clips_drawn(store, single, seed=3, epoch=epoch) == [i % 3 for i in range(12)]


def test_normalise_by_hand():
    frames = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    expected = [(v - m) / s for v, m, s in zip((0, 1, 0.2), RGB_MEAN, RGB_STD, strict=True)]
    assert_close(normalise(frames), torch.tensor(expected).view(3, 1, 1, 1))


@pytest.mark.parametrize("batch", [(), (2,), (2, 5)])
def test_normalise_puts_channels_before_frames(batch):
    frames = torch.randint(0, 256, (*batch, 4, 6, 7, 3), dtype=torch.uint8)
    clips = normalise(frames)
    assert clips.shape == (*batch, 3, 4, 6, 7) and clips.dtype == torch.float32
    green = (frames[..., 1] / 255 - RGB_MEAN[1]) / RGB_STD[1]
    assert_close(clips.select(-4, 1), green)


@pytest.mark.parametrize(
    "frames", [torch.zeros(4, 6, 7, 3), torch.zeros(4, 3, 6, 7, dtype=torch.uint8)]
)
def test_normalise_shows_shape_and_type_of_what_it_cannot_take(frames):
    with pytest.raises(ValueError, match="expected uint8") as error:
        normalise(frames)
    assert str(tuple(frames.shape)) in str(error.value) and str(frames.dtype) in str(error.value)


def test_hmdb51_tags_by_hand():
    tags = {"body": "f", "camera": "cm", "people": "2", "view": "le", "quality": "med"}
    assert hmdb51_tags(CARTWHEEL) == tags


@pytest.mark.parametrize("name", ["v_Basketball_g01_c01.avi", "seq01_004.avi", CARTWHEEL[:-4]])
def test_other_names_have_no_hmdb51_tags(name):
    assert hmdb51_tags(name) == {}


def test_samples_of_a_video_set_are_in_the_order_of_their_paths(tmp_path):
    a, b, c = (Sample(tmp_path / name, 0, name) for name in "abc")
    assert VideoSet("x", ("y",), (c,), (a,), (b,)).samples == (a, b, c)
