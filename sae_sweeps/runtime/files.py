"""Reads and writes files. Writing is atomic: a file is written completely or not at all."""

import csv
import functools
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import TYPE_CHECKING, Any

from sae_sweeps.runtime.held import make_folder, require_held
from sae_sweeps.runtime.leftovers import temporary_path
from sae_sweeps.runtime.storage import error_number
from sae_sweeps.runtime.text import to_visible

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

FORMULA = ("=", "+", "-", "@")  # with which a cell of a table begins that a spreadsheet runs


@contextmanager
def write_atomically(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename the temporary file to `path` when the context ends.

    The content is synced to the disk before the rename, so a crash leaves the old file or the new one, never a part. An
    error in the context removes the temporary file and leaves `path` as it was.

    is_synced: False for one of many files that can be made again, because syncing takes milliseconds: a crash of the
    machine may leave it cut
    Raises: LostFolderError or LostSweep if the folder is held (runtime/held.py) and not there any more.
    """
    make_folder(path.parent)
    temporary = temporary_path(path)
    with naming_file(path):
        try:
            yield temporary
            if is_synced:
                sync(temporary)
            require_held(path)  # writing may have taken minutes
            os.replace(temporary, path)
            if is_synced:
                sync(path.parent)  # the new name is in the folder, which must be synced as well
        except BaseException as error:
            if isinstance(error, OSError) and error.filename == str(temporary):
                error.filename = str(path)  # users know the file by its name
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Put `path` into a system error of this context that names no file, so that its message names the full disk.

    Writing to an open file raises such errors. Another error that has only the system error's number in its message, as
    those of safetensors, is raised as the system error.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        if (number := error_number(error)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to, and rename it to `path` when the context ends, in place of a folder there.

    An error in the context removes the temporary folder and leaves `path` as it was. Files must be synced by whoever
    writes them. Raises: LostFolderError or LostSweep as `write_atomically` does.
    """
    make_folder(path.parent)
    temporary, old = temporary_path(path), temporary_path(path.with_name(f"{path.name}.old"))
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        sync(temporary)
        require_held(path)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, completely or not at all. An existing file is replaced.

    Halves of characters, as in names of files that are no text, are written as escapes such as \\udc80.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically, with a row per mapping. The columns are all keys, in order of first appearance.

    None, NaN and infinities become empty cells. A text that begins with one of FORMULA, as a name in a stranger's file
    may, gets a ' before it, so that no spreadsheet runs it; numbers stay numbers. Control characters become escapes.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_to_cell, columns))
    writer.writerows([_to_cell(row.get(column)) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def _to_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return replace_non_finite(value)
    return "'" * value.startswith(FORMULA) + to_visible(value, kept="\n")


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

    Raises: ValueError if the text is not JSON, or has a whole number of thousands of digits; RecursionError if it is
    nested too deeply.
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
    """Return the JSON value in `path`, as `parse_json` does, or None if the file does not exist or is not JSON.

    For files that others wrote; `runtime.records` reads those of this project.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None


def sha256(path: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def cached_sha256(path: Path) -> str:
    """Return the SHA-256 of a file. It is computed once for a file that stays as it is, as several checks need it."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.cache
def _sha256(path: Path, *identity: int) -> str:
    """Return the SHA-256 of a file. `identity`: what makes the cache miss if the file has changed"""
    return sha256(path)


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors from any device to a safetensors file, which can be read by whoever the umask allows to.

    The file may be left incomplete by an error, so write to a temporary path.
    """
    from safetensors.torch import save_file

    with naming_file(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)
        apply_umask(path)


def apply_umask(path: Path) -> None:
    """Give a file the permissions that a new file in its folder gets, by the umask or by the folder's default ACL.

    Some libraries write through a temporary file that only the user may read, and leave it so.
    """
    probe = temporary_path(path)
    try:
        probe.touch()
        path.chmod(S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink(missing_ok=True)


def write_table(path: Path, schema: "pa.Schema", parts: Iterable[Mapping[str, Any]]) -> None:
    """Write a Parquet file atomically, from parts (column -> values) of which only one is in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = {"compression": "zstd", "write_page_checksum": True}
    with write_atomically(path) as partial, pq.ParquetWriter(partial, schema, **options) as writer:
        for part in parts:
            writer.write_table(pa.table(dict(part), schema=schema))


def read_table(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read a Parquet file and check it by its checksums. `columns`: None for all.

    Raises: OSError or ArrowException if the file is missing or damaged.
    """
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=list(columns) if columns else None, page_checksum_verification=True)


def iterate_table(path: Path, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a Parquet file, checked by its checksums, `rows` at a time: only these are in memory.

    The last part may have fewer. Raises: OSError or ArrowException if the file is missing or damaged.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(rows):
            yield batch.to_pylist()
