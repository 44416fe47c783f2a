"""The command line, ``python -m hstlib``."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial, wraps
from io import StringIO
from typing import Any

import tyro

from hstlib.commands.data import adopt, demo, download, leakage, prepare, shortcuts, store, verify
from hstlib.commands.models import evaluate, params, train
from hstlib.commands.output import printable
from hstlib.commands.plans import compare, plan
from hstlib.commands.predict import export, predict
from hstlib.options import check_option_names, sentence_of_box

COMMANDS = (
    demo, download, adopt, verify, leakage, shortcuts, prepare, store, params, train, evaluate,
    predict, export, plan, compare,
)  # fmt: skip


class _Formatter(logging.Formatter):
    """Log lines without control characters, which the name of a file may have."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def main() -> None:
    """Run a command. An error of the user is reported in one line, without a traceback."""
    from hstlib.training.loop import TrainingError

    sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may know fewer characters
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    try:
        call = _parse({command.__name__: command for command in COMMANDS})
    except ValueError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from error
    try:
        call()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, OSError, TrainingError) as error:
        raise SystemExit(f"error: {printable(str(error))}") from error


def _parse(commands: dict[str, Callable[..., None]]) -> Callable[[], None]:
    """Return the command of this process's arguments, to be called without arguments.

    Raises:
        ValueError: If an option is unknown or missing, or has a wrong value.
    """
    if sys.argv[1:] and sys.argv[1] in commands:
        check_option_names(commands[sys.argv[1]], sys.argv[2:])
    with redirect_stderr(StringIO()) as box:
        try:
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(command) for name, command in commands.items()},
                prog="python -m hstlib",
                description="The HST model, its data and its training. Paths are relative to the "
                "working directory.",
                config=(tyro.conf.OmitArgPrefixes,),
            )
        except SystemExit as ended:
            if not ended.code:
                raise  # after the help
    raise ValueError(sentence_of_box(box.getvalue()))


def _deferred(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Return a function with the options of a command, which only binds their values."""

    @wraps(command)
    def bind(*arguments: Any, **options: Any) -> Callable[[], None]:
        return partial(command, *arguments, **options)

    return bind


if __name__ == "__main__":
    main()
