"""Collects the provenance of a result: the git commit of the code, and the versions of Python and of packages."""

import json
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from sae_sweeps.runtime.places import CODE, DISTRIBUTION, IS_INSTALLED
from sae_sweeps.runtime.records import read_record

FILE = "provenance.json"  # file with the commit in a snapshot of the code, which is not a git work tree
SHAPE = {"commit": (str, None), "uncommitted_changes": (bool, None)}
PACKAGES = (
    DISTRIBUTION,
    "torch",
    "transformer-lens",
    "transformers",
    "tokenizers",
    "datasets",
    "hydra-core",
    "numpy",
)


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
    """Return the git commit of the code, and whether there are uncommitted changes; None for both if not known.

    In a snapshot of the code, provenance.json has the values of the original work tree. An installed package knows its
    commit only if pip installed it from a git address.
    """
    recorded: dict[str, Any] | None = read_record(CODE / FILE, SHAPE)
    if recorded is not None:
        return {name: recorded[name] for name in SHAPE}
    if IS_INSTALLED:
        commit = _installed_commit()
        return {"commit": commit, "uncommitted_changes": None if commit is None else False}
    commit = _git("rev-parse", "HEAD")
    changes = bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "uncommitted_changes": changes}


def _installed_commit() -> str | None:
    """Return the commit that pip recorded when it installed this package from a git address; None without one."""
    try:
        recorded = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        commit = recorded["vcs_info"]["commit_id"]
    except (PackageNotFoundError, ValueError, LookupError, TypeError):
        return None
    return commit if isinstance(commit, str) else None


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the checkout, without surrounding space; None if it fails."""
    try:
        done = subprocess.run(["git", "-C", CODE, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
