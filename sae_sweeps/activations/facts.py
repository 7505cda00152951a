"""Sizes of what activations come from: of a language model, or of a planted dictionary."""

from sae_sweeps.activations.model_info import ModelInfo, read_model_info
from sae_sweeps.config import Config


def read_facts(config: Config, to_plan: bool = False) -> ModelInfo:
    """Return the sizes of the language model of a configuration, without loading it, or of its planted dictionary.

    A planted dictionary has no layers and no vocabulary.
    Raises: ConfigError as `read_model_info` does. `to_plan`: as there
    """
    if not config.dataset.is_synthetic:
        return read_model_info(config.model.name, to_plan)
    synthetic = config.synthetic
    drawn = synthetic.features * (1 + synthetic.correlation_rank * (synthetic.correlation > 0))
    return ModelInfo(0, synthetic.dim, 0, None, (), drawn=drawn + round(synthetic.active * synthetic.dim))
