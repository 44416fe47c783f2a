from typing import Annotated, Literal

import pytest
from pydantic import Field

from hstlib.book.parameters import ProjectFolder, check_parameters

DEFAULTS = 'size = 48  # pixels\nnames = ["a"]\nrate = 0.5\nfolder = ""\nlimit = None\n'
KINDS = {"size": Annotated[int, Field(ge=16, multiple_of=8)]}


def injected(text: str) -> list[str]:
    return ["", DEFAULTS, f"# Parameters\n{text}\n", "import numpy"]


def test_defaults_and_sensible_changes_pass():
    check_parameters(["", DEFAULTS], **KINDS)
    check_parameters(injected("size = 96\nrate = 1\nlimit = 3"), **KINDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes = 96", "this notebook has no parameter 'sizes'; did you mean 'size'?"),
        ("seed = 1", "this notebook has no parameter 'seed'; it has size, names, rate"),
        ("size = 50", "parameter size is 50: Input should be a multiple of 8"),
        ("size = 96.5", "parameter size is 96.5: Input should be a valid integer"),
        ("size = True", "parameter size is True: Input should be a valid integer"),
        ("names = '[1, 2]'", "valid list; papermill's -p passes a string, -f file.yaml does not"),
    ],
)
def test_what_the_notebook_cannot_use_is_refused_by_name(text, message):
    with pytest.raises(ValueError) as error:
        check_parameters(injected(text), **KINDS)
    assert message in str(error.value)


def test_values_edited_by_hand_are_checked_too():
    with pytest.raises(ValueError, match="parameter size is 20: .*multiple of 8"):
        check_parameters(["", DEFAULTS.replace("48", "20")], **KINDS)


def test_a_corrected_parameter_passes_without_a_restart():
    history = [*injected("sizes = 96"), DEFAULTS.replace("48", "96"), "# Parameters\nseed = 1"]
    check_parameters(history[:-1], **KINDS)
    with pytest.raises(ValueError, match="no parameter 'seed'"):
        check_parameters(history, **KINDS)


def test_cells_of_the_reader_are_no_parameters():
    check_parameters(["", DEFAULTS, "mine = 3", "print(1)"], **KINDS)
    check_parameters(["", "print(1)"], **KINDS)


def test_choices_are_listed():
    with pytest.raises(ValueError, match="names is .*'demo-hmdb51' or 'demo-ucf101'"):
        check_parameters(injected("names = 'hmdb'"), names=Literal["demo-hmdb51", "demo-ucf101"])


def test_a_missing_folder_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "hstlib").mkdir()
    (tmp_path / "hstlib" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "hstlib")
    with pytest.raises(ValueError, match=f"typo': there is no folder {tmp_path}/result/typo"):
        check_parameters(injected("folder = 'result/typo'"), folder=ProjectFolder)
    check_parameters(injected("folder = 'hstlib'"), folder=ProjectFolder)
