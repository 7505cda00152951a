"""Where a result comes from: the code's commit and the versions of what it ran on."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sae_sweeps.config import PROJECT

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
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "python": platform.python_version(),
        "packages": versions,
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
