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
    "train {tiny} --size 18": "size 18, num_frames 16: clips have shape (1, 3, 16, 18, 18), expect",
    "train {tiny} --num-workers 10000": "num_workers is '10000'; it must be less than or equal",
    "train {tiny} --learning-rate nan": "learning_rate is 'nan'; it must be a finite number",
    "prepare folder --data-dir {videos} --size 10000000": "size is '10000000'; it must be less th",
    "prepare folder --data-dir {videos} --size 2048 --num-frames 512": "size 2048: 1 clips of 512",
    "verify nope": "invalid choice 'nope' for argument 'dataset'. Expected one of ('hmdb51', 'ucf",
    "verify folder --data-dir {videos} --workers -2": "workers is -2; use 1 to 256",
    "verify folder --data-dir {videos} --workers 10000": "workers is 10000; use 1 to 256",
    "store rm": "invalid choice 'rm' for argument 'action'. Expected one of ('ls', 'check', 'gc')",
    "adopt {here}/none": "{here}/none: no folder; adopt takes the folder of the videos",
    "adopt {videos} --classes nope": "{videos}: no class 'nope'; it has left, right",
    "leakage folder --data-dir {videos} --split 9": "split is 9; use 1, 2 or 3",
    "shortcuts folder --data-dir {videos} --json {here}": "{here}: is a directory; name a file",
    "download ucf101 --archive {here}/none.zip": "--archive {here}/none.zip is not a file",
    "evaluate {here}/none.safetensors": "{here}/none.safetensors: no such checkpoint; train one w",
    "evaluate {video}": "{video}: not a checkpoint of hstlib (Error while deserializing header: h",
    "evaluate {here}/flipped.safetensors": "{here}/flipped.safetensors: not a checkpoint of hstli",
    "predict {video}": "predict needs --checkpoint PATH (A .safetensors file",
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
    "plan check {plan} epochs=true": "epochs is True; it must not be true or false",
    "plan check {plan} build=/etc": "build is '/etc'; it must be a folder in the project, such as",
    "compare {here}/none": "there is no folder {here}/none to read result rows from",
    "compare {here}": "{here} has no result rows",
}  # fmt: skip


@pytest.fixture
def fill(
    finished_run, class_folders, in_its_data_root, tmp_path, monkeypatch
) -> Callable[[str], str]:
    """Replace the names of places by places."""
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
