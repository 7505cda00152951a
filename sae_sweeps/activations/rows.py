"""Rows of local text files, read one file after another: JSON, Parquet, and text files of one document each.

Only the text column is looked at, so whatever else a row holds, such as images, neither matters nor costs anything.
"""

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from sae_sweeps.activations.text_files import SETTING, check_parquet_magic, explain_failures, open_file
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError, first_line

log = logging.getLogger(__name__)

PARQUET_ROWS = 256  # rows of a Parquet file that are decoded at once
LONGEST_VALUE = 2**26  # bytes of a JSON value that is written over several lines


class Row(NamedTuple):
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
    columns: Callable[[], Mapping[str, str]]
    line: int | None = None

    @property
    def place(self) -> str:
        """Return where the row is, for a message."""
        return f"{self.source}, row {self.number}" + (f" (line {self.line})" if self.line is not None else "")


def name_type(value: object) -> str:
    """Return what a value is, for a message: "a string", "a list", "a number", ..."""
    names = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", bytes: "bytes", type(None): "null"}
    if type(value) in (int, float):
        return f"a number ({value})"
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
    try:
        row.value.encode()
        return row.value
    except UnicodeEncodeError:
        _warn_of_surrogates(row.source, row.number)
        return row.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.cache
def _warn_of_surrogates(source: str, row: int) -> None:
    log.warning("%s, row %d: half a surrogate pair is no character, and is read as U+FFFD", source, row)


def check_file(dataset: DatasetConfig, file: str) -> None:
    """Check what the start of a file, and a Parquet file's schema, show. Raises: ConfigError as `read_file_rows` does."""
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
    yield Row(file, 0, _decode(data, file, "").removeprefix("\ufeff"), True, dict)


def _decode(data: bytes, file: str, where: str) -> str:
    """Return UTF-8 text. `where`: the row in the file, for the message of an error. Raises: ConfigError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"{where}is not UTF-8 text ({error.reason}, 0x{data[error.start]:02x}, at byte {error.start})"
        raise ConfigError(SETTING, file, problem, "convert the file to UTF-8, or narrow the glob") from None


def _read_json(file: str, column: str) -> Iterator[Row]:
    """Yield the rows of a file of JSON values, usually one per line, or of one JSON array.

    A row is an object. A string in the place of an object is a document if `column` is "text", the column's default.
    """
    for number, (value, line) in enumerate(_read_json_values(file)):
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


# other columns may hold whole numbers of any length, which Python refuses to convert to an int
DECODER = json.JSONDecoder(parse_int=float)
SPACES = re.compile(r"[ \t\r\n]*")


class _IncompleteError(Exception):
    """Raised for a JSON value that may continue on the next line."""


def _read_json_values(file: str) -> Iterator[tuple[Any, int | None]]:
    """Yield each JSON value of a file, or each item of one array, with the number of the line on which it begins."""
    with open_file(file) as stream:
        row = 0
        lines = enumerate(stream, start=1)
        for line, data in lines:
            if line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if row == 0 and data.lstrip().startswith(b"["):
                yield from _read_array(data + stream.read(), file)
                return
            try:
                values = _parse(data, file, row, line)
            except _IncompleteError:
                for _, more in lines:
                    data += more
                    if more.startswith((b"}", b"{", b"]")) or len(data) > LONGEST_VALUE:
                        break  # an indented value ends here, or another begins
                values = _parse(data, file, row, line, is_last=True)
            for value in values:
                yield value, line
            row += len(values)


def _parse(data: bytes, file: str, row: int, line: int, *, is_last: bool = False) -> list[Any]:
    """Return the JSON values of a line, usually one; of a blank line none.

    row, line: numbers of the first value and of the line, for messages
    is_last: no value may continue on the next line

    Raises: ConfigError for what is not JSON; _IncompleteError for the begin of a value, unless `is_last`.
    """
    text = _decode(data, file, f"row {row} (line {line}) ")
    values: list[Any] = []
    at = SPACES.match(text).end()  # type: ignore[union-attr]  # it matches anywhere
    while at < len(text):
        try:
            value, at = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if not is_last and not values and error.pos >= len(text.rstrip()):
                raise _IncompleteError from None
            raise _not_json(file, f"row {row + len(values)} (line {line})", error) from None
        except RecursionError as error:
            raise _not_json(file, f"row {row + len(values)} (line {line})", error) from None
        values.append(value)
        at = SPACES.match(text, at).end()  # type: ignore[union-attr]
    return values


def _read_array(data: bytes, file: str) -> Iterator[tuple[Any, None]]:
    """Yield the items of a file that is one JSON array. Raises: ConfigError."""
    text, row = _decode(data, file, ""), 0
    at = text.index("[") + 1
    end = re.compile(r"[ \t\r\n]*\][ \t\r\n]*$")
    try:
        while not end.match(text, at):
            if row:
                at = _skip(",", text, at)
            value, at = DECODER.raw_decode(text, SPACES.match(text, at).end())  # type: ignore[union-attr]
            yield value, None
            row += 1
    except (json.JSONDecodeError, RecursionError) as error:
        raise _not_json(file, f"row {row}", error) from None


def _skip(mark: str, text: str, at: int) -> int:
    """Return the index after a mark and spaces before it. Raises: JSONDecodeError if the mark is not there."""
    at = SPACES.match(text, at).end()  # type: ignore[union-attr]
    if not text.startswith(mark, at):
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, at)
    return at + len(mark)


def _not_json(file: str, place: str, error: Exception) -> ConfigError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
    fix = 'mend the row, or fetch the file again; JSON lines are rows such as {"text": "..."}'
    return ConfigError(SETTING, file, f"{place} is not JSON ({reason})", fix)


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
    fix = f"dataset.text_column={strings[0]}{others}" if strings else "choose files with a column of strings"
    return ConfigError("dataset.text_column", column, problem, fix)
