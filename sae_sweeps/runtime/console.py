"""The rich console for all output, a log handler that prints to it, and output that any terminal or pipe can take."""

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from sae_sweeps.runtime.text import to_visible

WIDTH_WITHOUT_TERMINAL = 120  # line width in characters when the output goes to a file or pipe
# ASCII for characters that the encoding of the output lacks; any other becomes "?"
PLAIN = {**dict(zip("▁▂▃▄▅▆▇█", ".:-=+*%#", strict=True)), "±": "+-", "–": "-", "—": "-", "…": "~", "→": "->"}  # noqa: RUF001
READER_GONE = (errno.EPIPE, errno.EIO)  # a pipe without a reader; a terminal that was closed

# what text may hold besides characters that can be seen: lines, and bytes of a file name that is no text (_replace)
KEPT = "\n\t" + "".join(map(chr, range(0xDC80, 0xDD00)))


class _SafeConsole(Console):
    """A console on which no text can move the cursor, change colours or hide: names and reasons may be a stranger's."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text, or a cell of a table, as rich shows it."""
        return super().render_str(to_visible(text, KEPT), **options)


console = _SafeConsole(
    width=None if Console().is_terminal else WIDTH_WITHOUT_TERMINAL, highlight=False, markup=False, emoji=False
)


def pluralize(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural: "1 point", "2 points"."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def prepare_output() -> None:
    """Make the output of this process fail on no terminal and no pipe. For programs, not for notebooks.

    A character that the output's encoding lacks is replaced (PLAIN). Output that nobody reads any longer, as that of
    `launch.py ... | head` or of a closed terminal, is dropped: a training must not end because of it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError):  # closed, or replaced by an object without a file
            stream.flush()
            output: Any = _Output(stream.fileno(), "wb", closefd=False)
            options = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(output), stream.encoding, ERRORS, **options))


class _Output(io.FileIO):
    """A file descriptor to which writing has no effect once the reader has gone."""

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(data)


def _replace(error: UnicodeError) -> tuple[bytes, int]:
    """Return PLAIN for characters that cannot be encoded. Bytes of a file name that is no text stay as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    is_byte = ["\udc80" <= one <= "\udcff" for one in characters]  # as os.fsdecode marks them
    replaced = [
        bytes([ord(one) - 0xDC00]) if is_raw else PLAIN.get(one, "?").encode("ascii")
        for one, is_raw in zip(characters, is_byte, strict=True)
    ]
    return b"".join(replaced), error.end


ERRORS = "sae_sweeps.plain"  # name of this treatment of characters that an encoding lacks
codecs.register_error(ERRORS, _replace)


def to_printable(text: str) -> str:
    """Return `text` with characters of the console's encoding alone, so that the columns of a table keep their width.

    PLAIN replaces all its characters if the encoding lacks one of the text's.
    """
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        plain = "".join(PLAIN.get(one, one) for one in text)
        return plain.encode(console.encoding, "replace").decode(console.encoding)
    return text


class ConsoleHandler(logging.Handler):
    """A log handler that prints above the progress bars. conf/hydra/job_logging names it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record on the console: a warning in yellow, an error in red."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)
