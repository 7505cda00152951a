"""The commands of this project in the documents, and what a reader needs to run each."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sae_sweeps.runtime.places import PROJECT

FOLDERS = ("", "docs/", "docs/tutorials/", "examples/", "embedded/", "benchmarks/", "benchmarks/results/")
DOCUMENTS = sorted(document for folder in FOLDERS for document in PROJECT.glob(f"{folder}*.md"))

_MARK = re.compile(r"<!-- needs (.+) -->")
_COMMAND = re.compile(r"(?:    )?(?:python launch\.py|sae-sweeps) (.*?)(?:\s+#.*)?")


class Command(NamedTuple):
    """A command in a block of code."""

    document: str  # the file's path in the project
    words: tuple[str, ...]  # as a shell gives them to launch.py
    needs: str | None  # what the comment in front of the block says, such as "a cluster"


def find_commands(document: Path) -> Iterator[Command]:
    """Yield the commands in a document's blocks of code, in their order, continued lines joined.

    A comment `<!-- needs a hub -->` is about the block that follows it.
    """
    needs, in_code = None, False
    for line in document.read_text().replace("\\\n", " ").splitlines():
        mark, command = _MARK.fullmatch(line), _COMMAND.fullmatch(line)
        if mark:
            needs, in_code = mark[1], False
        elif line and not line.startswith(("    ", "```", "sae-sweeps ")):  # text, after the block
            needs, in_code = (None if in_code else needs), False
        elif line:
            in_code = True
        if command and "..." not in command[1]:
            yield Command(str(document.relative_to(PROJECT)), tuple(shlex.split(command[1])), needs)


COMMANDS = [command for document in DOCUMENTS for command in find_commands(document)]
