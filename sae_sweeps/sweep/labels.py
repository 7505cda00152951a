"""Labels of latents: checked from a file of JSON lines, and kept with a sweep, whose reports and exports show them.

labels.json    a record: by SAE, lists of latents with their texts, scores and sources
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import naming_file
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.sweep.point import make_title

FILE = "labels.json"
SETTING = "latents.labels"
REQUIRED, OPTIONAL = ("sae", "latent", "text"), ("score", "source")
EXAMPLE = '{"sae": "batchtopk-3072-k32-seed0", "latent": 12, "text": "names of presidents"}'
_LISTS = {"latent": [int], "text": [str], "score": [(float, None)], "source": [(str, None)]}
_SHAPE = {"labels": {str: _LISTS}}


@dataclass(frozen=True)
class Label:
    """A label of a latent. score, source: how good it is, and who made it; None if the file does not have them."""

    text: str
    score: float | None = None
    source: str | None = None


Labels = dict[str, dict[int, Label]]  # name of an SAE -> latent -> label


class _LineError(ValueError):
    """Raised for a line of a file of labels that is none. The message continues "line 3: "; `fix` says what to do."""

    def __init__(self, problem: str, fix: str = f"write a line such as {EXAMPLE}") -> None:
        super().__init__(problem)
        self.fix = fix


def parse_labels(path: Path, sizes: Mapping[str, int]) -> Labels:
    """Return the labels in a file of JSON lines. Empty lines are skipped.

    sizes: number of latents of each SAE that may have labels, by name; its title, the name without the hash at the end,
        names it too, where no other SAE has it
    Raises: ConfigError, with the number of the line, for an unknown SAE, a latent that it does not have, a second label
    of a latent, or a line that is no label; or if the file cannot be read.
    """
    names = _name_titles(list(sizes)) | {name: name for name in sizes}
    labels: Labels = {}
    first: dict[tuple[str, int], int] = {}
    try:
        for number, line in _read_lines(path):
            try:
                sae, latent, label = _parse(line, names, sizes)
                if (earlier := first.setdefault((sae, latent), number)) != number:
                    raise _LineError(f"latent {latent} of {sae} has a label in line {earlier} already", "remove one")
            except _LineError as error:
                raise ConfigError(SETTING, str(path), f"line {number}: {error}", error.fix) from None
            labels.setdefault(sae, {})[latent] = label
    except OSError as error:
        fix = "name a file of JSON lines"
        raise ConfigError(SETTING, str(path), f"cannot be read ({error.strerror or error})", fix) from None
    return labels


def _name_titles(names: Sequence[str]) -> dict[str, str]:
    """Return title -> name of each SAE whose title no other one has."""
    titles = list(map(make_title, names))
    counts = Counter(titles)
    return {title: name for title, name in zip(titles, names, strict=True) if counts[title] == 1}


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with naming_file(path), open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _parse(line: bytes, names: Mapping[str, str], sizes: Mapping[str, int]) -> tuple[str, int, Label]:
    """Return SAE, latent and label of a line. Raises: _LineError."""
    try:
        found = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _LineError("is not JSON") from None
    if not isinstance(found, dict):
        raise _LineError("is not a JSON object")
    if missing := [key for key in REQUIRED if key not in found]:
        raise _LineError(f"has no {missing[0]}")
    if unknown := [key for key in found if key not in (*REQUIRED, *OPTIONAL)]:
        raise _LineError(
            f"has an unknown entry {unknown[0]!r}", f"leave it out; known are {_list(REQUIRED + OPTIONAL)}"
        )
    if not isinstance(found["sae"], str) or found["sae"] not in names:
        known = _list(names[name] for name in sorted(names) if names[name] == name)
        raise _LineError(f"there is no SAE {found['sae']!r}", f"name one of {known}" if known else "train SAEs first")
    sae = names[found["sae"]]
    latent, size = found["latent"], sizes[sae]
    if not isinstance(latent, int) or isinstance(latent, bool) or not 0 <= latent < size:
        raise _LineError(f"{sae} has no latent {latent!r}", f"name one from 0 to {size - 1}")
    return sae, latent, Label(*_check_values(found))


def _check_values(found: Mapping[str, Any]) -> tuple[str, float | None, str | None]:
    text, score, source = found["text"], found.get("score"), found.get("source")
    if not isinstance(text, str) or not text.strip():
        raise _LineError("text must be a text that is not empty")
    if source is not None and not isinstance(source, str):
        raise _LineError("source must be a text, or null")
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    if score is not None and not is_number:
        raise _LineError("score must be a finite number, or null")
    try:
        (text + (source or "")).encode()
    except UnicodeEncodeError:
        raise _LineError("has half of a character, which no text file can have", "write whole characters") from None
    return text.strip(), None if score is None else float(score), source


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _list(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def write_labels(folder: Path, labels: Labels) -> None:
    """Keep the labels of a sweep in its folder, in place of those that it has."""
    columns = {
        sae: {
            "latent": list(found),
            **{name: [getattr(label, name) for label in found.values()] for name in ("text", "score", "source")},
        }
        for sae, found in sorted(labels.items())
    }
    write_record(folder / FILE, {"labels": columns})


def read_labels(folder: Path) -> Labels:
    """Return the labels that are kept in the folder of a sweep; none, with a warning, if their file is damaged."""
    content = read_record(folder / FILE, _SHAPE, is_sealed=True)
    columns = {} if content is None else content["labels"]
    return {
        sae: {latent: Label(*values) for latent, *values in zip(*(found[name] for name in _LISTS), strict=True)}
        for sae, found in columns.items()
    }
