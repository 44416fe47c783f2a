"""Checks of a notebook's parameters, in the cell after the one tagged ``parameters``.

papermill inserts a cell that begins with ``# Parameters`` after the tagged one, and assigns the
given values there. Without a check, a misspelt name sets a variable that no cell reads, and
``-p names '[1, 2]'`` sets a string.
"""

import ast
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from hstlib.config import project_path

INJECTED = "# Parameters"


def check_parameters(history: Sequence[str], **kinds: Any) -> None:
    """Refuse parameters that the notebook does not have, and values that it cannot use.

    Args:
        history: IPython's ``In``: the source of every cell that has run.
        kinds: Type of each parameter, as pydantic reads it, for example
            ``size=Annotated[int, Field(ge=16, multiple_of=8)]``. A parameter without one takes
            every value of its default's type.

    Raises:
        ValueError: With the parameter, its value, and what is allowed.
    """
    cells = [(source, values) for source in history if (values := _literals(source))]
    if not cells:
        return
    defaults = cells[0][1]
    last_run = max(i for i, (_, values) in enumerate(cells) if values.keys() == defaults.keys())
    values: dict[str, Any] = dict(defaults)
    for source, assigned in cells[last_run:]:
        unknown = assigned.keys() - defaults.keys()
        if unknown and source.lstrip().startswith(INJECTED):
            raise ValueError(_unknown(min(unknown), list(defaults)))
        values |= {name: value for name, value in assigned.items() if name in defaults}
    for name, value in values.items():
        _check(
            name, value, kinds.get(name, Any if defaults[name] is None else type(defaults[name]))
        )


def _literals(source: str) -> dict[str, Any]:
    """Return the names and values that a cell assigns; {} if it does more than assign literals."""
    try:
        return {
            target.id: ast.literal_eval(statement.value)
            for statement in ast.parse(source).body
            for target in statement.targets
        }
    except (AttributeError, SyntaxError, ValueError):
        return {}


def _unknown(name: str, known: list[str]) -> str:
    similar = get_close_matches(name, known, n=1)
    advice = f"did you mean {similar[0]!r}?" if similar else f"it has {', '.join(known)}"
    return f"this notebook has no parameter {name!r}; {advice}"


def _check(name: str, value: Any, kind: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        reasons = "; ".join(d["msg"].removeprefix("Value error, ") for d in error.errors())
        hint = ""
        if isinstance(value, str) and value[:1] in ("[", "{"):
            hint = "; papermill's -p passes a string, -f file.yaml does not"
        raise ValueError(f"parameter {name} is {value!r}: {reasons}{hint}") from None


def _existing_folder(path: str) -> str:
    if not project_path(path).is_dir():
        raise ValueError(f"there is no folder {project_path(path)}")
    return path


ProjectFolder = Annotated[str, AfterValidator(_existing_folder)]
"""An existing folder. A relative path starts at the project root; ``~`` is the home directory."""
