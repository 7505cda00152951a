"""Hydra's and OmegaConf's errors, told like our own: the setting, its value, what is wrong, the fix."""

import dataclasses
import difflib
import re
from collections.abc import Iterator

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from sae_sweeps.config import Config
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.errors import ConfigError

LAUNCHER_SETTINGS = [f"hydra.launcher.{field.name}" for field in dataclasses.fields(Settings)]


def as_config_error(error: HydraException | OmegaConfBaseException) -> ConfigError | None:
    """The same error in one line, or None if it is of a kind that is not known here."""
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = sorted(error.options)
        near = difflib.get_close_matches(choice, options, n=1, cutoff=0) or options
        fix = f"{group}={near[0]}" + f", or sae=./{choice} for an SAE in that folder" * (group == "sae")
        return ConfigError(group, choice, f"no such choice; there are {', '.join(options)}", fix)
    if isinstance(error, OverrideParseException):
        setting, _, value = str(error.override).partition("=")
        return ConfigError(setting, value, "cannot be parsed", "quote special characters, as in 'key=\"a, b\"'")
    if ambiguous := re.match(r"Ambiguous value for argument '([^=']+)=(.*)'", str(error)):
        setting, value = ambiguous.groups()
        return ConfigError(setting, value, "is several values", f"add -m to sweep over them, or {setting}=[{value}]")
    if isinstance(error, ConfigCompositionException):
        override = re.search(r"override '?([^\s=']+)(?:=(\S*))?", str(error))
        cause = error.__cause__
        if override is None or cause is None:
            return None
        setting, value = override[1], override[2]
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
            known = list(dict.fromkeys([*settings(), *LAUNCHER_SETTINGS]))
            near = difflib.get_close_matches(setting, known, n=3, cutoff=0.4)
            if value is None:
                appended = re.search(r"use \+\S+?=(\S*)", str(error))
                value = appended[1] if appended else ""
            if setting.startswith("hydra.launcher.sbatch."):
                return ConfigError(setting, value, "is not among them yet; a + in front adds it", f"+{setting}={value}")
            if setting in known and setting.startswith("sae."):
                have = [name for name, schema in SAE_SCHEMAS.items() if hasattr(schema(), setting[4:])]
                return ConfigError(setting, value, f"is a setting of {', '.join(have)} alone", f"sae={have[0]}")
            problem = "no such setting" + (f"; near names: {', '.join(near)}" if near else "")
            return ConfigError(setting, value, problem, "python launch.py --help lists all settings")
        if isinstance(cause, ValidationError):
            return ConfigError(setting, value or "", str(cause).splitlines()[0], "give a value of that type")
    return None


def settings(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """The full names of all settings, those of every SAE architecture included."""
    for field in dataclasses.fields(schema):
        if field.name == "sae":
            for architecture in SAE_SCHEMAS.values():
                yield from settings(architecture, "sae.")
        elif dataclasses.is_dataclass(field.type):
            yield from settings(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}"
