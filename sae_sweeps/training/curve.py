"""The training curve of a point: metrics.jsonl, to which training appends one JSON object per line.

Each line has one more entry, CHECK: a checksum of the other entries and of the point's name.
"""

import logging
import zlib
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import naming_file, parse_json, to_json, write_text
from sae_sweeps.runtime.held import require_held
from sae_sweeps.runtime.records import matches

log = logging.getLogger(__name__)

Line = dict[str, Any]
CHECK = "crc32"  # in hexadecimal; lines of earlier versions do not have it
SHAPE = {"step": int}
TAIL_BYTES = 4096  # bytes read from the end of the file to find the last line; several lines long


class CurveFile:
    """The curve of a point that resumes from `step`: later lines are dropped, since training writes them again.

    owner: name of the point or study whose curve it is; None: that of the file's folder
    """

    def __init__(self, path: Path, step: int, owner: str | None = None) -> None:
        self._path, self._owner = path, owner
        lines, damaged = _read(path, owner)
        self.lines = [line for line in lines if line["step"] <= step]
        self.is_complete = not damaged and (step == 0 or bool(self.lines))
        if step > 0 and not self.lines:
            log.warning("%s has no line of the first %d steps; the curve begins after them", path, step)
        if path.exists():
            write_text(path, "".join(map(self._format, self.lines)))

    def append(self, line: Line) -> None:
        """Append a line to the file and to `lines`. Raises: LostFolderError if the folder is not there any more."""
        require_held(self._path)
        self.lines.append(line)
        with naming_file(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(self._format(line))

    def _format(self, line: Line) -> str:
        return to_json({**line, CHECK: _checksum(line, self._path, self._owner)}) + "\n"

    def total(self, name: str) -> float:
        """Return the sum over all lines of the value called `name`."""
        return sum(line.get(name) or 0.0 for line in self.lines)


def read_lines(path: Path, owner: str | None = None) -> list[Line]:
    """Return the lines of the curve in the file `path`; none if there is no such file.

    A last line that a crash cut short is left out, and with a warning any line that is damaged, of another point, or
    not after the lines before it. `owner`: see CurveFile
    """
    return _read(path, owner)[0]


def _read(path: Path, owner: str | None) -> tuple[list[Line], list[int]]:
    """Return the lines of the curve in the file `path`, and the numbers of those that are damaged; see `read_lines`."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        log.warning("%s cannot be read (%s); the curve is left out", path, error.strerror)
        return [], [1]
    texts = content.splitlines()
    cut = len(texts) if not content.endswith(b"\n") else None  # by a crash, as training writes whole lines
    lines: list[Line] = []
    damaged = []
    for number, text in enumerate(texts, 1):
        line = _parse(text, path, owner)
        if line is not None and (not lines or line["step"] > lines[-1]["step"]):
            lines.append(line)
        elif number != cut:
            damaged.append(number)
    if damaged:
        others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        problem = "is damaged, or of another point, at line"
        log.warning("%s %s %d%s; these lines are left out of the curve", path, problem, damaged[0], others)
    return lines, damaged


def _parse(text: bytes, path: Path, owner: str | None) -> Line | None:
    """Return a line of the curve in the file `path`; None for a text that is none, or of another curve."""
    try:
        line = parse_json(text)
    except (ValueError, RecursionError):
        return None
    check = line.pop(CHECK, None) if isinstance(line, dict) else None
    if not matches(line, SHAPE) or not matches(line, {str: (float, None)}):
        return None
    return line if check in (None, _checksum(line, path, owner)) else None


def _checksum(line: Line, path: Path, owner: str | None) -> str:
    return f"{zlib.crc32(f'{owner or path.parent.name} {to_json(line)}'.encode()):08x}"


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
        if (line := _parse(text, path, None)) is not None:
            return line
    return None
