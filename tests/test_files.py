import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hstlib.files import (
    SECONDS_BEFORE_WARNING,
    UNFINISHED,
    check_disk_space,
    complete,
    lock,
    remove,
    remove_leftovers,
    sweep,
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
    remove_leftovers(tmp_path / "?b")
    assert len(list(tmp_path.iterdir())) == 2  # a name is no pattern
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


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
    code += "with lock(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert ended.returncode == -9
    begin = time.monotonic()
    with lock(tmp_path / "a"):
        assert time.monotonic() - begin < SECONDS_BEFORE_WARNING


HOLDER = """
import sys, time
from pathlib import Path
from hstlib.files import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_waits_says_at_once_for_whom_and_since_when(tmp_path, caplog):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"

        def let_go() -> None:
            while not caplog.records:
                time.sleep(0.01)
            holder.communicate("\n")

        watcher = threading.Thread(target=let_go)
        watcher.start()
        with lock(tmp_path / "a"):
            watcher.join()
    (record,) = caplog.records
    message = record.getMessage()
    assert f"a is in use by process {holder.pid} on {socket.gethostname()} since 20" in message
    assert message.endswith("; waiting until it is free")
    assert (tmp_path / ".a.lock").read_text() == ""


def test_a_file_system_without_locks_is_named_at_once(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"/a: the file system has no locks \(Function not impl"):
        with lock(tmp_path / "a"):
            pytest.fail("there is no lock")


def test_what_is_renamed_is_on_the_disk_first_and_then_its_folder(tmp_path, monkeypatch):
    events, real_fsync, real_rename = [], os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")

    def rename(path: Path, target: Path) -> Path:
        events.append(f"rename {path.name} {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    with complete(tmp_path / "new" / "a") as unfinished:
        unfinished.mkdir()
        (unfinished / "part").write_text("content")
    name = unfinished.name
    assert events == [
        f"fsync {tmp_path.name}",  # which has a new folder
        "fsync part", f"fsync {name}", f"rename {name} a", "fsync new",
    ]  # fmt: skip


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_file_has_the_mode_of_its_neighbours(tmp_path, umask, mode):
    earlier = os.umask(umask)
    try:
        with complete(tmp_path / "a") as unfinished:
            unfinished.touch(0o600)  # as safetensors does
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_small_disk_is_an_error_with_both_sizes(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_disk_space(tmp_path, free // 2)
    with pytest.raises(OSError, match=r"bytes are needed, [\d,]+ are free; .*, or wait$") as caught:
        check_disk_space(tmp_path, 10**18, "wait")
    assert caught.value.errno == errno.ENOSPC
