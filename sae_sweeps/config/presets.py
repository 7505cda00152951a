"""Settings that a caller passes to a function, for example in a notebook, checked as those of the command are."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf

from sae_sweeps.config.resolvers import register
from sae_sweeps.config.schema import Config, DatasetConfig, ModelConfig, SAEConfig, TaskConfig, TrainingConfig
from sae_sweeps.config.studies import MetaConfig, StitchConfig
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.provenance import PROJECT

GROUPS = {TrainingConfig: "training", StitchConfig: "stitch", MetaConfig: "meta"}  # names on the command line

SettingsT = TypeVar("SettingsT", TrainingConfig, StitchConfig, MetaConfig)
GroupT = TypeVar("GroupT", ModelConfig, DatasetConfig)


def build_config(**parts: Any) -> Config:
    """Build a complete configuration from some of its fields and valid placeholders for the others."""
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
    """Build and check the settings of one group from a dataclass, from single values by name, or from both.

    `values` override `base`; without `base` the others are the defaults.

    Raises: TypeError if the group has no setting of a name; ConfigError, naming the first value that cannot work.
    """
    settings = replace(base or schema(), **values)
    group = GROUPS[schema]
    for name, value in vars(settings).items():
        if value == MISSING:
            raise ConfigError(f"{group}.{name}", None, "has no default", f"give {name}=...")
    for problem in find_problems(build_config(**{group: settings})):
        if problem.setting.startswith(f"{group}."):
            raise problem
    return settings


def list_presets(group: str) -> dict[str, Path]:
    """Return the files of a group of conf/, by name."""
    return {file.stem: file for file in sorted((PROJECT / "conf" / group).glob("*.yaml"))}


def load_preset(group: str, name: str, schema: type[GroupT]) -> GroupT:
    """Return the settings of a file in conf/<group>. Raises: ConfigError if there is no file of this name."""
    files = list_presets(group)
    if name not in files:
        problem = f"is none of {', '.join(files)}, the files in conf/{group}"
        raise ConfigError(group, name, problem, f"one of these, or {schema.__name__}(...) with your own settings")
    register()  # the files use the resolvers
    preset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(files[name])))
    assert isinstance(preset, schema), "merged into a structured config"
    return preset
