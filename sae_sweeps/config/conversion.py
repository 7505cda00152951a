"""Conversions to `Config`: from a configuration that Hydra composed, and from JSON."""

import copy
import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf, open_dict

from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config, DatasetConfig, ModelConfig, get_setting
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.runtime.devices import resolve_dtype
from sae_sweeps.runtime.paths import expand

# settings that are paths, or may be: a model and a data set have names on the hub as well
PATHS = (
    "output_root", "model.name", "dataset.name", "dataset.files", "activations.cache", "export.folder", "small",
    "large", "saved", "steer.meta", "latents.labels", "saebench.python", "probe.data",
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
    if config.dataset.is_synthetic:
        _remove_model(config)
    return config


def _remove_model(config: Config) -> None:
    """Replace the settings of the language model and the text, which synthetic activations do not depend on."""
    config.model = ModelConfig(name=SYNTHETIC, hook=SYNTHETIC)
    config.dataset = DatasetConfig(format=SYNTHETIC, seed=config.dataset.seed)


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
    for name, inner, fits in _list_fields(schema):
        if name in values:
            value = values[name]
            if name == "sae":
                inner = SAE_SCHEMAS[value["architecture"]]
            if fits is not None and not fits(value):
                raise TypeError(f"{name} is {value!r}")
            arguments[name] = _build(inner, value) if fits is None else copy.copy(value)
    return schema(**arguments)


@functools.cache
def _list_fields(schema: Any) -> list[tuple[str, Any, Callable[[Any], bool] | None]]:
    """Return name, type and check of each field of a dataclass. The check of a field of another dataclass is None."""
    return [
        (field_.name, field_.type, None if is_dataclass(field_.type) else _make_check(field_.type))
        for field_ in fields(schema)
    ]


def _make_check(kind: Any) -> Callable[[Any], bool]:
    """Return the check that a value from JSON has a field's type: plain, a list, a dictionary, or one of several.

    A whole number is a float too, but true and false are no numbers.
    """
    if kind is Any:
        return lambda value: True
    if get_origin(kind) is UnionType:
        checks = [_make_check(one) for one in get_args(kind)]
        return lambda value: any(check(value) for check in checks)
    if get_origin(kind) is list:
        fits_item = _make_check(get_args(kind)[0])
        return lambda value: isinstance(value, list) and all(map(fits_item, value))
    if get_origin(kind) is dict:
        fits_entry = _make_check(get_args(kind)[1])
        return lambda value: isinstance(value, dict) and all(map(fits_entry, value.values()))
    if kind is NoneType:
        return lambda value: value is None
    types, is_bool = (int, float) if kind is float else kind, kind is bool
    return lambda value: isinstance(value, types) and (is_bool or not isinstance(value, bool))
