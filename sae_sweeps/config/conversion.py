"""Conversions to `Config`: from a configuration that Hydra composed, and from JSON."""

import copy
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf, open_dict

from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config, get_setting
from sae_sweeps.runtime.devices import resolve_dtype
from sae_sweeps.runtime.paths import expand

# settings that are paths, or may be: a model and a data set have names on the hub as well
PATHS = (
    "output_root", "model.name", "dataset.name", "dataset.files", "activations.cache", "export.folder", "small",
    "large", "saved",
)  # fmt: skip


def to_config(cfg: DictConfig) -> Config:
    """Convert a configuration that Hydra composed to a `Config`.

    `sae` becomes the dataclass of the chosen architecture, model.dtype=auto the dtype for this machine, and `~` and
    environment variables in paths are expanded.
    Raises: ConfigError if a path cannot be expanded.
    """
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)  # Hydra's own settings are not in the schema
        cfg.model.dtype = resolve_dtype(cfg.model.dtype, cfg.device)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config), "conf/config.yaml must start from the schema"
    _expand_paths(config)
    return config


def _expand_paths(config: Config) -> None:
    for setting in PATHS:
        group, _, name = setting.rpartition(".")
        holder = get_setting(config, group) if group else config
        value = getattr(holder, name)
        if isinstance(value, list):
            setattr(holder, name, [expand(one, setting) if isinstance(one, str) else one for one in value])
        elif isinstance(value, str):
            setattr(holder, name, expand(value, setting))


def from_json(values: dict[str, Any]) -> Config:
    """Rebuild a `Config` from the nested dictionary that `dataclasses.asdict` made of it and a JSON file kept.

    Raises: ValueError if the dictionary is none of those, as one from a damaged file.
    """
    try:
        coefficients = values["model"]["sparsity_coefficients"]
        by_k = {int(k): value for k, value in coefficients["values"].items()}  # JSON's keys are strings
        model = {**values["model"], "sparsity_coefficients": {**coefficients, "values": by_k}}
        config: Config = _build(Config, {**values, "model": model})
        if min(config.training.batch_size, config.training.chunk_batches, config.dict_size) < 1:
            raise ValueError("a size must be positive")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"these are not the settings of a point ({error})") from None
    return config


def is_config(values: Any) -> bool:
    """Return whether `from_json` can rebuild a `Config` from a JSON value."""
    try:
        from_json(values)
    except ValueError:
        return False
    return True


def _build(schema: Any, values: dict[str, Any]) -> Any:
    """Build an instance of the dataclass `schema` from nested values. A field without a value keeps the default.

    Strings stay as they are, even where OmegaConf would interpolate them: "${...}".
    Raises: TypeError for a value of another type than the field's.
    """
    arguments = {}
    for field_ in fields(schema):
        if field_.name in values:
            value = values[field_.name]
            inner = SAE_SCHEMAS[value["architecture"]] if field_.name == "sae" else field_.type
            if not is_dataclass(inner) and not _fits(value, inner):
                raise TypeError(f"{field_.name} is {value!r}")
            arguments[field_.name] = _build(inner, value) if is_dataclass(inner) else copy.copy(value)
    return schema(**arguments)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value from JSON has the type of a field: a plain type, a list, a dictionary, or one of several.

    A whole number is a float too, but true and false are no numbers.
    """
    if kind is Any:
        return True
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_fits(value, one) for one in inner)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if kind is NoneType:
        return value is None
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
