"""Data sets of labelled texts: CSV files or JSON lines in a folder, a set per file, with two classes each.

Every failure is one ConfigError that names the file, the row, the cause and a fix.
"""

# T texts

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from sae_sweeps.activations.json_values import read_json_values
from sae_sweeps.activations.rows import name_type, replace_surrogates
from sae_sweeps.activations.text_files import open_file, strip_compression
from sae_sweeps.config.studies import ProbeConfig
from sae_sweeps.config.wheel_probes import FETCH_COMMAND, probes_folder
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.paths import expand_folder

SETTING = "probe.data"
TEXT_COLUMNS, LABEL_COLUMNS = ("text", "prompt"), ("label", "target")  # the first of each that a file has is used
ENDINGS = (".csv", ".jsonl")
SHOWN = 5  # labels in a message
COLUMNS_FIX = "give it a column text (or prompt) and a column label (or target)"
LONGEST_CELL = min(sys.maxsize, 2**31 - 1)  # characters


@dataclass(frozen=True)
class TextSet:
    """Texts of two classes. The positive class is the one whose label comes last, by size or by alphabet.

    is_positive_T: whether each text is of the positive class, bool (T,)
    """

    name: str
    texts: list[str]
    is_positive_T: np.ndarray
    negative: str
    positive: str


def find_probe_sets(probe: ProbeConfig) -> dict[str, Path]:
    """Return the files of the data sets that the settings name, as `find_sets` does.

    Raises: ConfigError if they are not there.
    """
    if probe.data is not None:
        return find_sets(Path(probe.data), probe.sets)
    folder = expand_folder(probes_folder(), "XDG_CACHE_HOME")
    if not folder.is_dir():
        problem = f"the data sets of sae-probes are not in {folder}"
        raise ConfigError(SETTING, None, problem, f"{FETCH_COMMAND} (45 MB by pip), or probe.data=FOLDER with your own")
    return find_sets(folder, probe.sets)


def find_sets(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of the data sets in a folder by their names: the files' own, without their endings.

    names: those of the sets that are wanted; empty: all. Sets whose names begin with numbers are in their order
    Raises: ConfigError if the folder or a wanted set does not exist, or two files have the same name.
    """
    if not folder.is_dir():
        raise ConfigError(SETTING, folder, "is no folder", "probe.data=FOLDER with .csv or .jsonl files")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        plain = strip_compression(file.name)
        if file.is_file() and plain.endswith(ENDINGS):
            name = Path(plain).stem
            if name in found:
                raise ConfigError(SETTING, file, f"has the name of another data set, {found[name].name}", "rename it")
            found[name] = file
    if not found:
        raise ConfigError(SETTING, folder, "has no .csv or .jsonl files", "write the data sets as CSV or JSON lines")
    if unknown := [name for name in names if name not in found]:
        some = ", ".join(sorted(found, key=_order)[:SHOWN])
        raise ConfigError(
            "probe.sets", unknown[0], f"no such data set; {len(found)} are there: {some}, ...", "name those"
        )
    return {name: found[name] for name in sorted(names or found, key=_order)}


def _order(name: str) -> tuple[int, str]:
    number = name.partition("_")[0]
    return (int(number) if number.isdecimal() else sys.maxsize, name)


def read_set(name: str, file: Path, rows: int, least: int) -> TextSet:
    """Read the first rows of a data set.

    rows: most rows to read; least: fewest texts of each class
    Raises: ConfigError if the file cannot be read, has no column of texts and one of labels, has an empty text or
        label, does not have two classes, or too few texts of one of them.
    """
    texts: list[str] = []
    labels: list[tuple[float, str]] = []
    with _about_probes():
        reader = _read_csv if strip_compression(file.name).endswith(".csv") else _read_json
        for row, (text, label) in enumerate(islice(reader(str(file)), rows)):
            place = f"row {row}"
            if not isinstance(text, str) or not text.strip():
                found = "an empty text" if isinstance(text, str) else f"{name_type(text)} in place of a text"
                raise ConfigError(SETTING, file, f"{place} has {found}", "mend or remove the row")
            texts.append(replace_surrogates(text, f"{file}, {place}"))
            labels.append(_read_label(label, file, place))
    negative, positive = _find_classes(labels, file)
    is_positive_T = np.array([label == positive for label in labels], dtype=bool)
    count, rare = min((int(part.sum()), one) for part, one in ((is_positive_T, positive), (~is_positive_T, negative)))
    if count < least:
        problem = f"has only {count} texts with the label {rare[1]!r} in its first {rows:,} rows; {least} are needed"
        raise ConfigError(SETTING, file, problem, "add texts, mix the rows, or leave the file out")
    return TextSet(name, texts, is_positive_T, negative[1], positive[1])


def _find_classes(labels: Sequence[tuple[float, str]], file: Path) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return the labels of the negative and the positive class. Raises: ConfigError if there are not two."""
    classes = sorted(set(labels))
    if len(classes) == 2:
        return classes[0], classes[1]
    shown = ", ".join(repr(label) for _, label in classes[:SHOWN]) + ", ..." * (len(classes) > SHOWN)
    problem = f"has {len(classes)} classes ({shown})" if classes else "has no rows"
    raise ConfigError(SETTING, file, f"{problem}, and a probe separates two", "write one file per pair of classes")


def _read_label(value: Any, file: Path, place: str) -> tuple[float, str]:
    """Return a label as a number to sort by and its text. Raises: ConfigError if it is neither text nor a number."""
    if isinstance(value, bool | int | float) and value == value:
        return float(value), str(value) if isinstance(value, bool) else f"{value:g}"
    if not isinstance(value, str) or not value.strip():
        found = "an empty label" if isinstance(value, str) else f"{name_type(value)} in place of a label"
        raise ConfigError(SETTING, file, f"{place} has {found}", "mend or remove the row")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    return (number if number == number else 0.0), value


def _read_json(file: str) -> Iterator[tuple[Any, Any]]:
    for row, (value, _) in enumerate(read_json_values(file)):
        if not isinstance(value, dict):
            raise ConfigError(SETTING, file, f"row {row} is {name_type(value)}, not an object", COLUMNS_FIX)
        text, label = _choose_columns(list(value), file)
        yield value[text], value[label]


def _read_csv(file: str) -> Iterator[tuple[str, str]]:
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        with open_file(file) as stream, io.TextIOWrapper(cast(Any, stream), encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            titles = next(reader, [])
            text, label = (titles.index(column) for column in _choose_columns(titles, file))
            row = 0
            for cells in reader:
                if not cells:  # a blank line
                    continue
                if len(cells) != len(titles):
                    problem = (
                        f"row {row} (line {reader.line_num}) has {len(cells)} cells, and the titles are {len(titles)}"
                    )
                    raise ConfigError(SETTING, file, problem, "quote texts that hold commas or line breaks")
                yield cells[text], cells[label]
                row += 1
    except csv.Error as error:
        raise ConfigError(SETTING, file, f"is not CSV ({first_line(error)})", "write it with a CSV library") from None
    except UnicodeDecodeError as error:
        raise ConfigError(SETTING, file, f"is not UTF-8 text ({error.reason})", "convert the file to UTF-8") from None
    finally:
        csv.field_size_limit(limit)


def _choose_columns(titles: Sequence[str], file: str) -> tuple[str, str]:
    """Return the names of the columns of texts and of labels. Raises: ConfigError if one is not there."""
    found = [next((name for name in names if name in titles), None) for names in (TEXT_COLUMNS, LABEL_COLUMNS)]
    if found[0] is None or found[1] is None:
        columns = ", ".join(titles[:10]) or "none"
        missing = "texts" if found[0] is None else "labels"
        raise ConfigError(SETTING, file, f"has no column of {missing}; its columns are {columns}", COLUMNS_FIX)
    return found[0], found[1]


@contextmanager
def _about_probes() -> Iterator[None]:
    """Give errors of reading files the setting of this task. Raises: ConfigError."""
    try:
        yield
    except ConfigError as error:
        value = error.value
        raise ConfigError(SETTING, value, error.problem, error.fix) from None
