"""What a wrong call says: one line with the file, the value and the remedy, see wrong_calls.md."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

TABLE = Path(__file__).with_name("wrong_calls.md")
ROW = re.compile(r"(?m)^\| `(.+?)` \|.*\n")


@pytest.fixture
def places(finished_run, class_folders, tmp_path, monkeypatch) -> dict[str, str]:
    """The places that calls name, the inner ones first."""
    monkeypatch.setenv("HST_DATA", str(finished_run.data_root))  # which has its clip store
    monkeypatch.chdir(tmp_path)  # where `results` is written to
    damaged = bytearray(finished_run.checkpoint.read_bytes())
    damaged[-1000] ^= 4
    (tmp_path / "flipped.safetensors").write_bytes(damaged)
    (tmp_path / "plan.yaml").write_text(
        yaml.safe_dump(
            {
                "build": "build/never", "seeds": [0], "splits": [1], "models": {"r3d": {}},
                "corpora": [{"dataset": "folder", "data_dir": str(class_folders)}],
                "train": {"backbone": "demo"}, "resources": {"gpus": 0, "cpus": 1},
            }
        )
    )  # fmt: skip
    shutil.copytree(class_folders, tmp_path / "moves")
    tiny = f"--dataset folder --data-dir {class_folders} --model r3d --backbone demo --size 16"
    places = {
        "tiny": f"{tiny} --device cpu --batch-size 4 --clips-per-video 2",
        "checkpoint": finished_run.checkpoint,
        "video": tmp_path / "moves" / "left" / "seq00_1.avi",
        "videos": tmp_path / "moves",
        "plan": tmp_path / "plan.yaml",
        "here": tmp_path,
        "data": finished_run.data_root,
    }
    return {name: str(place) for name, place in places.items()}


def say(call: str, places: dict[str, str], cli, capsys) -> tuple[int, str]:
    """Make a call; the exit code and the line that says what is wrong, with names for places."""
    filled = re.sub(r"\{(\w+)\}", lambda name: places[name[1]], call)
    with pytest.raises(SystemExit) as ended:
        cli(*shlex.split(filled))
    code, printed = ended.value.code, capsys.readouterr()
    lines = (printed.err or printed.out).splitlines()
    if isinstance(code, str):
        assert "\n" not in code, call
        code, lines = 1, [*lines, code]
    *_, said = (line for line in lines if not line.endswith(" files cannot be used"))  # a count
    assert code, call
    for name, place in places.items():
        said = said.replace(place, f"{{{name}}}")
    return code, said


def test_wrong_calls_say_what_the_table_says(cli, capsys, places, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("COLUMNS", "100")

    def row(found: re.Match) -> str:
        code, said = say(found[1], places, cli, capsys)
        return f"| `{found[1]}` | {code} | `` {said} `` |\n"

    stored = TABLE.read_text()
    actual = ROW.sub(row, stored)
    if os.environ.get("REWRITE"):
        TABLE.write_text(actual)
    else:
        assert actual.splitlines() == stored.splitlines()
