"""The training curve of a point: metrics.jsonl, to which training appends one JSON object per line."""

import logging
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import naming_file, parse_json, to_json, write_text
from sae_sweeps.runtime.held import require_held
from sae_sweeps.runtime.records import matches

log = logging.getLogger(__name__)

Line = dict[str, Any]
SHAPE = {"step": int}
TAIL_BYTES = 4096  # bytes read from the end of the file to find the last line; several lines long


class CurveFile:
    """The curve of a point that resumes from `step`: later lines are dropped, since training writes them again."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self.lines = [line for line in read_lines(path) if line["step"] <= step]
        if path.exists():
            write_text(path, "".join(to_json(line) + "\n" for line in self.lines))

    def append(self, line: Line) -> None:
        """Append a line to the file and to `lines`. Raises: LostFolderError if the folder is not there any more."""
        require_held(self._path)
        self.lines.append(line)
        with naming_file(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")

    def total(self, name: str) -> float:
        """Return the sum over all lines of the value called `name`."""
        return sum(line.get(name) or 0.0 for line in self.lines)


def read_lines(path: Path) -> list[Line]:
    """Return the lines of the curve in the file `path`; none if there is no such file.

    A last line that a crash cut short is left out, and with a warning all lines after one that is damaged.
    """
    lines: list[Line] = []
    if not path.is_file():
        return lines
    texts = path.read_bytes().splitlines()
    for number, text in enumerate(texts, 1):
        if (line := _parse(text)) is None or (lines and line["step"] <= lines[-1]["step"]):
            if number < len(texts):
                log.warning("%s is damaged at line %d; the rest of the curve is left out", path, number)
            break
        lines.append(line)
    return lines


def _parse(text: bytes) -> Line | None:
    """Return a line of the curve; None for a text that is none."""
    try:
        line = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return line if matches(line, SHAPE) and matches(line, {str: (float, None)}) else None


def last_line(path: Path) -> Line | None:
    """Return the last complete line of the curve in the file `path`; None without such a line or a readable file.

    Only the end of the file is read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read().splitlines()
    except OSError:  # missing or unreadable: progress displays show nothing then
        return None
    for text in reversed(tail):
        if (line := _parse(text)) is not None:
            return line
    return None
