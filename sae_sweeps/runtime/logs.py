"""Logging. launch.log in a point's folder has the messages on this point and the messages on the whole command."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae_sweeps.runtime.errors import EXPECTED_ERRORS, describe_error
from sae_sweeps.runtime.held import identify, make_folder
from sae_sweeps.runtime.storage import explain_storage

FILE = "launch.log"


def point_log(name: str) -> "logging.LoggerAdapter[logging.Logger]":
    """Return a logger that writes to the launch.log of one point and no other. `name`: the point's folder name."""
    return logging.LoggerAdapter(logging.getLogger(__name__), {"point": name})


def log_failure(log: "logging.Logger | logging.LoggerAdapter[logging.Logger]", name: str, error: Exception) -> None:
    """Log an error message for a failed point or task, with a traceback if the error is not an expected one.

    name: the name of the point or task in the message
    """
    is_expected = isinstance(error, EXPECTED_ERRORS) or explain_storage(error) is not None
    log.error("%s: failed: %s", name, describe_error(error), exc_info=None if is_expected else error)


def log_to_console() -> None:
    """Set up logging to the console in a process without Hydra, in the same way as conf/hydra/job_logging does."""
    from sae_sweeps.runtime.console import ConsoleHandler

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ConsoleHandler()])
    for noisy in ("httpx", "transformer_lens"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _LogFile(logging.Handler):
    """Appends messages to a file that is open only while a line is written: a pack may have hundreds of points."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        file.touch()
        self._file, self._folder = file, identify(file.parent)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a message, unless the file is gone or the folder is another one."""
        try:
            if identify(self._file.parent) == self._folder:
                with open(self._file, "a", encoding="utf-8", errors="backslashreplace", opener=_open_existing) as file:
                    file.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave out a message that cannot be written, as on a full disk: what fails there is on the terminal."""


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Append log messages with times to launch.log in a point's folder while the context lasts.

    Messages from the `point_log` of other points are left out.
    """
    make_folder(folder)
    handler = _LogFile(folder / FILE)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: getattr(record, "point", folder.name) == folder.name)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
