"""The folder of a run while a process works in it: its lock and its log."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from hstlib.files import lock, make_folder, sweep
from hstlib.training.interruption import Stopped, stop_on_signals
from hstlib.training.state import describe_place

log = logging.getLogger("hstlib")


@contextmanager
def locked_with_log(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Lock a run's folder against a second job, and copy the library's log to ``log.txt``."""
    if not accelerator.is_main_process:
        yield
        return
    with lock(folder):
        make_folder(folder)
        sweep(folder)
        handler = logging.FileHandler(folder / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            with stop_on_signals():
                yield
        except Stopped as stopped:
            log.warning(
                "%s: stopped by %s; the same command resumes %s",
                *(folder.name, stopped.signal_name, describe_place(folder)),
            )
            raise
        except Exception as error:
            handler.stream.write("".join(traceback.format_exception(error)))
            raise
        finally:
            log.removeHandler(handler)
            handler.close()
