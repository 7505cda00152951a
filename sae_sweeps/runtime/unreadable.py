"""Explains why a file cannot be read: what it is instead, and what to do about it."""

import os
from pathlib import Path

from sae_sweeps.runtime.errors import first_line

POINTER = b"version https://git-lfs.github.com/spec/"  # first bytes of a Git LFS pointer
PAGE = (b"<!doctype html", b"<html")  # first bytes of a web page, in lower case
FETCH_AGAIN = "download or copy it again"


def explain_unreadable(file: Path, error: Exception) -> tuple[str, str]:
    """Return what is wrong with a file that could not be read, and a fix, each in one line.

    error: the error with which reading failed; its text is given if the file itself does not show the cause
    """
    try:
        if not file.exists():
            return f"there is no file {file.name}", FETCH_AGAIN
        if file.is_dir():
            return f"{file.name} is a folder, not a file", "name the folder that contains the files"
        with open(file, "rb") as stream:
            head = stream.read(len(POINTER))
    except OSError as failed:
        return f"{file.name} cannot be read ({failed.strerror or failed})", _explain_permission(file)
    if not head:
        return f"{file.name} is empty", FETCH_AGAIN
    if head.startswith(POINTER):
        return f"{file.name} is a Git LFS pointer, not the content", "run `git lfs pull` in its repository"
    if head.lstrip().lower().startswith(PAGE):
        return f"{file.name} is a web page, not the content", f"{FETCH_AGAIN}, with a login if it needs one"
    return f"{file.name} is damaged, cut short or of another kind ({_describe(error)})", FETCH_AGAIN


def _explain_permission(file: Path) -> str:
    if os.access(file.parent, os.X_OK):
        return f"ask the owner for permission to read it (chmod a+r {file.name})"
    return f"ask the owner for permission to enter the folder (chmod a+rx {file.parent})"


def _describe(error: Exception) -> str:
    return f"the entry {error} is missing" if isinstance(error, KeyError) else first_line(error)
