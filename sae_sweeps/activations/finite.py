"""Checks that what a language model computes is finite, before an SAE is trained or measured on it."""

from torch import Tensor

from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError

FIXES = {
    "float16": "model.dtype=bfloat16 or model.dtype=float32, which have a larger range",
    "bfloat16": "model.dtype=float32, or check the model's weights",
    "float32": "check the model's weights: some of them may be damaged",
}


def require_finite(config: ModelConfig, values: Tensor, what: str) -> None:
    """Check that all values are finite. `what`: a plural for the values, such as "held-out activations".

    Raises: ConfigError that names `model.dtype` if some are not.
    """
    finite = values.isfinite()
    if bool(finite.all()):
        return
    bad = int((~finite).sum())
    cause = " (numbers above 65504 overflow it)" if config.dtype == "float16" else ""
    problem = (
        f"the {what} at {config.hook} are not finite in {config.dtype}{cause}: {bad:,} of {values.numel():,} are NaN "
        "or infinite"
    )
    raise ConfigError("model.dtype", config.dtype, problem, FIXES.get(config.dtype, FIXES["bfloat16"]))
