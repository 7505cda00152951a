"""Builds settings for callers in Python, for example a notebook, with the same checks as on the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ValidationError

from sae_sweeps.config.resolvers import register
from sae_sweeps.config.schema import Config, DatasetConfig, ModelConfig, SAEConfig, TaskConfig, TrainingConfig
from sae_sweeps.config.studies import MetaConfig, StitchConfig
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import describe, require_type, suggest, to_plain
from sae_sweeps.runtime.places import PROJECT

GROUPS = {
    TrainingConfig: "training",
    StitchConfig: "stitch",
    MetaConfig: "meta",
}  # names on the command line

KINDS = {  # type of a setting -> in words, and an example
    "int": ("a whole number", "1024"),
    "float": ("a number", "0.001"),
    "str": ("a text", "mean"),
    "list": ("a list of numbers", "[0.5, 0.9]"),
}

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
    values: setting -> value, which replaces the value in `base` unless it is None
    Raises: ConfigError for the first value that cannot work.
    """
    group = GROUPS[schema]
    if base is not None:
        fix = f"settings={schema.__name__}(...), or give the values by name"
        require_type("settings", base, schema, f"a {schema.__name__}", fix)
    given = {name: _convert(schema, name, value) for name, value in values.items() if value is not None}
    settings = replace(base or schema(), **given)
    for name, value in vars(settings).items():
        if value == MISSING:
            raise ConfigError(f"{group}.{name}", None, "must be given: it has no default", f"give {name}=...")
    for problem in find_problems(build_config(**{group: settings})):
        if problem.setting.startswith(f"{group}."):
            raise problem
    return settings


def _convert(schema: type[SettingsT], name: str, value: Any) -> Any:
    """Return a value in the type of a setting: numbers of numpy, and 1e6 for a whole number, as the command does.

    Raises: ConfigError if the value has another type.
    """
    typed, kind = OmegaConf.structured(schema), schema.__annotations__[name]
    kind_name = getattr(kind, "__name__", str(kind)).removesuffix(" | None")
    try:
        typed[name] = to_plain(value, whole=kind_name == "int")
    except ValidationError:
        kind_words, example = KINDS[kind_name]
        fix = f"{name}={example}, for example"
        raise ConfigError(f"{GROUPS[schema]}.{name}", describe(value), f"must be {kind_words}", fix) from None
    return OmegaConf.to_container(typed)[name]  # type: ignore[index,call-overload]


def list_presets(group: str) -> dict[str, Path]:
    """Return the YAML files in conf/<group>: name without suffix -> path, sorted by name."""
    return {file.stem: file for file in sorted((PROJECT / "conf" / group).glob("*.yaml"))}


def load_preset(group: str, name: str, schema: type[GroupT]) -> GroupT:
    """Load the settings in conf/<group>/<name>.yaml as a `schema`. Raises: ConfigError if there is no such file."""
    files = list_presets(group)
    if name not in files:
        problem = f"must be one of the files in conf/{group}: {', '.join(files)}"
        fix = f"{suggest(name, list(files))}, or pass {schema.__name__}(...) with your own settings"
        raise ConfigError(group, name, problem, fix)
    register()  # the files use the resolvers
    preset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(files[name])))
    assert isinstance(preset, schema), "merged into a structured config"
    return preset


def choose_model(given: str | Path | ModelConfig, hook: str | None) -> ModelConfig:
    """Return the settings of a model, with a hook. Raises: ConfigError if neither the caller nor conf/ names a hook."""
    fix = 'the name of a model, "gpt2" for example, its folder, or a ModelConfig'
    require_type("model", given, str | Path | ModelConfig, "a model's name, folder or ModelConfig", fix)
    require_type("hook", hook, str | None, "the name of a hook", 'hook="blocks.8.hook_resid_pre"')
    if not isinstance(given, ModelConfig):
        named = str(given) in list_presets("model")
        given = load_preset("model", str(given), ModelConfig) if named else ModelConfig(name=str(given))
    config = given if hook is None else replace(given, hook=hook)
    if config.hook == MISSING:
        raise ConfigError("hook", None, "this model has no default hook", "hook=blocks.LAYER.hook_resid_pre")
    return config
