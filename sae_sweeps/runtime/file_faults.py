"""What is wrong with a file that a library could not read: a Git LFS pointer, a cut file, a file without access."""

import json
import os
from pathlib import Path
from typing import BinaryIO

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SMALL_JSON_BYTES = 2**20  # a larger JSON file is not parsed, only its end is looked at
LONGEST_HEADER = 100 * 2**20  # bytes; longer headers are refused by safetensors

FETCH_AGAIN = "fetch the file again"


def find_file_fault(path: Path) -> tuple[str, str] | None:
    """Return what is wrong with a file, and how to mend it; None if nothing is found.

    The problem follows on the file's name: "is a Git LFS pointer ...". Only the first bytes of a file are read, of JSON
    below 1 MiB all: weights of any size take no time.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                return "is a Git LFS pointer, not the file itself", "git lfs pull"
            if size == 0:
                return "is empty", FETCH_AGAIN
            file.seek(0)
            if path.suffix == ".safetensors":
                return _find_cut_safetensors(file, size)
            if path.suffix == ".json":
                return _find_broken_json(file, size)
    except OSError as error:
        return f"cannot be read ({error.strerror})", "make sure that it exists and that you may read it"
    return None


def list_tensors(path: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file in which `find_file_fault` finds nothing wrong."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def _find_cut_safetensors(file: BinaryIO, size: int) -> tuple[str, str] | None:
    length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER or size < 8:
        return "is not a safetensors file", FETCH_AGAIN
    if size < 8 + length:
        return f"is cut: it has {size:,} bytes, fewer than its header", FETCH_AGAIN
    try:
        header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return "has a header that is not one of safetensors", FETCH_AGAIN
    if size != expected:
        return f"is cut or damaged: it has {size:,} bytes instead of {expected:,}", FETCH_AGAIN
    return None


def _find_broken_json(file: BinaryIO, size: int) -> tuple[str, str] | None:
    if size > SMALL_JSON_BYTES:
        file.seek(-16, os.SEEK_END)
        return None if file.read().rstrip().endswith((b"}", b"]")) else ("is cut: its JSON has no end", FETCH_AGAIN)
    try:
        json.loads(file.read().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})", FETCH_AGAIN
    return None
