"""Reads and writes files. Writing is atomic: a file is written completely or not at all."""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename the temporary file to `path` when the context ends.

    The content is synced to the disk before the rename, so a crash leaves the old file or the new one, never a part. An
    error in the context removes the temporary file and leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)  # the new name is in the folder, which must be synced as well
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, completely or not at all. An existing file is replaced."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically, with a row per mapping. The columns are all keys, in order of first appearance.

    None, NaN and infinities become empty cells.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: replace_non_finite(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def sync(path: Path) -> None:
    """Wait until the content of a file or folder is on the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """Return a value as JSON text. NaN and infinities become null, because JSON has neither.

    indent: spaces per level, on lines of their own; None for a single line
    compact: leave out blanks, and do not escape characters beyond ASCII
    """
    options: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False} if compact else {"indent": indent}
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # found only by trying: a search of each value would take longer than writing it
        return json.dumps(replace_non_finite(value), allow_nan=False, **options)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. NaN, infinities and numbers too large for a float, such as 1e999, become None.

    Raises: json.JSONDecodeError, a ValueError, if the text is not JSON.
    """
    return json.loads(text, parse_constant=lambda name: None, parse_float=lambda digits: _finite(float(digits)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def replace_non_finite(value: Any) -> Any:
    """Return a JSON value with None in place of every NaN and infinity, at any depth."""
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, Mapping):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a value to a JSON file, completely or not at all, as `to_json` does. An existing file is replaced."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`, as `parse_json` does, or None if the file does not exist or is not JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None


def sha256(path: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_table(path: Path, schema: "pa.Schema", parts: Iterable[Mapping[str, Any]]) -> None:
    """Write a Parquet file atomically, from parts (column -> values) of which only one is in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with write_atomically(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.table(dict(part), schema=schema))
