import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hstlib.book.paper import PAPER_ROWS
from hstlib.commands.output import printable
from hstlib.config import ClipConfig, TrainConfig
from hstlib.training.rows import load_rows

CHECKOUT = Path(__file__).resolve().parents[1]


VERBS = (
    "demo download adopt verify leakage shortcuts prepare store params train evaluate predict "
    "stream export probe curves plan compare"
).split()


def test_help_names_every_verb(cli, capsys):
    with pytest.raises(SystemExit) as ended:
        cli("--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(cli, verb):
    with pytest.raises(SystemExit) as ended:
        cli(verb, "--help")
    assert ended.value.code == 0


@pytest.mark.parametrize(("verb", "settings"), [("train", TrainConfig), ("prepare", ClipConfig)])
def test_help_describes_every_setting(cli, capsys, verb, settings):
    with pytest.raises(SystemExit):
        cli(verb, "--help")
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for name, field in settings.model_fields.items():
        assert f" --{name.rstrip('_').replace('_', '-')}" in shown
        assert " ".join(field.description.replace("``", "").split()) in shown
    assert "--device {auto,cpu,cuda}" in shown or verb == "prepare"


def test_params_prints_the_eight_rows_beside_the_papers(cli):
    tables = re.split(r"\n(?=Table)", "\n".join(cli("params")))
    assert len(tables) == len(PAPER_ROWS) == 8
    for table, row in zip(tables, PAPER_ROWS, strict=True):
        first, *rest = table.splitlines()
        assert first.startswith(f"Table {row.table}  {row.title}")
        assert f" {row.parameters} M" in first
        total = 0
        for block in re.split(r"\n {4}(?! )", "\n" + "\n".join(rest))[1:]:
            name, count, formula = re.fullmatch(r"(?s)(.+): ([\d,]+) = (.*)", block).groups()
            assert eval(" ".join(formula.split())) == int(count.replace(",", "")), name
            total += int(count.replace(",", ""))
        assert first.endswith(f" {total:,}")
    assert tables[3].splitlines()[0].endswith(" 35,544,530")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--modle", "hst"], "unknown setting 'modle'; did you mean 'model'?"),
        (["train", "--epoch=3"], "unknown setting 'epoch'; did you mean 'epochs'?"),
        (["train", "--no-flips"], "unknown setting 'no_flips'; did you mean 'flip'?"),
        (["prepare", "folder", "--sizes", "3"], "unknown setting 'sizes'; did you mean 'size'?"),
        (["predict", "a.avi", "--tops", "3"], "unknown setting 'tops'; did you mean 'top'?"),
    ],
    ids=str,
)
def test_an_unknown_setting_is_refused(cli, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        cli(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--seed", "x"], "seed is 'x'; it must be a valid integer; see "),
        (["prepare", "folder", "--workers=many"], "workers is 'many'; it must be a valid integer"),
        (["leakage", "hmdb51", "--protocol", "x"], "invalid choice 'x' for argument '--protocol'."),
        (["prepare", "nope"], "invalid choice 'nope' for argument 'dataset'. Expected one of ('hm"),
        (["predict"], "predict needs --checkpoint PATH"),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["foo"], "unknown command 'foo'; use one of adopt, compare, "),
        ([], "Expected one of {demo, download, "),
    ],
    ids=str,
)
@pytest.mark.parametrize("borders", [False, True])
def test_a_call_that_cannot_be_read_is_one_line(
    cli, capsys, monkeypatch, arguments, message, borders
):
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", borders)
    with pytest.raises(SystemExit) as ended:
        cli(*arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and len(err.splitlines()) == 1


def one_line_error(cli, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        cli(*arguments)
    message = ended.value.code
    assert message.startswith("error: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "many"], "epochs is 'many'; it must be a valid integer"),
        (["--epochs", 0], "epochs is '0'; it must be greater than or equal to 1"),
        (["--fit", "crop"], "fit is 'crop'; it must be 'stretch' or 'letterbox'"),
        (["--size", 48, "--crop-size", 64], "crop_size 64 is larger than size 48"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_line(cli, arguments, message):
    assert one_line_error(cli, "train", *arguments) == f"error: {message}"


def test_prepare_checks_the_settings_of_the_clips(cli):
    message = one_line_error(cli, "prepare", "hmdb51", "--num-frames", 7)
    assert message == "error: num_frames is '7'; it must be a multiple of 2"


class Stop(Exception):
    pass


@pytest.fixture
def train_call(cli, monkeypatch):
    """Call ``train`` without training; returns the settings and the folder of the results."""

    def call(*arguments) -> tuple[TrainConfig, Path]:
        calls = []

        def run_experiment(config, results):
            calls.append((config, results))
            raise Stop

        monkeypatch.setattr("hstlib.training.experiment.run_experiment", run_experiment)
        with pytest.raises(Stop):
            cli("train", *arguments)
        return calls[0]

    return call


def test_without_options_the_settings_are_the_defaults(train_call):
    assert train_call() == (TrainConfig(), Path("results"))


def test_hyphens_and_underscores_are_the_same(train_call):
    config, _ = train_call("--batch_size", 8, "--crop-size=48")
    assert (config.batch_size, config.crop_size) == (8, 48)


def test_paths_start_at_the_working_directory(train_call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config, results = train_call("--data-dir", "clips", "--results", "out")
    assert config.data_dir == str(tmp_path / "clips") and results == Path("out")


def test_paths_in_the_project_are_stored_relative_to_it(train_call, monkeypatch):
    """So rows name no folder of the machine, and mean the same as a plan's."""
    monkeypatch.chdir(CHECKOUT / "notebooks")
    for given in ("../data/clips", CHECKOUT / "data" / "clips"):
        assert train_call("--data-dir", given)[0].data_dir == "data/clips"


def test_a_tilde_is_the_home(train_call, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config, results = train_call("--data-dir=~/clips", "--results=~/out")
    assert config.data_dir == str(tmp_path / "clips") and results == tmp_path / "out"


def test_a_missing_data_set_is_one_line(cli, tmp_path):
    message = one_line_error(cli, "train", "--dataset", "hmdb51", "--results", tmp_path)
    assert "unpack the official split lists" in message


def test_an_error_prints_no_traceback(tmp_path):
    command = [sys.executable, "-m", "hstlib", "train", "--dataset", "ucf101"]
    ended = subprocess.run(
        [*command, "--results", tmp_path / "results"], capture_output=True, text=True
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ended.stderr


def test_a_missing_demo_corpus_says_how_to_draw_it(cli):
    assert "hstlib demo" in one_line_error(cli, "prepare", "demo-hmdb51")


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_missing_checkpoint_is_one_line(cli, tmp_path, verb):
    checkpoint = tmp_path / "none.safetensors"
    arguments = [checkpoint]
    if verb == "predict":
        arguments = [tmp_path / "a.avi", "--checkpoint", checkpoint]
    assert "no such checkpoint" in one_line_error(cli, verb, *arguments)


def test_a_loss_that_explodes_is_one_line(cli, class_folders, in_its_data_root, tmp_path):
    message = one_line_error(
        cli, "train", "--dataset", "folder", "--data-dir", class_folders, "--model", "r3d",
        "--backbone", "demo", "--epochs", 9, "--batch-size", 4, "--learning-rate", 1e3,
        "--device", "cpu", "--size", 16, "--clips-per-video", 2, "--results", tmp_path,
    )  # fmt: skip
    assert "loss is " in message and "at learning rate 1000; lower it" in message


def test_train_writes_a_row(cli, class_folders, in_its_data_root, tmp_path):
    line, _ = cli(
        "train", "--dataset", "folder", "--data-dir", class_folders, "--model", "c3d",
        "--backbone", "demo", "--epochs", 1, "--batch-size", 4, "--seed", 2,
        "--device", "cpu", "--size", 16, "--clips-per-video", 2, "--results", tmp_path,
    )  # fmt: skip
    (row,) = load_rows(tmp_path)
    assert row.run_id == "moves-c3d-demo-s1-seed2"
    assert line == f"{row.run_id}: test top-1 {row.test['top1']:.4f} of 4 videos"


def test_evaluate_prints_the_numbers_of_the_row(cli, finished_run, in_its_data_root):
    *lines, without_network = cli("evaluate", finished_run.checkpoint)
    assert without_network.startswith("without a network: not measured; run `python -m hstlib sh")
    assert lines == [f"{name} {value:.4g}" for name, value in finished_run.row.test.items()]


def test_evaluate_refuses_other_classes(
    cli, finished_run, in_its_data_root, tmp_path, video_file, moving
):
    for group in range(3):
        video_file(tmp_path / "other" / "up" / f"seq{group}_0.avi", moving(seed=group))
    message = one_line_error(cli, "evaluate", finished_run.checkpoint, "--on", tmp_path / "other")
    assert "the model has none of its classes up; those of the model are left, right" in message


def test_predict_prints_a_line_per_video(cli, finished_run, class_folders):
    videos = sorted(class_folders.rglob("*.avi"))[:2]
    lines = cli("predict", *videos, "--checkpoint", finished_run.checkpoint, "--top", 2)
    assert len(lines) == 2
    for line, video in zip(lines, videos, strict=True):
        path, *guesses = line.split("  ")
        names, probabilities = zip(*(guess.split() for guess in guesses), strict=True)
        assert path == str(video) and set(names) == {"left", "right"}
        assert float(probabilities[0]) >= float(probabilities[1])
        assert sum(map(float, probabilities)) == pytest.approx(1, abs=2e-3)


def test_predict_continues_after_a_file_that_cannot_be_used(
    cli, finished_run, class_folders, tmp_path, capsys
):
    (tmp_path / "empty.avi").touch()
    good = next(class_folders.rglob("*.avi"))
    with pytest.raises(SystemExit) as ended:
        cli("predict", tmp_path / "empty.avi", good, "--checkpoint", finished_run.checkpoint)
    out, err = capsys.readouterr()
    assert ended.value.code == "1 of 2 files cannot be used"
    assert out.startswith(str(good)) and len(out.splitlines()) == 1
    assert "empty.avi: empty, 0 bytes" in err


def test_prepare_lists_what_cannot_be_used(cli, class_folders, tmp_path, inline_pool):
    root = tmp_path / "videos"
    for path in class_folders.rglob("seq0[012]*.avi"):
        copy = root / path.relative_to(class_folders)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "left" / "seq03_1.avi").touch()
    lines = cli("prepare", "folder", "--data-dir", root, "--size", 16)
    assert lines[0].startswith(str(tmp_path / "data-root" / "store"))
    assert lines[0].endswith(": 6 videos") and len(lines) == 2
    assert lines[1].startswith(f"left out: {root / 'left' / 'seq03_1.avi'}: empty")


def test_demo_draws_both_corpora_under_the_data_root(cli, inline_pool, monkeypatch, tmp_path):
    monkeypatch.setattr("hstlib.data.demo.draw_clip", lambda clip: None)
    roots = [tmp_path / "data-root" / "demo" / name for name in ("hmdb51", "ucf101")]
    assert cli("demo", "--seed", 3) == [str(root) for root in roots]
    assert all((root / "DEMO.json").is_file() for root in roots)


@pytest.mark.parametrize("reading", ["x/../../..", "/tmp/x", "..", "nope"])
def test_a_reading_is_checked_before_it_names_a_folder(cli, tmp_path, reading):
    results = tmp_path / "in" / "results"
    message = one_line_error(cli, "train", "--reading", reading, "--results", results)
    assert message.startswith(f"error: reading {reading!r} is unknown; use ")
    assert not (tmp_path / "in").exists()


def test_export_and_annotated_replace_a_file_only_with_force(cli, tmp_path):
    """The check comes before the checkpoint is read, which does not exist here."""
    checkpoint, video = tmp_path / "run.safetensors", tmp_path / "a.avi"
    onnx, copy = tmp_path / "run.onnx", tmp_path / "copy.mp4"
    calls = {
        onnx: ["export", checkpoint],
        copy: ["predict", video, "--checkpoint", checkpoint, "--annotated", copy],
    }
    for existing, call in calls.items():
        existing.write_text("mine")
        message = one_line_error(cli, *call)
        assert message == (
            f"error: {existing} exists; name another file, or replace it with --force"
        )
        assert "no such checkpoint" in one_line_error(cli, *call, "--force")
        assert existing.read_text() == "mine"


def test_control_characters_and_undecodable_bytes_are_escaped():
    name = os.fsdecode(b"a\xff\x1b[31m\r\n\x9b\t.avi") + "\u202e\u2028 \u00e4\u4e16"
    assert printable(name) == (r"a\xff\x1b[31m\r\n\x9b\t.avi\u202e\u2028 " + "\u00e4\u4e16")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are Unicode there")
def test_a_hostile_file_name_reaches_no_terminal(
    cli, finished_run, class_folders, tmp_path, capsys
):
    good = tmp_path / os.fsdecode(b"g\x1b[2J\xff\n.avi")
    good.write_bytes(next(class_folders.rglob("*.avi")).read_bytes())
    bad = tmp_path / os.fsdecode(b"b\x1b[2J\xff\n.avi")
    bad.touch()
    with pytest.raises(SystemExit):
        cli("predict", bad, good, "--checkpoint", finished_run.checkpoint)
    out, err = capsys.readouterr()
    assert r"g\x1b[2J\xff\n.avi  " in out and r"b\x1b[2J\xff\n.avi: empty" in err
    assert "\x1b" not in out + err and len(out.splitlines()) == len(err.splitlines()) == 1
    message = one_line_error(cli, "evaluate", bad)
    assert "\x1b" not in message and r"b\x1b[2J" in message


def test_log_lines_are_printed_without_control_characters():
    code = "import logging, sys; sys.argv = ['hstlib', 'params']; import hstlib.__main__ as m\n"
    code += "m.main(); logging.getLogger('hstlib').warning('left out: %s', 'a\\x1b[2J')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.rstrip().endswith(r"left out: a\x1b[2J"), done.stderr


@pytest.mark.parametrize("call", ["params | true", "train --help | true", "train --help >&-"])
def test_an_output_that_nobody_reads_is_no_error(call):
    command = f"'{sys.executable}' -m hstlib {call}"
    done = subprocess.run(["sh", "-c", command], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_one_line():
    command = f"'{sys.executable}' -m hstlib train --help >/dev/full"
    done = subprocess.run(["sh", "-c", command], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1
    expected = "error: no space left on device; make room, or name a place on another disk\n"
    assert done.stderr == expected


def test_ctrl_c_ends_a_command_in_one_line(cli, capsys, inline_pool, monkeypatch):
    def interrupted(clip):
        raise KeyboardInterrupt

    monkeypatch.setattr("hstlib.data.demo.draw_clip", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli("demo")
    assert ended.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped by SIGINT"
