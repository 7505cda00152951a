"""Folders in which libraries keep files between runs: what a user without a writable home gets instead."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from sae_sweeps.runtime import leftovers

# caches that may be lost after the run: of W&B, of fonts, and of compiled GPU code
PASSING = ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
WITHOUT_HOME = ("WANDB_CONFIG_DIR", "NETRC", "XDG_DATA_HOME")  # W&B does not start if it cannot find the home of these


def provide_caches() -> None:
    """Give libraries a temporary folder for their caches if there is no writable home, until this process ends.

    Those of killed processes are removed. Variables that the user has set stay. The hub's cache is none of these: what
    is downloaded there should stay.
    """
    leftovers.remove_leftovers(Path(tempfile.gettempdir()), below=False)
    places = (Path(os.path.expanduser("~")), Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")))
    if all(is_writable(place) for place in places):
        return
    folder = tempfile.mkdtemp(prefix="sae-sweeps-caches-", suffix=leftovers.suffix())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable in (*PASSING, *(() if places[0].is_absolute() else WITHOUT_HOME)):
        os.environ.setdefault(variable, os.path.join(folder, variable.lower()))


def is_writable(folder: Path) -> bool:
    """Return whether files can be written in a folder, which need not exist yet. False for a path that is relative.

    A path below ~ stays relative if the user has no home.
    """
    if not folder.is_absolute():
        return False
    existing = next(level for level in (folder, *folder.parents) if os.path.lexists(level))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
