"""What a wrong call says: one line with the file, the value and the remedy.

In a call and its message, ``{checkpoint}``, ``{video}`` and the like stand for places.
"""

import re
import shlex
import shutil
from collections.abc import Callable

import pytest
import yaml

CALLS = {
    "trian": "unknown command 'trian'; did you mean 'train'?",
    "train --modle r3d": "unknown setting 'modle'; did you mean 'model'?",
    "train --split 4": "split is '4'; it must be less than or equal to 3",
    "train --device tpu": "device is 'tpu'; it must be 'auto', 'cpu' or 'cuda'",
    "train stray": "Unrecognized options: stray; see `python -m hstlib --help`",
    "train --dataset folder": "dataset 'folder' needs data_dir, a list or a folder with a folder",
    "train --dataset folder --data-dir {here}/none": "{here}/none: no videos; expected <class>/<f",
    "train --dataset folder --data-dir {video}": "{video}:1: not a text file in UTF-8 or UTF-16",
    "train {tiny} --batch-size 9": "8 training videos do not fill a batch of 9; lower",
    "train {tiny} --results {video}": "{video}: file exists; name another place",
    "train {tiny} --results /proc/x": "/proc/x: no such file or directory; create it, or name anot",
    "train {tiny} --size 18": "clips have shape (1, 3, 16, 18, 18), expected (B, 3, 16, H, W) with",
    "prepare folder --data-dir {videos} --size 10000000": "size 10000000: 1 clips of 16 frames tak",
    "verify nope": "invalid choice 'nope' for argument 'dataset'. Expected one of ('hmdb51', 'ucf",
    "verify folder --data-dir {videos} --workers -2": "workers is -2; use 1 or more",
    "store rm": "invalid choice 'rm' for argument 'action'. Expected one of ('ls', 'check', 'gc')",
    "adopt {here}/none": "{here}/none: no folder; adopt takes the folder of the videos",
    "adopt {videos} --classes nope": "{videos}: no class 'nope'; it has left, right",
    "leakage folder --data-dir {videos} --split 9": "split is 9; use 1, 2 or 3",
    "shortcuts folder --data-dir {videos} --json {here}": "{here}: is a directory; name a file",
    "download ucf101 --archive {here}/none.zip": "--archive {here}/none.zip is not a file",
    "evaluate {here}/none.safetensors": "{here}/none.safetensors: no such checkpoint; train one w",
    "evaluate {video}": "{video}: not a checkpoint of hstlib (Error while deserializing header: h",
    "evaluate {here}/flipped.safetensors": "{here}/flipped.safetensors: not a checkpoint of hstli",
    "predict {video}": "Missing from python -m hstlib predict: --checkpoint PATH",
    "predict {video} {video} --checkpoint {checkpoint} --annotated {here}/a.mp4":
        "--annotated {here}/a.mp4 takes one video, not 2",
    "predict {video} --checkpoint {checkpoint} --annotated {here}/a.txt":
        "{here}/a.txt: suffix '.txt' is none of .mp4, .webm, .avi, .gif",
    "predict {video} --checkpoint {checkpoint} --annotated {video} --force":
        "{video} is the video itself; name another file",
    "export {checkpoint} {here}/a.txt": "{here}/a.txt: suffix '.txt' is not .onnx",
    "plan chek {plan}": "invalid choice 'chek' for argument 'action'. Expected one of ('check', ",
    "plan check {here}/none.yaml": "{here}/none.yaml: no such plan; those of the book are in work",
    "plan check {video}": "{video}: no YAML: unacceptable character",
    "plan check {plan} modle=r3d": "unknown setting 'modle'; did you mean 'model'?",
    "plan check {plan} model=hst": "model 'hst' is not in the plan; use one of r3d",
    "plan check {plan} epochs=x": "epochs is 'x'; it must be a valid integer",
    "plan check {plan} build=/etc": "build is '/etc'; it must be a folder in the project, such as",
    "compare {here}/none": "there is no folder {here}/none to read result rows from",
    "compare {here}": "{here} has no result rows",
}  # fmt: skip


@pytest.fixture
def fill(finished_run, class_folders, in_its_data_root, tmp_path) -> Callable[[str], str]:
    """Replace the names of places by places."""
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
    tiny = "--dataset folder --data-dir {} --model r3d --backbone demo --size 16 --device cpu"
    places = {
        "checkpoint": finished_run.checkpoint,
        "videos": tmp_path / "moves",
        "video": tmp_path / "moves" / "left" / "seq00_1.avi",
        "plan": tmp_path / "plan.yaml",
        "tiny": f"{tiny.format(class_folders)} --batch-size 4 --clips-per-video 2",
        "here": tmp_path,
    }
    return lambda text: re.sub(r"\{(\w+)\}", lambda name: str(places[name[1]]), text)


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_says_what_is_wrong(cli, capsys, fill, call):
    with pytest.raises(SystemExit) as ended:
        cli(*shlex.split(fill(call)))
    last = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert ended.value.code and len(last.splitlines()) == 1
    assert last.startswith("error: ") and fill(CALLS[call]) in last
