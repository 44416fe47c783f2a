import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from hstlib.__main__ import main
from hstlib.data import inspection
from hstlib.data.datasets import load_dataset
from hstlib.data.inspection import Inspection, inspect_file, inspect_files
from hstlib.data.verify import (
    Problem,
    describe_times,
    manifest_path,
    verified_sha256,
    verify,
)


@pytest.fixture
def inspected(monkeypatch) -> list[str]:
    """Inspect in this process, and collect the names of the inspected files."""
    names = []

    def inspect_here(paths, workers):
        for path in paths:
            names.append(path.name)
            yield path, inspect_file(path)

    monkeypatch.setattr("hstlib.data.verify.inspect_files", inspect_here)
    return names


@pytest.fixture
def folder(class_folders, tmp_path) -> Path:
    return shutil.copytree(class_folders, tmp_path / "moves")


def kinds_of(problems: list[Problem]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem.name)
    return found


def the_problem(root: Path) -> Problem:
    (problem,) = verify("folder", root).problems
    return problem


# What is noted


def test_a_sound_data_set_has_no_problems(folder, inspected):
    manifest = verify("folder", folder)
    assert manifest.problems == [] and len(manifest.files) == 12
    entry = json.loads(manifest.files["left/seq01_1.avi"].model_dump_json(by_alias=True))
    path = folder / "left" / "seq01_1.avi"
    expected = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "frames": 28, "width": 32, "height": 24, "rate": 25.0, "seconds": 1.12, "codec": "mpeg4",
        "timing": "timestamps", "variable": False, "largest_gap": 0.04, "kind": None,
        "class": "left", "group": "seq01", "tags": {}, "roles": ["train", "test", "train"],
        "fault": None,
    }  # fmt: skip
    assert {key: entry[key] for key in expected} == expected


def test_hmdb51_entries_have_tags_and_roles_of_the_lists(hmdb51_root, inspected):
    files = verify("hmdb51", hmdb51_root).files
    assert len(files) == 4 * 51
    entry = files["class_07/Film_0_class_07_f_nm_np1_fr_goo_0.avi"]
    assert entry.roles == ["train", "unused", "test"] and entry.frames == 28
    assert (entry.class_name, entry.group) == ("class_07", "Film_0_class_07")
    assert entry.tags["view"] == "fr"


def test_missing_files_are_listed_by_name(hmdb51_root, inspected):
    kinds = kinds_of(verify("hmdb51", hmdb51_root).problems)
    assert kinds.keys() == {"missing"} and len(kinds["missing"]) == 4 * 51 - 2
    assert "class_07/Film_1_class_07_f_nm_np1_fr_goo_1.avi" in kinds["missing"]


@pytest.mark.parametrize("flat", [False, True])
def test_capitals_and_flat_archives_are_no_problem(ucf101_root, tmp_path, inspected, flat):
    root = shutil.copytree(ucf101_root, tmp_path / "ucf101")
    if flat:
        for path in list((root / "UCF-101").rglob("*.avi")):
            path.rename(root / "UCF-101" / path.name)
        (root / "UCF-101" / "HandstandPushups").rmdir()
    manifest = verify("ucf101", root)
    assert kinds_of(manifest.problems).keys() == {"missing"}
    usable = [e for e in manifest.files.values() if e.fault is None]
    assert [e.class_name for e in usable] == ["HandStandPushups"] * 2


def test_the_hash_is_that_of_sha256sum(folder, inspected):
    manifest = verify("folder", folder)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.avi"))
    printed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True).stdout
    assert manifest.sha256 == hashlib.sha256(printed).hexdigest()
    assert manifest.sha256 == verified_sha256(load_dataset("folder", folder))


def test_the_hash_follows_content_and_names(folder, inspected):
    first = verify("folder", folder).sha256
    (folder / "left" / "seq01_1.avi").touch()
    assert verify("folder", folder).sha256 == first
    shutil.copy(folder / "right" / "seq01_0.avi", folder / "left" / "seq01_1.avi")
    second = verify("folder", folder).sha256
    (folder / "left" / "seq01_1.avi").rename(folder / "left" / "seq01_2.avi")
    assert len({first, second, verify("folder", folder).sha256}) == 3


@pytest.mark.parametrize("change", ["touch", "remove", "add", "nothing verified"])
def test_a_data_set_that_changed_has_no_verified_hash(folder, inspected, change):
    manifest = verify("folder", folder)
    path = folder / "left" / "seq01_1.avi"
    if change == "touch":
        os.utime(path, ns=(1, 1))
    elif change == "remove":
        path.unlink()
    elif change == "add":
        shutil.copy(path, folder / "left" / "seq09_1.avi")
    else:
        manifest_path(load_dataset("folder", folder)).unlink()
    assert manifest.sha256 and verified_sha256(load_dataset("folder", folder)) is None


# What is wrong


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty, 0 bytes"), (b"<!DOCTYPE html>", "not a video")],
)
def test_files_that_are_no_videos_are_listed(folder, inspected, content, reason):
    (folder / "left" / "seq07_1.avi").write_bytes(content)
    problem = the_problem(folder)
    assert (problem.kind, problem.name) == ("unusable", "left/seq07_1.avi")
    assert problem.reason.startswith(reason) and str(folder) not in problem.reason


def test_a_truncated_file_is_listed_with_what_it_holds(folder, inspected, video_file, moving):
    path = folder / "left" / "seq07_1.avi"
    whole = video_file(path, moving(seed=0, count=60, height=96, width=128)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    manifest = verify("folder", folder)
    (problem,) = manifest.problems
    entry = manifest.files[problem.name]
    assert f"bytes are missing at the end, {entry.frames} frames decode" in problem.reason
    assert entry.kind == "cut off"
    assert 0 < entry.frames < 57 and entry.sha256


def test_a_file_that_may_not_be_read_is_listed_and_read_later(folder, inspected, monkeypatch):
    def refuse(path, *arguments, **keywords):
        if path.name == "seq01_1.avi":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **keywords)

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        problem = the_problem(folder)
    assert (problem.kind, problem.name) == ("unread", "left/seq01_1.avi")
    assert problem.fault == "unreadable"
    assert problem.reason.startswith("cannot be read (Permission denied)")
    assert str(problem).startswith("unread (unreadable): left/seq01_1.avi: cannot be read")
    assert verify("folder", folder).problems == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_fault_of_the_moment_is_tried_again(folder, inspected, monkeypatch, error):
    def fail(path):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(inspection, "inspect_video", fail)
        manifest = verify("folder", folder)
    assert {p.kind for p in manifest.problems} == {"unread"}
    assert {p.fault for p in manifest.problems} <= {"unreadable", "out of memory"}
    assert all(file.sha256 for file in manifest.files.values())  # the content could be read
    assert verify("folder", folder).problems == [] and len(inspected) == 24


def test_a_disk_that_fails_while_hashing_is_a_fault(folder, monkeypatch):
    def fail(file, algorithm):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("hstlib.data.inspection.hashlib.file_digest", fail)
    inspection = inspect_file(folder / "left" / "seq01_1.avi")
    assert inspection.kind == "unreadable" and inspection.sha256 is None
    assert inspection.fault.startswith("cannot be read (Input/output error)")


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "left" / "seq07_1.avi")
    inspection = inspect_file(folder / "left" / "seq07_1.avi")
    assert inspection == Inspection(
        kind="not a video", fault="is not a regular file; name a video file"
    )


def test_a_name_that_is_not_utf8_is_read_and_stored(folder, inspected):
    odd = Path(os.fsdecode(os.fsencode(folder / "left") + b"/caf\xe9_1.avi"))
    shutil.copy(folder / "left" / "seq01_1.avi", odd)
    assert verify("folder", folder).problems == []
    stored = json.loads(manifest_path(load_dataset("folder", folder)).read_bytes())
    assert stored["files"][r"left/caf\xe9_1.avi"]["frames"] == 28


def test_strays_are_listed_whatever_their_suffix(ucf101_root, tmp_path, inspected):
    root = shutil.copytree(ucf101_root, tmp_path / "ucf101")
    inside = root / "UCF-101" / "HandstandPushups"
    strays = (root / "UCF-101" / "notes.db", inside / ".part", inside / "v_X_g01_c01.avi")
    left_behind = (inside / "Thumbs.db", inside / "._v_X_g01_c01.avi", root / ".DS_Store")
    for stray in (*strays, *left_behind):
        stray.write_bytes(b"x")
    (root / "UCF-101" / "__MACOSX").mkdir()
    (inside / "TSP_Flows").mkdir()
    for i in range(3):
        (inside / "TSP_Flows" / f"{i}.npy").touch()
    strays = [p for p in verify("ucf101", root).problems if p.kind == "stray"]
    assert {p.name for p in strays} == {
        "notes.db",
        "HandstandPushups/.part",
        "HandstandPushups/v_X_g01_c01.avi",
        "HandstandPushups/TSP_Flows",
    }
    (flows,) = (p for p in strays if p.name.endswith("Flows"))
    assert flows.reason.startswith("a folder with 3 files")


def test_strays_of_class_folders_are_what_is_no_video(folder, inspected):
    (folder / "README.md").write_text("may stay")
    (folder / "left" / "notes.txt").write_text("may not")
    (folder / "empty class").mkdir()
    assert kinds_of(verify("folder", folder).problems) == {
        "stray": ["empty class", "left/notes.txt"]
    }


def test_a_class_folder_may_be_a_link(folder, tmp_path, inspected):
    (folder / "left").rename(tmp_path / "elsewhere")
    (folder / "left").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "notes.txt").touch()
    assert kinds_of(verify("folder", folder).problems) == {"stray": ["left/notes.txt"]}


def test_a_file_in_the_folder_of_another_class_is_mislabelled(hmdb51_root, tmp_path, inspected):
    root = shutil.copytree(hmdb51_root, tmp_path / "hmdb51")
    videos = root / "hmdb51_org"
    (videos / "class_07").rename(videos / "class_08")
    found = [p for p in verify("hmdb51", root).problems if p.kind == "mislabelled"]
    assert len(found) == 2
    assert all("folder says class_08, but it is listed as class_07" in p.reason for p in found)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("v_Right_g01_c01.avi", True),
        ("v_left_g01_c01.avi", False),
        ("v_Up_g01_c01.avi", False),
        ("A_Film_right_f_nm_np1_fr_goo_0.avi", True),
        ("Turn_right_left_f_nm_np1_fr_goo_0.avi", False),
        ("turn_right_0.avi", False),
    ],
)
def test_a_name_that_says_another_class_is_mislabelled(folder, inspected, name, wrong):
    shutil.copy(folder / "left" / "seq01_1.avi", folder / "left" / name)
    expected = {"mislabelled": [f"left/{name}"]} if wrong else {}
    assert kinds_of(verify("folder", folder).problems) == expected


# Again, and after a kill


def test_a_second_look_reads_only_what_changed(folder, inspected):
    (folder / "left" / "seq08_1.avi").write_bytes(b"<html>")
    first = verify("folder", folder)
    assert len(inspected) == 13
    inspected.clear()
    assert verify("folder", folder) == first and inspected == []
    shutil.copy(folder / "right" / "seq01_0.avi", folder / "left" / "seq01_1.avi")
    os.utime(folder / "left" / "seq02_1.avi", ns=(1, 1))
    (folder / "right" / "seq03_0.avi").unlink()
    manifest = verify("folder", folder)
    assert sorted(inspected) == ["seq01_1.avi", "seq02_1.avi"]
    assert len(manifest.files) == 12


def test_another_decoder_reads_everything(folder, inspected, monkeypatch):
    verify("folder", folder)
    monkeypatch.setattr("av.__version__", "0.0")
    verify("folder", folder)
    assert len(inspected) == 24


def test_a_manifest_without_the_later_fields_is_used(folder, inspected):
    first = verify("folder", folder)
    path = manifest_path(load_dataset("folder", folder))
    content = json.loads(path.read_text())
    for entry in content["files"].values():
        del entry["kind"], entry["fault"]
    path.write_text(json.dumps(content))
    inspected.clear()
    assert verify("folder", folder) == first and inspected == []


def test_a_manifest_that_is_none_is_named(folder, inspected):
    verify("folder", folder)
    path = manifest_path(load_dataset("folder", folder))
    path.write_text("{")
    with pytest.raises(ValueError, match=rf"{path}: not a manifest.*delete it"):
        verify("folder", folder)


KILLED = """
import sys, time
import hstlib.data.verify as v
from hstlib.data.inspection import inspect_file

def slowly(paths, workers):
    for path in paths:
        yield path, inspect_file(path)
        time.sleep(0.2)

v.SECONDS_PER_SAVE, v.inspect_files = 0, slowly
v.verify("folder", sys.argv[1])
"""


def test_a_killed_run_is_gone_on_with(folder, inspected):
    path = manifest_path(load_dataset("folder", folder))
    running = subprocess.Popen([sys.executable, "-c", KILLED, folder])
    while not path.is_file():
        assert running.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGKILL)
    running.wait()
    saved = json.loads(path.read_text())
    done = sum(entry["sha256"] is not None for entry in saved["files"].values())
    assert saved["sha256"] is None and 0 < done < 12
    assert verified_sha256(load_dataset("folder", folder)) is None
    assert verify("folder", folder).problems == []
    assert len(inspected) == 12 - done
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".unfinished")] == []


HELPERS = """
import ctypes, os
from hstlib.data import inspection
inspect_file = inspection.inspect_file

def crash_on_some(path):
    if "seq01" in path.name:
        os.abort()
    return inspect_file(path)

def hang_on_some(path):
    if "seq01" in path.name:
        ctypes.PyDLL(None).sleep(60)  # keeps Python's lock, as a decoder might
    return inspect_file(path)

def with_little_memory(path):
    if path.name == "seq01_1.avi":
        with open("/proc/self/status") as status:
            used = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
        inspection.MAX_MEMORY = 1024 * used + 10_000_000
    return inspect_file(path)

def crash_once(path):
    if path.name == "seq01_1.avi" and not path.with_suffix(".crashed").exists():
        path.with_suffix(".crashed").touch()
        os.abort()
    return inspect_file(path)
"""


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "bad_decoders.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import bad_decoders

    yield bad_decoders
    del sys.modules["bad_decoders"]


def test_a_file_that_crashes_the_decoder_costs_only_itself(folder, helpers, monkeypatch):
    monkeypatch.setattr(inspection, "inspect_file", helpers.crash_on_some)
    manifest = verify("folder", folder, workers=2)
    assert kinds_of(manifest.problems) == {"unusable": ["left/seq01_1.avi", "right/seq01_0.avi"]}
    assert {p.reason for p in manifest.problems} == {"crashes the decoder; fetch the file again"}
    assert Counter(e.frames for e in manifest.files.values()) == {28: 10, None: 2}


def test_a_file_that_crashes_the_decoder_only_once_is_sound(folder, helpers, monkeypatch):
    monkeypatch.setattr(inspection, "inspect_file", helpers.crash_once)
    found = dict(inspect_files([folder / "left" / "seq01_1.avi"], 1))
    assert [inspection.fault for inspection in found.values()] == [None]


def test_a_file_that_hangs_the_decoder_is_given_up(folder, helpers, monkeypatch):
    monkeypatch.setattr(inspection, "inspect_file", helpers.hang_on_some)
    monkeypatch.setattr(inspection, "SECONDS_PER_FILE", 1.5)
    paths = [folder / "left" / f"seq0{i}_1.avi" for i in (0, 1, 2)]
    found = dict(inspect_files(paths, 1))
    assert [found[path].fault for path in paths] == [
        None,
        "is not decoded in 1.5 s; it is tried again at the next call",
        None,
    ]


def test_a_file_that_needs_too_much_memory_costs_only_itself(folder, helpers, monkeypatch):
    monkeypatch.setattr(inspection, "inspect_file", helpers.with_little_memory)
    frame = av.VideoFrame.from_ndarray(np.zeros((3000, 3000, 3), np.uint8), "rgb24")
    with av.open(str(folder / "left" / "seq01_1.avi"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 3000
        stream.pix_fmt = "yuv420p"
        out.mux([*stream.encode(frame), *stream.encode()])
    paths = [folder / "left" / f"seq0{i}_1.avi" for i in (0, 1)]
    found = dict(inspect_files(paths, 2))
    assert [found[path].kind for path in paths] == [None, "out of memory"]
    assert found[paths[1]].fault.endswith("it is tried again at the next call")


# The command line


@pytest.fixture
def cli(monkeypatch, capsys):
    def call(*arguments) -> tuple[list[str], str | int | None]:
        monkeypatch.setattr(sys, "argv", ["hstlib", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            return capsys.readouterr().out.splitlines(), ended.code
        return capsys.readouterr().out.splitlines(), None

    return call


def test_the_verb_ends_well_on_a_sound_data_set(cli, folder, inspected):
    lines, code = cli("verify", "folder", "--data-dir", folder)
    manifest = json.loads(manifest_path(load_dataset("folder", folder)).read_text())
    assert not code and lines == [
        "moves: 12 of 12 videos can be used",
        "times of frames: 12 videos by timestamps, 0 by index / rate",
        f"sha256 of names and contents: {manifest['sha256']}",
    ]


def test_uneven_times_are_told(folder, inspected):
    manifest = verify("folder", folder)
    names = [*manifest.files]
    changes = {
        names[0]: {"variable": True, "largest_gap": 0.5},
        names[1]: {"variable": True, "largest_gap": 2.3},
        names[2]: {"timing": "index", "largest_gap": 9.0},
        names[3]: {"timing": None},
    }
    files = {name: f.model_copy(update=changes.get(name, {})) for name, f in manifest.files.items()}
    assert describe_times(manifest.model_copy(update={"files": files})) == (
        "times of frames: 10 videos by timestamps, 1 by index / rate; 2 have a variable rate, with "
        f"gaps of up to 2.3 s ({names[1]})"
    )


def test_the_verb_lists_problems_and_fails(cli, folder, inspected):
    (folder / "left" / "seq07_1.avi").touch()
    (folder / "left" / "notes.txt").touch()
    shutil.copy(folder / "left" / "seq01_1.avi", folder / "left" / "v_right_g01_c01.avi")
    odd = os.fsdecode(os.fsencode(folder / "left") + b"/caf\xe9.txt")
    Path(odd).touch()
    lines, code = cli("verify", "folder", "--data-dir", folder)
    assert code == "1 unusable, 1 mislabelled, 2 stray"
    assert lines[:4] == [
        "unusable (not a video): left/seq07_1.avi: empty, 0 bytes; fetch the file again",
        "mislabelled: left/v_right_g01_c01.avi: its name says right, but it is listed as left; "
        "move or rename it",
        r"stray: left/caf\xe9.txt: not part of the data set; move it away",
        "stray: left/notes.txt: not part of the data set; move it away",
    ]
    assert lines[4] == "moves: 13 of 14 videos can be used"


# Real files


def test_real_clips_of_the_data_sets_pass(real_clips, inspected):
    expected = {"hmdb51": [72, 74, 83], "ucf101": [107, 141, 164, 240]}
    for name, frames in expected.items():
        manifest = verify(name, real_clips / name)
        assert kinds_of(manifest.problems).keys() == {"missing"}
        usable = [e for e in manifest.files.values() if e.fault is None]
        assert sorted(e.frames for e in usable) == frames
        assert all(e.codec == "mpeg4" and e.height == 240 for e in usable)
        assert all(e.timing == "index" for e in usable) or name == "ucf101"


def test_real_class_folders_pass(real_clips):
    manifest = verify("folder", real_clips / "ut_interaction" / "videos", workers=2)
    assert manifest.problems == [] and len(manifest.files) == 60
    assert {e.timing for e in manifest.files.values()} == {"index"}
    assert sum(e.frames for e in manifest.files.values()) == 7160


def test_loose_real_clips_pass_as_class_folders(real_clips, tmp_path, inspected):
    for name in ("hmdb51", "ucf101", "kinetics"):
        (tmp_path / "loose" / name).mkdir(parents=True)
        for path in (real_clips / name).rglob("*"):
            if path.suffix in {".avi", ".mp4"}:
                (tmp_path / "loose" / name / path.name).symlink_to(path)
        if name == "kinetics":  # a class needs a video to train on and one to test on
            (tmp_path / "loose" / name / f"other_{path.name}").symlink_to(path)
    manifest = verify("folder", tmp_path / "loose")
    assert manifest.problems == [] and len(manifest.files) == 9
    found = [(e.frames, e.codec) for e in manifest.files.values() if e.class_name == "kinetics"]
    assert found == 2 * [(303, "h264")]


def test_real_broken_files_are_listed_with_reasons(real_clips, tmp_path, inspected):
    shutil.copytree(real_clips / "broken", tmp_path / "loose" / "broken")
    problems = verify("folder", tmp_path / "loose").problems
    assert kinds_of(problems).keys() == {"unusable"}
    assert {p.name.removeprefix("broken/"): p.reason.split(";")[0][:26] for p in problems} == {
        "bit_rot.avi": "26 of 62 frames decode",
        "empty.avi": "empty, 0 bytes",
        "header_only.avi": "283,972 bytes are missing ",
        "html_page.avi": "not a video that FFmpeg ca",
        "random_bytes.avi": "not a video that FFmpeg ca",
        "truncated.avi": "137,972 bytes are missing ",
    }
