"""The training curve of a point, metrics.jsonl: a JSON object per line, appended as training goes on."""

import json
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import write_text

Line = dict[str, Any]
TAIL_BYTES = 4096  # several lines long


class MetricsFile:
    """Lines up to `step` are kept, later ones forgotten: training goes on from there and writes them again."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self.lines = [line for line in read_lines(path) if line["step"] <= step]
        if path.exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def append(self, line: Line) -> None:
        self.lines.append(line)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def total(self, name: str) -> float:
        return sum(line[name] for line in self.lines)


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a metrics file, none if it is missing; a last line cut short by a crash is left out."""
    lines: list[Line] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def last_line(path: Path) -> Line | None:
    """The last whole line of a metrics file, found without reading what comes before it; None if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            tail = file.read().splitlines()
    except OSError:  # none yet, or none that can be read: to be told of, not to fail for
        return None
    for text in reversed(tail):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    return None
