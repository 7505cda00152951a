"""Schemas of all settings, checks of their values, and the names of points. Nothing here imports torch."""

from sae_sweeps.config.conversion import from_json, is_config, to_config
from sae_sweeps.config.identity import point_name
from sae_sweeps.config.schema import (
    ActivationsConfig,
    CoefficientsConfig,
    Config,
    DatasetConfig,
    EvaluationConfig,
    LimitsConfig,
    ModelConfig,
    TaskConfig,
    TrackingConfig,
    TrainingConfig,
)

__all__ = [
    "ActivationsConfig",
    "CoefficientsConfig",
    "Config",
    "DatasetConfig",
    "EvaluationConfig",
    "LimitsConfig",
    "ModelConfig",
    "TaskConfig",
    "TrackingConfig",
    "TrainingConfig",
    "from_json",
    "is_config",
    "point_name",
    "to_config",
]
