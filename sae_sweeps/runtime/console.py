"""The console that everything is printed to, and the handler that logs to it."""

import logging

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120  # characters

console = Console(width=None if Console().is_terminal else WIDTH_WITHOUT_TERMINAL, highlight=False)


def pluralize(number: int, noun: str) -> str:
    """1 point, 2 points."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class ConsoleHandler(logging.Handler):
    """Log lines that do not tear the progress bars; named in conf/hydra/job_logging."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)
