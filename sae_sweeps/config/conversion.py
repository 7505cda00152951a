"""Conversions to `Config`: from a configuration that Hydra composed, and from JSON."""

import copy
from dataclasses import fields, is_dataclass
from typing import Any

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
    """Rebuild a `Config` from the nested dictionary that `dataclasses.asdict` made of it and a JSON file kept."""
    coefficients = values["model"]["sparsity_coefficients"]
    by_k = {int(k): value for k, value in coefficients["values"].items()}  # JSON's keys are strings
    model = {**values["model"], "sparsity_coefficients": {**coefficients, "values": by_k}}
    return _build(Config, {**values, "model": model})


def _build(schema: Any, values: dict[str, Any]) -> Any:
    """Build an instance of the dataclass `schema` from nested values. A field without a value keeps the default.

    Strings stay as they are, even where OmegaConf would interpolate them: "${...}".
    """
    arguments = {}
    for field_ in fields(schema):
        if field_.name in values:
            value = values[field_.name]
            inner = SAE_SCHEMAS[value["architecture"]] if field_.name == "sae" else field_.type
            arguments[field_.name] = _build(inner, value) if is_dataclass(inner) else copy.copy(value)
    return schema(**arguments)
