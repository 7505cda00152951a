"""Settings that are given to a function, by a notebook say, and not composed by the command: held to the same rules."""

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

GROUPS = {TrainingConfig: "training", StitchConfig: "stitch", MetaConfig: "meta"}  # as the command names them

Settings = TypeVar("Settings", TrainingConfig, StitchConfig, MetaConfig)
Group = TypeVar("Group", ModelConfig, DatasetConfig)


def build_config(**parts: Any) -> Config:
    """A configuration with these parts, and with others that are in nobody's way."""
    plain: dict[str, Any] = {
        "name": "library",
        "dict_size": 1,
        "k": 1,
        "task": TaskConfig(name="train"),
        "model": ModelConfig(name="none", hook="none"),
        "dataset": DatasetConfig(format="text", files="none"),
        "sae": SAEConfig(architecture="topk"),
        "training": TrainingConfig(tokens=1, batch_size=1),
    }
    return Config(**(plain | parts))


def build_settings(schema: type[Settings], given: Settings | None, values: dict[str, Any]) -> Settings:
    """Settings as a caller has them: a dataclass, single values by name, or both, of which the values count.

    Raises: TypeError if there is no setting of such a name; ConfigError, naming the first value that cannot work.
    """
    settings = replace(given or schema(), **values)
    group = GROUPS[schema]
    for name, value in vars(settings).items():
        if value == MISSING:
            raise ConfigError(f"{group}.{name}", None, "has no default", f"give {name}=...")
    for problem in find_problems(build_config(**{group: settings})):
        if problem.setting.startswith(f"{group}."):
            raise problem
    return settings


def presets(group: str) -> dict[str, Path]:
    """The files of a group of conf/, by name."""
    return {file.stem: file for file in sorted((PROJECT / "conf" / group).glob("*.yaml"))}


def preset(group: str, name: str, schema: type[Group]) -> Group:
    """What conf/ has under a name. Raises: ConfigError if it has nothing."""
    there = presets(group)
    if name not in there:
        problem = f"is none of {', '.join(there)}, which conf/{group} has"
        raise ConfigError(group, name, problem, f"{schema.__name__}(...) has all that can be set")
    register()  # the resolvers that the files use
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(there[name])))
    assert isinstance(found, schema), "made from it"
    return found
