"""Translates errors of Hydra and OmegaConf to a ConfigError, which names setting, value, problem and fix."""

import dataclasses
import difflib
import re
import shlex

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from sae_sweeps.cli.quoting import find_kind, unquote_values
from sae_sweeps.config.commands import format_setting, program
from sae_sweeps.config.fields import list_settings
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.errors import ConfigError

LAUNCHER_SETTINGS = [f"hydra.launcher.{field.name}" for field in dataclasses.fields(Settings)]


def translate_error(error: HydraException | OmegaConfBaseException) -> ConfigError | None:
    """Return a ConfigError that explains an error of Hydra or OmegaConf; None for an error without an explanation."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause  # raised by one of our resolvers
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        return _explain_unknown_choice(str(error.missing_cfg_file), sorted(error.options))
    if isinstance(error, OverrideParseException):
        setting, _, value = str(error.override).partition("=")
        fix = "quote special characters, as in 'key=\"a, b\"'"
        return ConfigError(setting, value, "cannot be parsed by Hydra", fix)
    if ambiguous := re.match(r"Ambiguous value for argument '([^=']+)=(.*)'", str(error)):
        setting, value = ambiguous.groups()
        return ConfigError(setting, value, "must be one value, but has several", _fix_several_values(setting, value))
    if isinstance(error, ConfigCompositionException):
        return _explain_override(error)
    return None


def _fix_several_values(setting: str, value: str) -> str:
    """Return the fix for a setting with commas in a command without -m."""
    if setting == "name":
        return "give one name; task=report takes several"
    kind = find_kind(setting)
    if kind is not None and not kind.lists:
        return f"add -m to sweep over them, or {format_setting(setting, ','.join(unquote_values(value)))} for one text"
    return f"add -m to sweep over them, or {shlex.quote(f'{setting}=[{value}]')} for a list"


def _explain_unknown_choice(file: str, options: list[str]) -> ConfigError:
    """Return an error for a choice, such as sae=topk, that has no file in conf/, with the nearest option as the fix.

    file: GROUP/CHOICE without suffix
    options: names of the files in conf/GROUP
    """
    group, _, choice = file.rpartition("/")
    near = difflib.get_close_matches(choice, options, n=1, cutoff=0) or options
    saved = f", or {format_setting('sae', f'./{choice}')} for an SAE in that folder"
    fix = f"{group}={near[0]}" + saved * (group == "sae")
    return ConfigError(group, choice, f"must be one of {', '.join(options)}", fix)


def _explain_override(error: ConfigCompositionException) -> ConfigError | None:
    """Return an error for a command-line setting that does not exist or has a value of the wrong type.

    None if Hydra refused the command line for another reason.
    """
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
        fix = f"give {setting} a value of the type that the message names"
        return ConfigError(setting, value or "", str(cause).splitlines()[0], fix)
    return None


def _explain_unknown_setting(setting: str, value: str) -> ConfigError:
    """Return an error for a setting that does not exist, with a fix.

    The fix is a + for an option of sbatch, another architecture that has the setting, or the list of all settings.
    """
    known = list(dict.fromkeys([*(name for name, _ in list_settings()), *LAUNCHER_SETTINGS]))
    if setting.startswith("hydra.launcher.sbatch."):
        problem = "is not in conf/hydra/launcher/slurm.yaml; to add an option of sbatch, write + in front of it"
        return ConfigError(setting, value, problem, format_setting(f"+{setting}", value))
    if setting in known and setting.startswith("sae."):
        owners = [name for name, schema in SAE_SCHEMAS.items() if hasattr(schema(), setting.removeprefix("sae."))]
        problem = f"can be used only with sae={' or sae='.join(owners)}"
        return ConfigError(setting, value, problem, f"sae={owners[0]}")
    near = difflib.get_close_matches(setting, known, n=3, cutoff=0.4)
    problem = "there is no such setting" + (f"; similar names are {', '.join(near)}" if near else "")
    return ConfigError(setting, value, problem, f"see {program()} --help for a list of all settings")
