"""Expands `~` and environment variables in the paths that settings name."""

import os
import re
from pathlib import Path

from sae_sweeps.runtime.errors import ConfigError

VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
PREFIX = re.compile(r"[a-z_]+:(?=[~$])")  # the format in front of a folder, for example sae_lens:~/sae


def expand(path: str, setting: str) -> str:
    """Return a path with `~` and `~user` at its start, and `$VARIABLE` anywhere, replaced.

    A $ is kept in a path that exists as it is.

    path: a path or a glob; `FORMAT:` in front of it is kept
    setting: setting that contains the path, for error messages
    Raises: ConfigError if there is no such user or variable, or if the home folder is not known.
    """
    if not set(path) & {"~", "$"}:
        return path
    prefix = match[0] if (match := PREFIX.match(path)) else ""
    expanded = path.removeprefix(prefix)
    if not os.path.lexists(expanded):
        expanded = VARIABLE.sub(lambda name: _read_variable(name[1], path, setting), expanded)
    if not expanded.startswith("~"):
        return prefix + expanded
    with_home = os.path.expanduser(expanded)
    if with_home.startswith("~"):
        user = expanded.partition("/")[0].removeprefix("~")
        problem = f"there is no user {user}" if user else "the home folder is not known"
        fix = "write the whole path" + (f", or ./{expanded} for a folder here" if user else ", or set HOME")
        raise ConfigError(setting, path, problem, fix)
    return prefix + with_home


def expand_folder(path: str | Path, setting: str) -> Path:
    """Return `expand` of a path as a Path. Raises: ConfigError as `expand` does."""
    return Path(expand(str(path), setting))


def _read_variable(name: str, path: str, setting: str) -> str:
    if name not in os.environ:
        problem, fix = f"the environment variable {name} is not set", f"set {name}, or write the whole path"
        raise ConfigError(setting, path, problem, fix)
    return os.environ[name]
