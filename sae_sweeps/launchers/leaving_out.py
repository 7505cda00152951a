"""Leaves combinations of values out of a sweep, as the setting `leave_out` says."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config.fields import list_settings
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import suggest

SETTING = "leave_out"
NONE = f"'{SETTING}=[]'"


def leave_out(configs: Sequence[DictConfig], *, may_be_all: bool = False) -> list[DictConfig]:
    """Return the points of a sweep that match no entry of their setting `leave_out`.

    A point matches an entry if it has, for every name in it, the value or one of the values that are listed. A name is
    that of a setting, or of a group with the choice as the value (`sae: jumprelu`).

    configs: the points as Hydra composed them, with `hydra`
    may_be_all: whether every point may be left out, as of a batch that is not the whole command
    Raises: ConfigError for an entry that is empty or has an unknown name, and if no point is left.
    """
    kept = [config for config in configs if not any(_matches(config, entry) for entry in _read_entries(config))]
    if configs and not kept and not may_be_all:
        problem = f"leaves nothing of this command's {pluralize(len(configs), 'combination')} of values"
        raise ConfigError(SETTING, _format(_read_entries(configs[0])), problem, f"give other values, or {NONE}")
    return kept


def _read_entries(config: DictConfig) -> list[dict[str, Any]]:
    """Return the entries of a point's setting. Raises: ConfigError for an entry that is empty or has another name."""
    if not config[SETTING]:
        return []
    entries: Any = OmegaConf.to_container(config[SETTING], resolve=True)
    known = {*_choices(config), *(name for name, _ in list_settings() if name != SETTING)}
    for entry in entries:
        if not entry:
            problem = "has an entry without settings, which every point would match"
            raise ConfigError(SETTING, _format(entries), problem, f"remove the entry, or {NONE}")
        for name in entry:
            if name not in known:
                problem = f"names {name}, which is neither a setting nor a group"
                raise ConfigError(SETTING, _format(entries), problem, suggest(name, sorted(known)))
    return list(entries)


def _choices(config: DictConfig) -> dict[str, str | None]:
    """Return the choices of a point: group -> file in conf/GROUP, for groups that a command names."""
    choices = config.hydra.runtime.choices
    return {group: choice for group, choice in choices.items() if "/" not in group and "@" not in group}


def _matches(config: DictConfig, entry: Mapping[str, Any]) -> bool:
    choices = _choices(config)
    for name, wanted in entry.items():
        value = choices[name] if name in choices else OmegaConf.select(config, name)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _format(value: Any) -> str:
    """Return entries as the command line takes them."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_format(one)}' for name, one in value.items())}}}"
    return f"[{','.join(map(_format, value))}]" if isinstance(value, list) else str(value)
