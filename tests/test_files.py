import errno
import shutil
import subprocess
import sys

import pytest

from hstlib.files import (
    UNFINISHED,
    check_disk_space,
    complete,
    lock,
    remove,
    remove_leftovers,
)


def test_a_file_is_there_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with complete(path) as unfinished:
        unfinished.write_text("half")
        assert not path.exists() and unfinished.parent == path.parent
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path):
    for text in ("old", "new"):
        with complete(tmp_path / "a.txt") as unfinished:
            unfinished.write_text(text)
    assert (tmp_path / "a.txt").read_text() == "new"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "kept").touch()
    with pytest.raises(OSError), complete(tmp_path / "b") as unfinished:
        unfinished.mkdir()
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "b"}
    assert (tmp_path / "b" / "kept").is_file()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path, error):
    with pytest.raises(error), complete(tmp_path / "a") as unfinished:
        unfinished.mkdir()
        (unfinished / "part").touch()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_those_of_the_one_path(tmp_path):
    for name in (f".a.77{UNFINISHED}", f".ab.77{UNFINISHED}", "a"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "a")
    assert {p.name for p in tmp_path.iterdir()} == {f".ab.77{UNFINISHED}", "a"}


def test_removing_what_is_not_there_or_a_link_is_safe(tmp_path):
    remove(tmp_path / "absent")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "link")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "call",
    [
        "from hstlib.data.demo import make_demo; make_demo('demo-hmdb51', root / 'demo')",
        "from hstlib.data.inspection import inspect_files; list(inspect_files([root] * 9999, 2))",
        "from hstlib.config import ClipConfig; from hstlib.data.store import prepare_store; "
        "prepare_store([root / 'a.avi'], ClipConfig(size=16), root / 'store')",
    ],
    ids=["demo", "inspection", "store"],
)
def test_a_script_that_every_process_would_run_again_is_told_the_remedy(tmp_path, call):
    """Otherwise such a script would wait for itself, or report its files as broken."""
    script = tmp_path / "script.py"
    (tmp_path / "a.avi").touch()
    script.write_text(f"from pathlib import Path\nroot = Path(__file__).parent\n{call}\n")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert 'belong under `if __name__ == "__main__":`' in ran.stderr


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = "import os, sys; from pathlib import Path; from hstlib.files import lock\n"
    code += "lock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    with lock(tmp_path / "a").acquire(timeout=5):
        pass


def test_a_small_disk_is_an_error_with_both_sizes(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_disk_space(tmp_path, free // 2)
    with pytest.raises(OSError, match=r"bytes are needed, [\d,]+ are free; .*, or wait$") as caught:
        check_disk_space(tmp_path, 10**18, "wait")
    assert caught.value.errno == errno.ENOSPC
