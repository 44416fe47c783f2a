"""List files: one CSV defines a data set."""

from pathlib import Path

import pytest

from hstlib.config import TrainConfig
from hstlib.data.datasets import hold_out_validation, load_dataset, load_splits
from hstlib.data.leakage import find_leaks
from hstlib.data.lists import ListedVideo, read_list, read_text, write_list
from hstlib.data.verify import verify

BY_SUBSET = """file,class,group,subset
a/1.mp4,run,film1,train
a/2.mp4,run,film2,test
b/1.mp4,walk,film1,train
b/2.mp4,walk,film3,test
b/3.mp4,walk,film4,validation
b/4.mp4,walk,film5,unused
"""
BY_SPLIT = """file,class,source,split1,split2,split3
a.avi,run,Alien,1,2,train
b.avi,run,Heat,2,1,test
c.avi,run,Jaws,0,-1,validation
"""


@pytest.fixture
def write(tmp_path):
    def write_text(content: str | bytes, name: str = "videos.csv") -> Path:
        file = tmp_path / "mine" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_text


def names(samples) -> list[str]:
    return [f"{s.path.parent.name}/{s.path.name}" for s in samples]


def test_a_list_defines_classes_groups_and_subsets(write):
    file = write(BY_SUBSET)
    data = load_dataset("folder", file)
    assert (data.name, data.classes, data.folder) == ("mine", ("run", "walk"), file.parent)
    assert names(data.train) == ["a/1.mp4", "b/1.mp4"] and names(data.test) == [
        "a/2.mp4",
        "b/2.mp4",
    ]
    assert names(data.validation) == ["b/3.mp4"] and names(data.unused) == ["b/4.mp4"]
    assert [s.group for s in data.train] == ["film1", "film1"] and data.sources_known
    assert len(data.missing) == len(data.samples) == 6
    assert hold_out_validation(data) == (data.train, data.validation)


def test_a_folder_with_a_list_is_the_list_even_beside_class_folders(write, class_folders):
    file = write(BY_SUBSET)
    (file.parent / "left").symlink_to(class_folders / "left")
    assert load_dataset("folder", file.parent) == load_dataset("folder", file)


def test_a_list_of_another_name_is_a_data_set_of_that_name(write):
    assert load_dataset("folder", write(BY_SUBSET, "two films.csv")).name == "two films"


def test_a_run_is_named_by_the_folder_or_the_list(write):
    def run_id(place: Path) -> str:
        return TrainConfig(dataset="folder", data_dir=str(place)).run_id

    file, other = write(BY_SUBSET), write(BY_SUBSET, "first.csv")
    assert run_id(file) == run_id(file.parent) == "mine-hst-resnet21-s1-seed0"
    assert run_id(other) == "first.csv-hst-resnet21-s1-seed0"
    elsewhere = file.parent.parent / "theirs" / file.name
    assert run_id(elsewhere) == "theirs-hst-resnet21-s1-seed0"


def test_own_videos_do_not_take_the_name_of_a_public_data_set():
    own = TrainConfig(dataset="folder", data_dir="my/hmdb51").run_id
    assert own == "folder-hmdb51-hst-resnet21-s1-seed0" != TrainConfig().run_id


def test_a_list_has_the_splits_that_it_names(write):
    file = write(BY_SUBSET)
    assert len(load_splits("folder", file)) == 1
    with pytest.raises(ValueError, match=r"videos\.csv: split is 2, but the list has 1; use 1"):
        load_dataset("folder", file, 2)
    assert load_dataset("folder", file, 2, protocol="random-by-video").test


def test_numbers_of_hmdb51_and_words_are_the_same(write):
    one, two, three = load_splits("folder", write(BY_SPLIT))
    assert [Path(s.path).stem for part in (one.train, one.test, one.unused) for s in part] == [
        *"abc"
    ]
    assert [s.group for s in two.train + two.test] == ["Heat", "Alien"] and len(two.samples) == 2
    assert [s.group for s in three.validation] == ["Jaws"]


def test_without_subsets_every_third_source_is_tested(write):
    rows = "".join(f"{c}{g}.avi,{c},film{g}\n" for c in ("run", "walk") for g in range(6))
    file = write(f"file,class,group\n{rows}")
    tested = [{s.group for s in data.test} for data in load_splits("folder", file)]
    assert tested == [{"film0", "film3"}, {"film1", "film4"}, {"film2", "film5"}]


def test_no_fold_tests_all_sources_of_a_class(write):
    """Sources of one class each, whose names take the classes in turn."""
    rows = [f"{c}{n}.avi,{c},film{n}_{c}" for n in range(3) for c in ("bow", "hug", "run")]
    data = load_dataset("folder", write("\n".join(["file,class,group", *rows])), 2)
    assert {data.classes[sample.label] for sample in data.train} == {"bow", "hug", "run"}
    assert {sample.group for sample in data.test} == {"film1_bow", "film1_hug", "film1_run"}


def test_without_a_column_of_sources_known_file_names_give_them(write):
    rows = [f"/train/Bow/v_Bow_g{g:02}_c0{c}.avi,Bow" for g in range(1, 5) for c in (1, 2)]
    file = write("\n".join(["clip_path,label", *rows]), "train.csv")
    data = load_dataset("folder", file)
    assert data.sources_known and {s.group for s in data.test} == {"v_Bow_g01", "v_Bow_g04"}
    assert not any(find_leaks(data))
    # An empty cell says that the source is unknown, whatever the name.
    with_column = [f"{row},{'' if 'g01' in row else 'known'}" for row in rows]
    file = write("\n".join(["clip_path,label,group", *with_column]))
    assert [video.source for video in read_list(file)] == [None] * 2 + ["known"] * 6


def test_a_list_without_sources_says_that_they_are_unknown(write):
    rows = "".join(f"{i}.avi,run,,{'test' if i else 'train'}\n" for i in range(3))
    assert not load_dataset("folder", write(f"file,class,group,subset\n{rows}")).sources_known


@pytest.mark.parametrize(
    "content",
    [
        BY_SUBSET.encode("utf-8-sig"),
        BY_SUBSET.replace("\n", "\r\n").encode(),
        BY_SUBSET.encode("utf-16"),
        BY_SUBSET.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
        BY_SUBSET.replace(",", ";").encode(),
        BY_SUBSET.replace("file,", "File ,").replace("\n", "\n\n").encode(),
        BY_SUBSET.replace("/", "\\").encode(),
    ],
    ids=["bom", "crlf", "utf-16", "excel", "semicolons", "blank lines", "windows paths"],
)
def test_lists_of_other_programs_are_read(write, content):
    plain = load_dataset("folder", write(BY_SUBSET, "a.csv"))
    other = load_dataset("folder", write(content, "a.csv"))
    assert plain == other


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file,class\ncaf\xe9.avi,run\n",
            r"csv:2: not a text file.*0xe9.*save it as UTF-8",
        ),
        (BY_SUBSET.encode("utf-16-le"), r"videos\.csv:1: not a text file.*zero byte"),
        (b"", r"videos\.csv:1: no column class and no column file"),
        (
            b"name,sort\na,b\n",
            r"csv:1: no column class and no column file in 'name,s",
        ),
        (b"file,class\n", r"videos\.csv: no videos"),
        (
            b"file,class\na.avi,Jump\nb.avi,jump\n",
            r"videos\.csv: the classes 'Jump' and 'jump' differ only in capitals; give them one",
        ),
        (b"file,class\na.avi\n", r"videos\.csv:2: 1 cells, but the first line has 2"),
        (b"file,class\na.avi,\n", r"videos\.csv:2: the column 'class' is empty"),
        (b"file,class\na,r\n\nx/../a,r\n", r"videos\.csv:4: 'x/\.\./a' is also in .*csv:2"),
        (b"file,class,subset\na,r,dev\n", r"videos\.csv:2: subset is 'dev'; use train, test"),
        (b"file,class,split1\na,r,\n", r"videos\.csv:2: split1 is ''; use"),
        (b"file,class,subset\na,r,1\n", r"videos\.csv: 1 training and 0 test videos in split 1"),
        (
            b"file,class,subset\na,run,train\nb,run,test\nc,walk,test\n",
            r"split 1 tests \['walk'\], but has no training video of them; give .*adopt",
        ),
    ],
)
def test_a_damaged_list_is_refused_with_its_place(write, content, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", write(content))


@pytest.mark.parametrize(
    ("header", "understood"),
    [
        ("clip_name,clip_path,label", "clip_path as file, label as class"),
        ("tag,video_name", "video_name as file, tag as class"),
        ("file_name,class_name,source", "file_name as file, class_name as class"),
        ("Filename,Category", "filename as file, category as class"),
        ("path,file,class,label,group,source", None),
    ],
)
def test_usual_column_names_are_understood_and_logged(write, caplog, header, understood):
    caplog.set_level("INFO")
    cells = dict.fromkeys(header.lower().split(","), "other")
    for names, value in (
        (("clip_path", "video_name", "file_name", "filename", "file"), "/a/1.avi"),
        (("tag", "class_name", "category", "class"), "run"),
        (("group", "source"), "film"),
    ):
        if name := next((name for name in names if name in cells), None):
            cells[name] = value
    if "class" not in cells and "label" in cells:
        cells["label"] = "run"
    file = write(f"{header}\n{','.join(cells.values())}\n")
    (file.parent / "a").mkdir()
    (file.parent / "a" / "1.avi").touch()
    (video,) = read_list(file)
    has_source = "source" in cells or "group" in cells
    assert (video.path, video.class_name) == (file.parent / "a" / "1.avi", "run")
    assert video.source == ("film" if has_source else None)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ([f"{file}: reads the column {understood}"] if understood else [])


def test_files_outside_of_the_folder_of_the_list_are_verified(write, class_folders, inline_pool):
    videos = sorted(class_folders.rglob("*.avi"))[:4]
    rows = "".join(
        f"{path},{path.parent.name},g{i},{'test' if i % 2 else 'train'}\n"
        for i, path in enumerate(videos)
    )
    file = write(f"file,class,group,subset\n{rows}", "elsewhere.csv")
    data = load_dataset("folder", file)
    assert not data.missing and all(path.is_relative_to(data.folder) for path in data.paths)
    (file.parent / "other").mkdir()  # a list chooses files; others are no strays
    assert verify("folder", file, 1).problems == []


def test_what_is_written_is_read_again(tmp_path):
    videos = [
        ListedVideo(tmp_path / "a b,c.avi", "run", "film", ("train", "test", None)),
        ListedVideo(tmp_path / 'q"é.avi', "walk", None, ("test", "unused", "validation")),
        ListedVideo(tmp_path / "שלום\u2028a\nb.avi", "walk", None, ("train", "train", "train")),
    ]
    write_list(tmp_path / "lists" / "x.csv", videos)
    assert read_list(tmp_path / "lists" / "x.csv") == videos
    assert read_text(tmp_path / "lists" / "x.csv").splitlines()[0] == (
        "file,class,group,split1,split2,split3"
    )


def test_a_name_that_is_no_text_cannot_be_listed(tmp_path):
    video = ListedVideo(tmp_path / "caf\udce9.avi", "run", "film", ("train",))
    with pytest.raises(ValueError, match=r"caf.udce9.*not valid UTF-8; rename it"):
        write_list(tmp_path / "x.csv", [video])
    assert not (tmp_path / "x.csv").exists()
