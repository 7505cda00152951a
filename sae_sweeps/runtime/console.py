"""The console that all output is printed to, and the log handler that prints to it."""

import logging

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120  # characters

console = Console(width=None if Console().is_terminal else WIDTH_WITHOUT_TERMINAL, highlight=False)


def pluralize(number: int, noun: str) -> str:
    """Return the number with its noun: 1 point, 2 points."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class ConsoleHandler(logging.Handler):
    """A log handler that prints above the progress bars. conf/hydra/job_logging names it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record, warnings in yellow and errors in red."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)
