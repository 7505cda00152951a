"""launch.log in a point's folder: what was said of the point, and what was said of all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae_sweeps.runtime.errors import EXPECTED_ERRORS, describe_error, is_disk_full

FILE = "launch.log"


def point_log(name: str) -> "logging.LoggerAdapter[logging.Logger]":
    """The log for what concerns one point alone."""
    return logging.LoggerAdapter(logging.getLogger(__name__), {"point": name})


def log_failure(log: "logging.Logger | logging.LoggerAdapter[logging.Logger]", name: str, error: Exception) -> None:
    """Log why something failed, with the traceback if it was not foreseen."""
    foreseen = isinstance(error, EXPECTED_ERRORS) or is_disk_full(error)
    log.error("%s: failed: %s", name, describe_error(error), exc_info=None if foreseen else error)


def log_to_console() -> None:
    """Log as conf/hydra/job_logging has it, in a process that Hydra has not begun."""
    from sae_sweeps.runtime.console import ConsoleHandler

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ConsoleHandler()])
    for noisy in ("httpx", "transformer_lens"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Meanwhile keep launch.log in the folder of a point, with times."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: getattr(record, "point", folder.name) == folder.name)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
