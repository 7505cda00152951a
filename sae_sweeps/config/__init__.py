"""The configuration: one dataclass per group of conf/, how it is read, checked and named. Nothing here needs torch."""

from sae_sweeps.config.conversion import from_json, to_config
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
    "point_name",
    "to_config",
]
