"""Collects the provenance of a result: the git commit of the code, and the versions of Python and of packages."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.records import read_record

PROJECT = Path(__file__).resolve().parents[2]
FILE = "provenance.json"  # file with the commit in a snapshot of the code, which is not a git work tree
SHAPE = {"commit": (str, None), "uncommitted_changes": (bool, None)}
PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "datasets", "hydra-core", "numpy")


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Return the git commit, whether there are uncommitted changes, and the versions of Python and of PACKAGES.

    Cached, so that all results of a process have the same provenance. An absent package has the version None.
    """
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
    """Return the git commit of the code, and whether there are uncommitted changes; None for both without git.

    In a snapshot of the code, provenance.json has the values of the original work tree.
    """
    recorded: dict[str, Any] | None = read_record(PROJECT / FILE, SHAPE)
    if recorded is not None:
        return {name: recorded[name] for name in SHAPE}
    commit = _git("rev-parse", "HEAD")
    changes = bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "uncommitted_changes": changes}


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the project's folder, without surrounding space; None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
