"""The JSON values of a file: one per line, written over several lines, or the items of one array."""

import json
import re
from collections.abc import Iterator
from typing import Any

from sae_sweeps.activations.text_files import SETTING, decode_utf8, open_file
from sae_sweeps.runtime.errors import ConfigError

LONGEST_VALUE = 2**26  # bytes of a value that is written over several lines

# other columns may hold whole numbers of any length, which Python refuses to convert to an int
DECODER = json.JSONDecoder(parse_int=float)
SPACES = re.compile(r"[ \t\r\n]*")


class _IncompleteError(Exception):
    """Raised for a JSON value that may continue on the next line."""


def read_json_values(file: str) -> Iterator[tuple[Any, int | None]]:
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
    text = decode_utf8(data, file, f"row {row} (line {line}) ")
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
    text, row = decode_utf8(data, file), 0
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
