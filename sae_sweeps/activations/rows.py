"""Rows of local text files, read one file after another: JSON, Parquet, and text files of one document each.

Only the text column is looked at, so whatever else a row holds, such as images, neither matters nor costs anything.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sae_sweeps.activations.json_values import read_json_values
from sae_sweeps.activations.text_files import SETTING, check_parquet_magic, decode_utf8, explain_failures, open_file
from sae_sweeps.config import DatasetConfig
from sae_sweeps.config.commands import format_setting
from sae_sweeps.runtime.errors import ConfigError, first_line

log = logging.getLogger(__name__)

PARQUET_ROWS = 256  # rows of a Parquet file that are decoded at once


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a text, not yet checked.

    source: the file, or the name of the data set on the hub
    number: the row's number in the source, counted from 0
    value: what the text column holds; None if the row has no such column
    has_column: whether the row has the text column
    columns: returns what each column of the source holds, by name, for example {"text": "a string"}
    line: number of the line on which the row begins, counted from 1, if the source has lines
    """

    source: str
    number: int
    value: object
    has_column: bool
    columns: Callable[[], Mapping[str, str]] = field(compare=False)
    line: int | None = None

    @property
    def place(self) -> str:
        """Return where the row is, for a message."""
        return f"{self.source}, row {self.number}" + (f" (line {self.line})" if self.line is not None else "")


def name_type(value: object) -> str:
    """Return what a value is, for a message: "a string", "a list", "a number", ..."""
    names = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", bytes: "bytes", type(None): "null"}
    if isinstance(value, float) and value != value:
        return "NaN"
    if type(value) in (int, float):
        return "a number"
    return names.get(type(value), f"a value of type {type(value).__name__}")


def take_text(row: Row, column: str) -> str:
    """Return the text of a row; empty for null. Raises: ConfigError if it is anything else but a string.

    Half a surrogate pair, which a JSON escape can spell and no encoding can hold, becomes U+FFFD.
    """
    if row.value is None:
        return ""
    if not isinstance(row.value, str):
        strings = [name for name, held in row.columns().items() if held == "a string" and name != column]
        other = f", or choose a column of strings: dataset.text_column={strings[0]}" if strings else ""
        problem = f"{row.place} holds {name_type(row.value)} in this column, and text must be a string"
        raise ConfigError("dataset.text_column", column, problem, f"mend or remove the row{other}")
    return replace_surrogates(row.value, row.place)


def replace_surrogates(text: str, place: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair, and warn of it once. `place`: where the text is."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        warn_once(f"{place} has half a surrogate pair, which is no character, and is read as U+FFFD")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, unless this process has logged it before: a text is read several times."""
    log.warning(message)


def check_file(dataset: DatasetConfig, file: str) -> None:
    """Check the start of a file, and a Parquet file's schema. Raises: ConfigError as `read_file_rows` does."""
    if dataset.format == "parquet":
        with explain_failures(file):
            if os.path.getsize(file) > 0:
                with _open_parquet(file, dataset.text_column):
                    return
    else:
        with open_file(file):
            return


def read_file_rows(dataset: DatasetConfig, file: str) -> Iterator[Row]:
    """Yield the rows of a local file of `dataset.format`. A file of 0 bytes has none.

    Raises: ConfigError if the file cannot be read or is not of this format.
    """
    with explain_failures(file):
        if os.path.getsize(file) == 0:
            return
    readers = {"text": _read_text, "json": _read_json, "parquet": _read_parquet}
    yield from readers[dataset.format](file, dataset.text_column)


def _read_text(file: str, column: str) -> Iterator[Row]:
    with open_file(file) as stream:
        data = stream.read()
    yield Row(file, 0, decode_utf8(data, file).removeprefix("\ufeff"), True, dict)


def _read_json(file: str, column: str) -> Iterator[Row]:
    """Yield the rows of a file of JSON values, usually one per line, or of one JSON array.

    A row is an object. A string in the place of an object is a document if `column` is "text", the column's default.
    """
    for number, (value, line) in enumerate(read_json_values(file)):
        if isinstance(value, dict):
            yield Row(file, number, value.get(column), column in value, partial(_name_types, value), line)
        elif value is None:
            yield Row(file, number, None, True, dict, line)
        elif isinstance(value, str) and column == "text":
            yield Row(file, number, value, True, dict, line)
        else:
            place = Row(file, number, None, False, dict, line).place
            fix = 'write rows as {"text": "..."}, one per line'
            raise ConfigError(SETTING, place, f"is {name_type(value)}, not an object with columns", fix)


def _name_types(row: Mapping[str, object]) -> dict[str, str]:
    return {name: name_type(value) for name, value in row.items()}


def _read_parquet(file: str, column: str) -> Iterator[Row]:
    with _open_parquet(file, column) as (parquet, types):
        if column not in types:
            for number in range(parquet.metadata.num_rows):
                yield Row(file, number, None, False, types.copy)
            return
        number = 0
        for batch in parquet.iter_batches(PARQUET_ROWS, columns=[column]):
            for value in batch.column(0):
                yield Row(file, number, _decode_scalar(value, file, number), True, types.copy)
                number += 1


@contextmanager
def _open_parquet(file: str, column: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a Parquet file for reading, with what each of its columns holds, by name.

    Raises: ConfigError, also while the file is read, if it cannot be read, or if `column` holds no strings.
    """
    import pyarrow.parquet as pq

    check_parquet_magic(file)
    try:
        with pq.ParquetFile(file) as parquet:
            types = {field.name: name_arrow_type(field.type) for field in parquet.schema_arrow}
            if types.get(column, "a string") not in ("a string", "null"):
                raise wrong_column_error(file, column, types)
            yield parquet, types
    except ConfigError:
        raise
    except Exception as error:  # of any type, since damaged files reach every part of the library
        problem = f"cannot be read as Parquet ({first_line(error)})"
        raise ConfigError(SETTING, file, problem, "fetch the file again, or set the format that it has") from None


def _decode_scalar(value: Any, file: str, number: int) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        problem = f"row {number} is not UTF-8 text ({error.reason})"
        raise ConfigError(SETTING, file, problem, "write the column as UTF-8") from None


def name_arrow_type(kind: Any) -> str:
    """Return what a column of an Arrow type holds, for a message: "a string", "null", or the name of the type."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "a string"
    return "null" if pa.types.is_null(kind) else f"{kind}"


def wrong_column_error(source: str, column: str, types: Mapping[str, str]) -> ConfigError:
    """Return the ConfigError for a text column that holds no strings, or that the source does not have.

    types: what each column of the source holds, by name
    """
    strings = [name for name, held in types.items() if held == "a string" and name != column]
    problem = f"{source} has no such column; the columns are {', '.join(types)}"
    if column in types:
        problem = f"in {source} this column holds {types[column]}, and text must be a string"
    others = f" (other columns of strings: {', '.join(strings[1:])})" if strings[1:] else ""
    fix = "choose files with a column of strings"
    if strings:
        fix = format_setting("dataset.text_column", strings[0]) + others
    return ConfigError("dataset.text_column", column, problem, fix)
