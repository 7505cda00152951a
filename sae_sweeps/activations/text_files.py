"""Local text files: found by path or glob, recognised by their first bytes, and opened decompressed.

Every failure is one ConfigError that names the file, the cause and a fix.
"""

import bz2
import glob
import gzip
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from typing import NamedTuple, cast

from sae_sweeps.config import DatasetConfig
from sae_sweeps.config.commands import format_setting
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.file_faults import LFS_POINTER

SETTING = "dataset.files"
HEAD = 512  # bytes at the start of a file that say what the file is


def find_files(dataset: DatasetConfig) -> list[str]:
    """Return the sorted paths of the files in `dataset.files`, each file once.

    A path that exists is taken as it is, whatever characters it has; anything else is a glob. Of two paths of one file
    (through a symbolic link, or spelled with ..) the first in the order of the paths is kept.
    Raises: ConfigError if a path or glob matches no file.
    """
    found: list[str] = []
    for pattern in dataset.globs:
        path = pattern if os.path.exists(pattern) else os.path.expanduser(pattern)
        matches = _match(path)
        if not matches and os.path.isdir(path):
            fix = f"name its files: {format_setting(SETTING, os.path.join(pattern, '*'))}"
            raise ConfigError(SETTING, pattern, "is a folder", fix)
        if not matches:
            fix = "check the path, and quote the glob in the shell"
            raise ConfigError(SETTING, pattern, "matches no file", fix)
        found += matches
    unique: dict[str, str] = {}
    for path in sorted(set(found)):
        unique.setdefault(os.path.realpath(path), path)
    return list(unique.values())


def _match(pattern: str) -> list[str]:
    """Return the files that a path or glob stands for. The leading folders of a glob that exist are no glob."""
    if os.path.isfile(pattern):
        return [pattern]
    if "\0" in pattern:  # glob raises ValueError
        return []
    parts = pattern.split(os.sep)
    leading = next(n for n in range(len(parts) - 1, -1, -1) if n == 0 or os.path.isdir(os.sep.join([*parts[:n], ""])))
    escaped = os.sep.join([*(glob.escape(part) for part in parts[:leading]), *parts[leading:]])
    for each in (escaped, pattern):
        if matches := [path for path in glob.glob(each, recursive=True) if os.path.isfile(path)]:
            return matches
    return []


def _open_zstd(file: str) -> BufferedIOBase:
    import pyarrow as pa

    return BufferedReader(pa.CompressedInputStream(pa.PythonFile(open(file, "rb")), "zstd"))


def _open_zip(file: str) -> BufferedIOBase:
    """Open the file that a zip archive holds. Raises: ConfigError if it holds several, or a password is needed."""
    archive = zipfile.ZipFile(file)
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if len(names) != 1:
        raise ConfigError(SETTING, file, f"is a zip archive of {len(names)} files", "unzip it, and name its files")
    try:
        return cast(BufferedIOBase, archive.open(names[0]))
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(SETTING, file, f"cannot be unzipped ({first_line(error)})", "unzip it yourself") from None


class Compression(NamedTuple):
    """A kind of compressed file: the ending of its name, the bytes it begins with, and how it is opened."""

    ending: str
    magic: re.Pattern[bytes]
    open: Callable[[str], BufferedIOBase]


# no file that begins like this is UTF-8 text; that of bzip2 is, so more than its first letters are compared
COMPRESSIONS = (
    Compression(".gz", re.compile(rb"\x1f\x8b"), gzip.GzipFile),
    Compression(".bz2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2File),
    Compression(".xz", re.compile(rb"\xfd7zXZ\x00"), lzma.LZMAFile),
    Compression(".zst", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _open_zstd),
    Compression(".zip", re.compile(rb"PK(\x03\x04|\x05\x06)"), _open_zip),
)

# what a file is that is no text, by the bytes it begins with -> the problem, and the fix
FOREIGN = (
    (LFS_POINTER, "is a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"PAR1", "is a Parquet file", "dataset=parquet"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it, and name the files that it holds"),
    (b"Rar!\x1a\x07", "is a rar archive", "unpack it, and name the files that it holds"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4", "decompress it, or compress it with gzip, bzip2, xz or zstd"),
    (b"%PDF-", "is a PDF file", "convert it to UTF-8 text"),
    (b"\xff\xfe", "is UTF-16 or UTF-32 text", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "is UTF-16 text", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    (b"ARROW1", "is an Arrow file", "write it as Parquet, and set dataset=parquet"),
)


def strip_compression(name: str) -> str:
    """Return a file name without the ending of a compressed file, such as .gz."""
    return next((name.removesuffix(kind.ending) for kind in COMPRESSIONS if name.endswith(kind.ending)), name)


@contextmanager
def open_file(file: str) -> Iterator[BufferedIOBase]:
    """Open a file for reading its bytes, decompressed if it is compressed, whatever its name.

    Raises: ConfigError, also while the file is read, if it cannot be read, is cut off or damaged, has the ending of a
        compressed file without being one, or is of a kind that holds no text itself, such as an archive.
    """
    with explain_failures(file), open(file, "rb") as plain:
        head = plain.read(HEAD)
        _refuse_foreign(file, head)
        compression = next((kind for kind in COMPRESSIONS if kind.magic.match(head)), None)
        if compression is None:
            if head and (named := next((kind for kind in COMPRESSIONS if file.endswith(kind.ending)), None)):
                problem = f"has the ending {named.ending}, but is not compressed like that"
                raise ConfigError(SETTING, file, problem, f"fetch the file again, or rename it without {named.ending}")
            plain.seek(0)
            yield plain
            return
        with compression.open(file) as stream:
            inside = stream.peek(HEAD)[:HEAD] if hasattr(stream, "peek") else b""
            _refuse_foreign(file, inside, "holds what ")
            yield stream


def _refuse_foreign(file: str, head: bytes, before: str = "") -> None:
    """Check that a file, or what is compressed in it, begins like text. Raises: ConfigError."""
    for magic, problem, fix in FOREIGN:
        if head.startswith(magic) and not (magic == LFS_POINTER and len(head) == HEAD):  # a pointer is short
            raise ConfigError(SETTING, file, before + problem, fix)
    if head[257:262] == b"ustar":
        raise ConfigError(SETTING, file, before + "is a tar archive", "unpack it, and name the files that it holds")


@contextmanager
def explain_failures(file: str) -> Iterator[None]:
    """Turn the errors of reading or decompressing a file into a ConfigError. Raises: ConfigError."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from None
    except OSError as error:
        if error.errno is None:  # from a library that decompresses
            raise _damaged(file, error) from None
        fix = "make sure that it exists and that you may read it"
        raise ConfigError(SETTING, file, f"cannot be read ({error.strerror})", fix) from None


def _damaged(file: str, error: Exception) -> ConfigError:
    return ConfigError(SETTING, file, f"is cut off or damaged ({first_line(error)})", "fetch the file again")


def decode_utf8(data: bytes, file: str, where: str = "") -> str:
    """Return UTF-8 text. `where`: the row in the file, for the message of an error. Raises: ConfigError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"{where}is not UTF-8 text ({error.reason}, 0x{data[error.start]:02x}, at byte {error.start})"
        raise ConfigError(SETTING, file, problem, "convert the file to UTF-8, or narrow the glob") from None


def check_parquet_magic(file: str) -> None:
    """Check that a file begins like a Parquet file. Raises: ConfigError."""
    with explain_failures(file), open(file, "rb") as stream:
        head = stream.read(HEAD)
    if head.startswith(b"PAR1"):
        return
    _refuse_foreign(file, head)
    is_compressed = any(kind.magic.match(head) for kind in COMPRESSIONS)
    problem = "is compressed as a whole, as Parquet files are not" if is_compressed else "is not a Parquet file"
    fix = "decompress it" if is_compressed else "fetch it again, or set the format that it has, such as dataset=json"
    raise ConfigError(SETTING, file, problem, fix)
