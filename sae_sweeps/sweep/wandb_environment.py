"""Checks the W&B settings in environment variables and in W&B's settings file, before the first point starts.

W&B itself reads them when a run starts, and a run that could not start is missing for ever. wandb is imported only if
there is something to check.
"""

import configparser
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.errors import ConfigError, first_line

PREFIX = "WANDB_"
SECRETS = ("KEY", "TOKEN", "PASSWORD", "SECRET", "HEADERS")  # in the name of a variable whose value is never shown
FOLDERS = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
# these would give every point the identity or the history of another run
REFUSED = ("WANDB_SWEEP_ID", "WANDB_FORK_FROM", "WANDB_RESUME_FROM")
LONGEST_VALUE = 60  # characters of a value that a message shows
# what to set instead of a wrong value; any other variable is best removed
FIXES = {
    "WANDB_API_KEY": "set it to the key of your W&B settings page, without spaces, or unset it and run `wandb login`",
    "WANDB_BASE_URL": "give the whole address: WANDB_BASE_URL=https://HOST",
    "WANDB_PROJECT": "unset it and set tracking.project=NAME tracking.entity=TEAM",
    "WANDB_ENTITY": "unset it and set tracking.entity=TEAM",
    "WANDB_MODE": "unset it and set tracking=online, offline or off",
    **dict.fromkeys(FOLDERS, "set it to a folder that you can write to, or unset it"),
}


def find_problem(environment: Mapping[str, str] | None = None) -> ConfigError | None:
    """Return an error for the first W&B variable with a value that W&B cannot use; None if all are usable.

    environment: the variables; None for those of this process
    """
    given = os.environ if environment is None else environment
    variables = {name: value for name, value in given.items() if name.startswith(PREFIX)}
    file = Path(variables.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    if not variables and not file.is_file():
        return None
    try:
        import wandb  # noqa: F401  a broken installation raises errors of any kind
    except Exception as error:
        broken = f"the package wandb cannot be imported ({first_line(error)})"
        return ConfigError("tracking", "offline or online", broken, "pip install --upgrade wandb, or tracking=off")
    for name, value in sorted(variables.items()):
        if (problem := _find_problem_of(name, value)) is not None:
            fix = FIXES.get(name, f"correct it, or run `unset {name}`")
            shown = " ".join(value.split())
            return ConfigError(name, "..." if _is_secret(name) else shown[:LONGEST_VALUE], problem, fix)
    if file.is_file() and (problem := _find_file_problem(file)) is not None:
        return ConfigError("W&B's settings file", file, problem, "correct the file or delete it")
    return None


def _is_secret(name: str) -> bool:
    return any(word in name for word in SECRETS)


def _find_problem_of(name: str, value: str) -> str | None:
    """Return what is wrong with the value of a variable; None if W&B can use it. A secret is not in the text."""
    if name == "WANDB_API_KEY":
        return _find_key_problem(value)
    if name == "WANDB_ENTITY" and not re.fullmatch(r"[\w.-]*", value):
        return "must be the name of a user or team, of letters, digits, - and _"
    if name in REFUSED and value:
        return "would make every point a part of another W&B run"
    if name in FOLDERS and value:
        return _find_folder_problem(Path(value).expanduser())
    problem = _find_wandb_problem({name: value})
    return "W&B cannot use it" if problem is not None and _is_secret(name) else problem


def _find_key_problem(key: str) -> str | None:
    """Return what is wrong with an API key, with the rules of W&B where they can be imported."""
    if not key:
        return None  # W&B takes it as not set
    if not key.isascii():
        return "has a letter that no key has"
    if any(letter.isspace() for letter in key):
        return "has a blank or a line break in it"
    try:
        from wandb.sdk.lib.wbauth.validation import check_api_key
    except ImportError:  # not a part of W&B's public interface
        return None if len(key) >= 40 else "is too short for an API key"
    problem = check_api_key(key)
    return None if problem is None else problem.rstrip(".").replace("API key ", "", 1)


def _find_folder_problem(folder: Path) -> str | None:
    """Return why the folder, or the closest parent that exists, cannot be written; None if it can be."""
    try:
        existing = next(level for level in (folder.absolute(), *folder.absolute().parents) if level.exists())
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def _find_wandb_problem(variables: dict[str, str]) -> str | None:
    """Return why W&B refuses these variables; None if it reads them."""
    from wandb import Settings

    try:
        if "WANDB_SERVICE" in variables:
            from wandb.sdk.lib.service import service_token

            service_token.from_env()
        Settings(mode="offline").update_from_env_vars(variables)
    except ImportError:
        return None
    except Exception as error:
        return f"W&B refuses it: {describe_wandb_error(error)}"
    return None


def _find_file_problem(file: Path) -> str | None:
    """Return why W&B refuses its settings file, which it would only leave unread; None if it reads the file."""
    from wandb import Settings

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
        for section in parser.sections():
            for name, value in parser[section].items():
                given: dict[str, Any] = {name: value}
                if name in Settings.model_fields and name not in ("anonymous", "ignore_globs"):
                    Settings(**given)
    except Exception as error:
        return f"W&B refuses it: {describe_wandb_error(error)}"
    return None


def describe_wandb_error(error: Exception) -> str:
    """Return the reason in an error of W&B in one line, without the address of pydantic's manual."""
    listed: Any = getattr(error, "errors", None)  # pydantic.ValidationError, whose first line says nothing
    try:
        text = str(listed()[0]["msg"]) if callable(listed) else first_line(error)
    except (LookupError, TypeError):
        text = first_line(error)
    return " ".join(text.split()).removeprefix("Value error, ").rstrip(".")
