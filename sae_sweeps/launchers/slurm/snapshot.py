"""Copies the code into the sweep's folder, so that later edits do not change jobs that are still queued."""

import hashlib
import shutil
from pathlib import Path

from sae_sweeps.runtime import provenance
from sae_sweeps.runtime.leftovers import temporary_path
from sae_sweeps.runtime.places import CODE
from sae_sweeps.runtime.records import name_owner, write_record

PACKAGE = "sae_sweeps"
SUFFIXES = (".py", ".html", ".css", ".js")  # suffixes of the files that are copied


def copy_code(folder: Path) -> Path:
    """Copy the package sae_sweeps to folder/code-HASH, where HASH depends on the content, and return this subfolder.

    All jobs with the same code share the copy. provenance.json in the copy has the git commit, and whether there were
    uncommitted changes.
    """
    files = sorted(file for file in (CODE / PACKAGE).rglob("*") if file.suffix in SUFFIXES)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(CODE)}\0".encode() + file.read_bytes() + b"\0")
    commit = provenance.commit()
    digest.update(repr(commit).encode())
    target = folder / f"code-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    partial = temporary_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    for file in files:
        copy = partial / file.relative_to(CODE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    write_record(partial / provenance.FILE, commit, name_owner(target / provenance.FILE))
    partial.rename(target)
    return target
