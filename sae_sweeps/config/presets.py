"""Builds settings for callers in Python, for example a notebook, with the same checks as on the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf

from sae_sweeps.config.resolvers import register
from sae_sweeps.config.schema import Config, DatasetConfig, ModelConfig, SAEConfig, TaskConfig, TrainingConfig
from sae_sweeps.config.studies import MetaConfig, StitchConfig
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.places import PROJECT

GROUPS = {
    TrainingConfig: "training",
    StitchConfig: "stitch",
    MetaConfig: "meta",
}  # names on the command line

SettingsT = TypeVar("SettingsT", TrainingConfig, StitchConfig, MetaConfig)
GroupT = TypeVar("GroupT", ModelConfig, DatasetConfig)


def build_config(**parts: Any) -> Config:
    """Build a complete `Config` from some fields. Required fields that are not given get valid placeholders."""
    placeholders: dict[str, Any] = {
        "name": "library",
        "dict_size": 1,
        "k": 1,
        "task": TaskConfig(name="train"),
        "model": ModelConfig(name="none", hook="none"),
        "dataset": DatasetConfig(format="text", files="none"),
        "sae": SAEConfig(architecture="topk"),
        "training": TrainingConfig(tokens=1, batch_size=1),
    }
    return Config(**(placeholders | parts))


def build_settings(schema: type[SettingsT], base: SettingsT | None, values: dict[str, Any]) -> SettingsT:
    """Build and check the settings of one group.

    base: settings to start from; None: the defaults of `schema`
    values: setting -> value, which replaces the value in `base`
    Raises: TypeError if the group has no setting of that name; ConfigError for the first value that cannot work.
    """
    settings = replace(base or schema(), **values)
    group = GROUPS[schema]
    for name, value in vars(settings).items():
        if value == MISSING:
            raise ConfigError(f"{group}.{name}", None, "must be given: it has no default", f"give {name}=...")
    for problem in find_problems(build_config(**{group: settings})):
        if problem.setting.startswith(f"{group}."):
            raise problem
    return settings


def list_presets(group: str) -> dict[str, Path]:
    """Return the YAML files in conf/<group>: name without suffix -> path, sorted by name."""
    return {file.stem: file for file in sorted((PROJECT / "conf" / group).glob("*.yaml"))}


def load_preset(group: str, name: str, schema: type[GroupT]) -> GroupT:
    """Load the settings in conf/<group>/<name>.yaml as a `schema`. Raises: ConfigError if there is no such file."""
    files = list_presets(group)
    if name not in files:
        problem = f"must be one of the files in conf/{group}: {', '.join(files)}"
        fix = f"choose one of these, or pass {schema.__name__}(...) with your own settings"
        raise ConfigError(group, name, problem, fix)
    register()  # the files use the resolvers
    preset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(files[name])))
    assert isinstance(preset, schema), "merged into a structured config"
    return preset
