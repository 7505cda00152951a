"""The code as it was submitted, kept with the sweep: what is edited afterwards does not reach jobs that wait."""

import hashlib
import os
import shutil
from pathlib import Path

from sae_sweeps.runtime import provenance
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.provenance import PROJECT

PACKAGE = "sae_sweeps"
KINDS = (".py", ".html", ".css", ".js")


def snapshot(folder: Path) -> Path:
    """A copy of this package in `folder`, named by its content: made once for all jobs that run the same code.

    Beside it stands the commit, and whether there were changes to it (provenance.json).
    """
    files = sorted(file for file in (PROJECT / PACKAGE).rglob("*") if file.suffix in KINDS)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(PROJECT)}\0".encode() + file.read_bytes() + b"\0")
    commit = provenance.commit()
    digest.update(repr(commit).encode())
    target = folder / f"code-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    partial = folder / f".code-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    for file in files:
        copy = partial / file.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    write_json(partial / provenance.FILE, commit)
    partial.rename(target)
    return target
