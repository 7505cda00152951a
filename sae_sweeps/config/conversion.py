"""The configuration from Hydra's and from JSON."""

import copy
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config
from sae_sweeps.runtime.devices import resolve_dtype


def to_config(cfg: DictConfig) -> Config:
    """The composed configuration as dataclasses; `sae` is the schema of its architecture."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)  # Hydra's own part, which the schema does not describe
        cfg.model.dtype = resolve_dtype(cfg.model.dtype, cfg.device)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config), "conf/config.yaml starts from the schema"
    return config


def from_json(values: dict[str, Any]) -> Config:
    """The configuration that `dataclasses.asdict` took apart and a JSON file kept."""
    coefficients = values["model"]["sparsity_coefficients"]
    of_k = {int(k): value for k, value in coefficients["values"].items()}  # JSON's keys are strings
    model = {**values["model"], "sparsity_coefficients": {**coefficients, "values": of_k}}
    return _build(Config, {**values, "model": model})


def _build(schema: Any, values: dict[str, Any]) -> Any:
    """A dataclass and those in it. What is text stays text, whatever OmegaConf would read in it."""
    given = {}
    for field_ in fields(schema):
        if field_.name in values:
            value = values[field_.name]
            inner = SAE_SCHEMAS[value["architecture"]] if field_.name == "sae" else field_.type
            given[field_.name] = _build(inner, value) if is_dataclass(inner) else copy.copy(value)
    return schema(**given)
