"""The training curve of a point: metrics.jsonl, to which training appends one JSON object per line."""

import json
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import naming_file, write_text

Line = dict[str, Any]
TAIL_BYTES = 4096  # bytes read from the end of the file to find the last line; several lines long


class CurveFile:
    """The curve of a point that resumes from `step`: later lines are dropped, since training writes them again."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self.lines = [line for line in read_lines(path) if line["step"] <= step]
        if path.exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def append(self, line: Line) -> None:
        """Append a line to the file and to `lines`."""
        self.lines.append(line)
        with naming_file(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def total(self, name: str) -> float:
        """Return the sum over all lines of the value called `name`."""
        return sum(line[name] for line in self.lines)


def read_lines(path: Path) -> list[Line]:
    """Return the lines of the curve in the file `path`; none if there is no file.

    A last line that a crash cut short is left out.
    """
    lines: list[Line] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


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
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    return None
