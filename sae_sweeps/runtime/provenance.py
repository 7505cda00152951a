"""Where a result comes from: the code's commit and the versions of what it ran on."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import read_json

PROJECT = Path(__file__).resolve().parents[2]
FILE = "provenance.json"  # beside a copy of the code that is in no work tree
PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "datasets", "hydra-core", "numpy")


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Git commit, whether the work tree had changes, Python and package versions."""
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
    """The code's git commit, and whether the work tree had changes; of a snapshot, those of what it is a copy of."""
    if (noted := read_json(PROJECT / FILE)) is not None:
        return noted
    commit = _git("rev-parse", "HEAD")
    changes = bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "uncommitted_changes": changes}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
