"""Translates errors of Hydra and OmegaConf to a ConfigError, which names setting, value, problem and fix."""

import difflib
import functools
import re
import shlex
from typing import Any, get_args

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from sae_sweeps.cli.quoting import find_kind, list_types, unquote_values
from sae_sweeps.config.commands import format_setting, program
from sae_sweeps.config.reference import CHOSEN
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.runtime.errors import ConfigError

GROUPS = (
    "sae",
    "task",
    "training",
    "model",
    "dataset",
    "evaluation",
    "meta",
    "tracking",
    "experiment",
    "hydra/launcher",
)
PLUGINS = {name: f"hydra-{name}-sweeper" for name in ("optuna", "ax", "nevergrad")}  # sweeper -> Python package
NAMED = 3  # similar names that an error lists
SIMILAR = 0.65  # least similarity of names, from 0 to 1; with less, wrong suggestions come first
TYPES = {int: "a whole number", float: "a number", bool: "true or false"}


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
    if group == "hydra/sweeper" and choice in PLUGINS:
        return ConfigError(
            group, choice, "needs a Python package that is not installed", f"pip install {PLUGINS[choice]}"
        )
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
        return ConfigError(setting, value or "", str(cause).splitlines()[0], _name_type(setting))
    return None


def _explain_unknown_setting(setting: str, value: str) -> ConfigError:
    """Return an error for a setting that does not exist, with a fix.

    The fix is a + for an option of sbatch, the architecture or launcher that has the setting, the most similar name, or
    the list of all settings.
    """
    if setting.startswith("hydra.launcher.sbatch."):
        problem = "is not in conf/hydra/launcher/slurm.yaml; to add an option of sbatch, write + in front of it"
        return ConfigError(setting, value, problem, format_setting(f"+{setting}", value))
    if setting in _known_settings() and setting.startswith("sae."):
        owners = [name for name, schema in SAE_SCHEMAS.items() if hasattr(schema(), setting.removeprefix("sae."))]
        problem = f"can be used only with sae={' or sae='.join(owners)}"
        return ConfigError(setting, value, problem, f"sae={owners[0]}")
    if setting in _known_settings() and setting.startswith("hydra.launcher."):
        problem = "can be used only with hydra/launcher=slurm"
        return ConfigError(setting, value, problem, "add hydra/launcher=slurm, or leave the setting out")
    near = _find_similar(setting)
    if not near:
        fix = f"see {program()} --help for a list of all settings"
        return ConfigError(setting, value, "there is no such setting", fix)
    problem = f"there is no such setting; similar names are {', '.join(near)}"
    return ConfigError(setting, value, problem, shlex.quote(f"{near[0]}={value}"))


@functools.cache
def _known_settings() -> dict[str, Any]:
    """Return the types of all settings that a command may name, by full name, those of results first."""
    return {name: annotation for name, annotation in list_types().items() if name not in CHOSEN}


def _find_similar(setting: str) -> list[str]:
    """Return settings and groups with a similar name: with the same last part, then similar in whole or in that part.

    `lr` is training.lr, and `sae.k` is k.
    """
    known = [*GROUPS, *_known_settings()]
    group, last = _split_name(setting)
    by_last: dict[str, list[str]] = {}
    for name in known:
        by_last.setdefault(_split_name(name)[1], []).append(name)
    same = sorted(by_last.get(last, []), key=lambda name: not _split_name(name)[0].startswith(group or "?"))
    whole = difflib.get_close_matches(setting, known, n=NAMED, cutoff=SIMILAR)
    parts = difflib.get_close_matches(last, by_last, n=NAMED, cutoff=SIMILAR)
    return list(dict.fromkeys([*same, *whole, *(name for part in parts for name in by_last[part])]))[:NAMED]


def _split_name(setting: str) -> tuple[str, str]:
    """Return the group of a setting ("" if there is none) and the last part of its name."""
    group, _, last = setting.lstrip("+~").replace("/", ".").rpartition(".")
    return group, last


def _name_type(setting: str) -> str:
    """Return the fix for a value of the wrong type."""
    annotation = _known_settings().get(setting)
    types = get_args(annotation) or (annotation,)
    name = next((TYPES[one] for one in types if one in TYPES), "a value of the type that the message names")
    return f"give {setting} {name}" + ", or null" * (type(None) in types)
