"""The rich console for all output, and a log handler that prints to it."""

import logging

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120  # line width in characters when the output goes to a file or pipe

console = Console(width=None if Console().is_terminal else WIDTH_WITHOUT_TERMINAL, highlight=False)


def pluralize(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural: "1 point", "2 points"."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class ConsoleHandler(logging.Handler):
    """A log handler that prints above the progress bars. conf/hydra/job_logging names it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record on the console: a warning in yellow, an error in red."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)
