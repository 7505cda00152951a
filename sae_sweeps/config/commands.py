"""Formats settings and commands so that a shell and Hydra read back the same values."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from sae_sweeps.runtime.places import IS_INSTALLED

PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:@%+*?|-]*")  # Hydra's grammar reads such text as itself
VALUES = ("true", "false", "null", "inf", "nan")  # but not these, in lower or upper case
DEFAULT_ROOT = "outputs"
PROGRAM = "SAE_SWEEPS_COMMAND"  # environment variable with the words that start the command; child processes inherit it


def record_program() -> None:
    """Record in the environment how a user started this command, unless the user has set it.

    Messages of this process and of its jobs then name commands that work when they are typed.
    """
    os.environ.setdefault(PROGRAM, _spell_program(sys.argv[0]))


def program() -> str:
    """Return the words that start the command, such as "python launch.py", for messages that name a command."""
    return os.environ.get(PROGRAM) or ("sae-sweeps" if IS_INSTALLED else "python launch.py")


def _spell_program(script: str) -> str:
    """Return the words of a shell that start `script`, the first of the process's arguments."""
    path = Path(script)
    if path.name == "__main__.py":
        return "python -m sae_sweeps"
    if path.suffix == ".py":
        return f"python {shlex.quote(script)}"
    on_path = shutil.which(path.name)
    is_found = on_path is not None and Path(on_path).absolute() == path.absolute()
    return path.name if is_found else shlex.quote(script)


def quote(text: str) -> str:
    """Return text as Hydra's grammar has to see it to read the same text: in quotes, unless it is plain."""
    if PLAIN.fullmatch(text) and text.lower() not in VALUES:
        return text
    return QuotedString(text, Quote.double if "'" in text and '"' not in text else Quote.single).with_quotes()


def format_setting(setting: str, value: str | Sequence[str]) -> str:
    """Return `setting=value` as one word of a shell command. `value`: text, or a list of texts."""
    hydra = quote(value) if isinstance(value, str) else f"[{','.join(map(quote, value))}]"
    return _quote_word(f"{setting}={hydra}")


def format_command(task: str, sweep: str, root: str | Path = DEFAULT_ROOT) -> str:
    """Return the shell command that runs a task on a sweep. `root`: folder of the sweep's folder."""
    is_default = Path(root).absolute() == Path(DEFAULT_ROOT).absolute()
    words = [format_setting("name", sweep), *([] if is_default else [format_setting("output_root", str(root))])]
    return " ".join([program(), f"task={task}", *words])


def _quote_word(word: str) -> str:
    """Return a word in the quotes that a shell needs: double ones if these are easier to read and mean the same."""
    if shlex.quote(word) == word:
        return word
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
