"""What is wrong with a file that a library could not read: a Git LFS pointer, a cut file, a file without access."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from sae_sweeps.runtime.errors import first_line

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # first bytes of a Git LFS pointer
SMALL_JSON_BYTES = 2**20  # a larger JSON file is not parsed, only its end is looked at
LONGEST_HEADER = 100 * 2**20  # bytes; longer headers are refused by safetensors

PAGE = (b"<!doctype html", b"<html")  # first bytes of a web page, in lower case

FETCH_AGAIN = "fetch the file again"
DOWNLOAD_AGAIN = "download or copy it again"


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


def explain_unreadable(file: Path, error: Exception) -> tuple[str, str]:
    """Return what is wrong with a file that could not be read, and a fix, each in one line.

    error: the error with which reading failed; its text is given if the file itself does not show the cause
    """
    try:
        if not file.exists():
            return f"there is no file {file.name}", DOWNLOAD_AGAIN
        if file.is_dir():
            return f"{file.name} is a folder, not a file", "name the folder that contains the files"
        with open(file, "rb") as stream:
            head = stream.read(len(LFS_POINTER))
    except OSError as failed:
        return f"{file.name} cannot be read ({failed.strerror or failed})", _explain_permission(file)
    if not head:
        return f"{file.name} is empty", DOWNLOAD_AGAIN
    if head.startswith(LFS_POINTER):
        return f"{file.name} is a Git LFS pointer, not the content", "run `git lfs pull` in its repository"
    if head.lstrip().lower().startswith(PAGE):
        return f"{file.name} is a web page, not the content", f"{DOWNLOAD_AGAIN}, with a login if it needs one"
    return f"{file.name} is damaged, cut short or of another kind ({_describe(error)})", DOWNLOAD_AGAIN


def _explain_permission(file: Path) -> str:
    if os.access(file.parent, os.X_OK):
        return f"ask the owner for permission to read it (chmod a+r {file.name})"
    return f"ask the owner for permission to enter the folder (chmod a+rx {file.parent})"


def _describe(error: Exception) -> str:
    return f"the entry {error} is missing" if isinstance(error, KeyError) else first_line(error)
