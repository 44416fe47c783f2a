"""Settings as command-line options."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from pydantic import BaseModel

from hstlib.config import project_root, unknown_setting


def options_of(settings: type[BaseModel]) -> Any:
    """Return the type of a command's parameter that has one option for each setting.

    Numbers and choices stay text, which ``from_flat`` converts and checks, so that a wrong value
    gives the same error as in a plan.
    """
    options = []
    for name, field in settings.model_fields.items():
        kind, default, metavar = field.annotation, field.default, None
        if kind in (int, float):
            kind, default, metavar = str, str(default), kind.__name__.upper()
        elif kind == float | None:
            kind, metavar = str | None, "FLOAT|None"
        elif get_origin(kind) is Literal and all(isinstance(c, str) for c in get_args(kind)):
            kind, metavar = str, f"{{{','.join(get_args(kind))}}}"
        text = " ".join(field.description.replace("``", "").split())
        argument = tyro.conf.arg(name=_option_name(name), help=text, metavar=metavar)
        options.append((name, Annotated[kind, argument], default))
    # The empty name keeps the parameter's own name out of the options.
    return Annotated[make_dataclass(settings.__name__, options), tyro.conf.arg(name="")]


def check_option_names(command: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Raise ValueError if an argument is an option that the command does not have."""
    known = {"help"}
    for name, kind in get_type_hints(command).items():
        names = {field.name for field in fields(kind)} if is_dataclass(kind) else {name}
        known |= {_option_name(name) for name in names}
    for argument in arguments:
        option = argument.partition("=")[0].replace("-", "_").removeprefix("__")
        if argument.startswith("--") and not known & {option, option.removeprefix("no_")}:
            raise ValueError(unknown_setting(option, known - {"return"}))


def _option_name(setting: str) -> str:
    """Return a setting's name without the underscore that keeps it from being a Python keyword."""
    return setting.rstrip("_")


def setting_of_path(path: str) -> str:
    """Convert a path given in a shell to a setting.

    A path in a shell is relative to the working directory, a setting to the project root. A path
    outside the project becomes absolute; an empty one stays empty.
    """
    if not path:
        return ""
    absolute, root = Path(os.path.abspath(Path(path).expanduser())), project_root()
    return str(absolute.relative_to(root) if root in absolute.parents else absolute)


def sentence_of_box(box: str) -> str:
    """Return the first part of an error that tyro drew as a box, in one line.

    The title is in the upper border, or, where the terminal has no borders, above the first rule.
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    parts = [""]
    for line in (line.strip(" │") for line in lines if not line.startswith(("╭", "╰"))):
        if re.fullmatch("─{4,}|-{4,}", line):
            parts.append("")
        else:
            parts[-1] += f" {line}"
    sentence = parts[0 if "╭" in box else 1].strip()
    wrong = re.fullmatch(r"Error parsing --([\w-]+).*: invalid literal for int.*: (.+)", sentence)
    if wrong:
        sentence = f"{wrong[1].replace('-', '_')} is {wrong[2]}; it must be a valid integer"
    if missing := re.fullmatch(r"Missing from python -m hstlib (\w+): (.+)", sentence):
        needed = re.findall(r"(--\S+ \S+|\S+) (.+?)\.? \(required\)", missing[2])
        sentence = f"{missing[1]} needs " + " and ".join(f"{n} ({about})" for n, about in needed)
    return f"{sentence.rstrip('.')}; see `python -m hstlib --help`"
