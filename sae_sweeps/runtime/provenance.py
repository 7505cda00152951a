"""The provenance of a result: the commit of the code, and the versions of Python and the packages."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import read_json

PROJECT = Path(__file__).resolve().parents[2]
FILE = "provenance.json"  # in a snapshot of the code, which is not a git work tree
PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "datasets", "hydra-core", "numpy")


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Return the git commit, whether the work tree had changes, and the Python and package versions."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        **commit(),
        "python": platform.python_version(),
        "packages": versions,
    }


def commit() -> dict[str, Any]:
    """Return the git commit of the code and whether the work tree had changes. A snapshot has those of its original."""
    if (recorded := read_json(PROJECT / FILE)) is not None:
        return recorded
    commit = _git("rev-parse", "HEAD")
    changes = bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "uncommitted_changes": changes}


def _git(*arguments: str) -> str | None:
    """Return the output of a git command, None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
