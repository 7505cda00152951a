"""Translates errors of Hydra and OmegaConf into this project's form: the setting, its value, the problem, the fix."""

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


def translate_error(error: HydraException | OmegaConfBaseException) -> ConfigError | None:
    """Return the same error as a ConfigError; None for a kind of error that is not known here."""
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        return _explain_unknown_choice(str(error.missing_cfg_file), sorted(error.options))
    if isinstance(error, OverrideParseException):
        setting, _, value = str(error.override).partition("=")
        return ConfigError(setting, value, "cannot be parsed", "quote special characters, as in 'key=\"a, b\"'")
    if ambiguous := re.match(r"Ambiguous value for argument '([^=']+)=(.*)'", str(error)):
        setting, value = ambiguous.groups()
        fix = f"add -m to sweep over them, or {setting}=[{value}] for a list"
        return ConfigError(setting, value, "has several values", fix)
    if isinstance(error, ConfigCompositionException):
        return _explain_override(error)
    return None


def _explain_unknown_choice(file: str, options: list[str]) -> ConfigError:
    """Explain that a group of conf/ has no such file."""
    group, _, choice = file.rpartition("/")
    near = difflib.get_close_matches(choice, options, n=1, cutoff=0) or options
    fix = f"{group}={near[0]}" + f", or sae=./{choice} for an SAE in that folder" * (group == "sae")
    return ConfigError(group, choice, f"no such choice; choose one of {', '.join(options)}", fix)


def _explain_override(error: ConfigCompositionException) -> ConfigError | None:
    """Explain why a setting on the command line cannot be set: there is no such setting, or its type is another."""
    override = re.search(r"override '?([^\s=']+)(?:=(\S*))?", str(error))
    cause = error.__cause__
    if override is None or cause is None:
        return None
    setting, value = override[1], override[2]
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        if value is None:
            appended = re.search(r"use \+\S+?=(\S*)", str(error))
            value = appended[1] if appended else ""
        return _explain_unknown_setting(setting, value)
    if isinstance(cause, ValidationError):
        return ConfigError(setting, value or "", str(cause).splitlines()[0], "give a value of that type")
    return None


def _explain_unknown_setting(setting: str, value: str) -> ConfigError:
    """Explain that there is no such setting here; the fix depends on whether another choice or a `+` would help."""
    known = list(dict.fromkeys([*list_settings(), *LAUNCHER_SETTINGS]))
    if setting.startswith("hydra.launcher.sbatch."):
        problem = "is not among the listed options of sbatch; a + in front adds it"
        return ConfigError(setting, value, problem, f"+{setting}={value}")
    if setting in known and setting.startswith("sae."):
        owners = [name for name, schema in SAE_SCHEMAS.items() if hasattr(schema(), setting.removeprefix("sae."))]
        return ConfigError(setting, value, f"is a setting only of {', '.join(owners)}", f"sae={owners[0]}")
    near = difflib.get_close_matches(setting, known, n=3, cutoff=0.4)
    problem = "no such setting" + (f"; near names: {', '.join(near)}" if near else "")
    return ConfigError(setting, value, problem, "python launch.py --help lists all settings")


def list_settings(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Yield the full names of all settings, including those of every SAE architecture."""
    for field in dataclasses.fields(schema):
        if field.name == "sae":
            for architecture in SAE_SCHEMAS.values():
                yield from list_settings(architecture, "sae.")
        elif dataclasses.is_dataclass(field.type):
            yield from list_settings(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}"
