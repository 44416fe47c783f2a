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
from hstlib.commands.models import curves, evaluate, params, train
from hstlib.commands.output import describe, printable
from hstlib.commands.plans import compare, plan
from hstlib.commands.predict import export, predict, stream
from hstlib.commands.probe import probe
from hstlib.config import unknown_setting
from hstlib.options import check_option_names, sentence_of_box

COMMANDS = (
    demo, download, adopt, verify, leakage, shortcuts, prepare, store, params, train, evaluate,
    predict, stream, export, probe, curves, plan, compare,
)  # fmt: skip


class _Formatter(logging.Formatter):
    """Log lines without control characters, which the name of a file may have."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def main() -> None:
    """Run a command. An error of the user is reported in one line, without a traceback."""
    from hstlib.training.loop import TrainingError

    sys.stdout = sys.stdout or open(os.devnull, "w")  # None if it was closed
    sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may know fewer characters
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    try:
        _run({command.__name__: command for command in COMMANDS})
    except BrokenPipeError:  # the reader of the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, TrainingError) as error:
        raise SystemExit(f"error: {printable(describe(error))}") from error


def _run(commands: dict[str, Callable[..., None]]) -> None:
    """Parse this process's arguments, run the command and flush its output."""
    try:
        try:
            call = _parse(commands)
        except ValueError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            raise SystemExit(2) from error
        call()
    finally:  # after the help too, which ends with SystemExit
        sys.stdout.flush()


def _parse(commands: dict[str, Callable[..., None]]) -> Callable[[], None]:
    """Return the command of this process's arguments, to be called without arguments.

    Raises:
        ValueError: If the command is unknown, or an option is unknown, missing or wrong.
    """
    name = next(iter(sys.argv[1:]), "-")
    if name in commands:
        check_option_names(commands[name], sys.argv[2:])
    elif not name.startswith("-"):
        raise ValueError(unknown_setting(name, commands).replace("setting", "command", 1))
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
