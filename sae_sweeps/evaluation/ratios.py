"""The division behind every ratio among the metrics, and the reasons for which a metric has no value.

A ratio has no value, None, where there is nothing to divide by. It is never NaN or infinite for that reason, so a
metric that is NaN or infinite means that something went wrong (`require_numbers`).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sae_sweeps.runtime.errors import TrainingError

if TYPE_CHECKING:  # the report reads metrics, and starts sooner without torch
    from torch import Tensor

NO_SPREAD = 1e-12  # a variance below this share of the squared norm is rounding: (1e-6)^2, float32 has 6e-8
CE_ROUNDING = 1e-5  # two cross-entropies that differ by less than this share are equal but for rounding

REASONS = {  # metric -> why it has no value
    "nmse": "no held-out activation has a spread over its entries",
    "fvu": "all held-out activations are equal",
    "top_variance_share": "all held-out activations are equal",
    "ce_recovered_zero": "zeros in place of the activations do not change the cross-entropy",
    "ce_recovered_mean": "the mean in place of the activations does not change the cross-entropy",
    **dict.fromkeys(
        ("nmse_at_k", "l0_at_k", "l0_at_k_error", "ce_degradation_at_k", "threshold_factor"),
        "more than k latents have a threshold of 0, so no factor on the thresholds gives an L0 of k",
    ),
    "auroc": "all active latents change the MSE in the same direction, or no latent is active",
    "best_threshold": "all active latents change the MSE in the same direction, or no latent is active",
    "novel_lowering_share": "no novel latent is active",
    "reconstruction_lowering_share": "no reconstruction latent is active",
    "explained_variance": "all decoder directions are equal",
}
# the other metrics of studies, by the start of their name
REASONS_BY_START = {
    "nmse": REASONS["nmse"],
    "explained_variance": REASONS["explained_variance"],
    "paired": "the SAEs have too many latents for a one-to-one assignment in 8 GiB of memory",
}


def divide(part: float, whole: float, rounding: float = 0.0) -> float | None:
    """Return part / whole, or None if there is nothing to divide by: |whole| is at most `rounding`."""
    return None if abs(whole) <= rounding else part / whole


def format_number(value: float | None, spec: str) -> str:
    """Return a number as text in a format such as ".4f", or "none"."""
    return "none" if value is None else format(value, spec)


def complement(ratio: float | None) -> float | None:
    """Return 1 - ratio, or None if the ratio has no value."""
    return None if ratio is None else 1 - ratio


def compute_spread(x_BD: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return |x - mean_D(x)|^2 of activations (B, D), (B,) in float64, and which of them have a spread, bool (B,).

    Activations whose entries are all equal, but for rounding, have no spread; the NMSE leaves them out.
    """
    spread_B = (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1).double()
    return spread_B, spread_B > NO_SPREAD * x_BD.square().sum(1).double()


def explain_missing(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the reason for each metric that is None, by name."""
    return {name: _find_reason(name) for name, value in metrics.items() if value is None}


def _find_reason(name: str) -> str:
    name = name.removesuffix("_text")
    if name in REASONS:
        return REASONS[name]
    starts = (reason for start, reason in REASONS_BY_START.items() if name.startswith(start))
    return next(starts, "it has no value for this SAE")


def require_numbers(metrics: Mapping[str, Any], advice: str) -> None:
    """Check that every metric is a finite number, or None. `advice`: a sentence on what to do, for the message.

    Raises: TrainingError that names the metrics that are not.
    """
    wrong = [f"{name} is {value}" for name, value in metrics.items() if isinstance(value, float) and _is_wrong(value)]
    if wrong:
        raise TrainingError(f"there are no results, because metrics are not finite: {', '.join(wrong)}. {advice}")


def _is_wrong(value: float) -> bool:
    return not math.isfinite(value)


def describe_metrics(metrics: Mapping[str, float | None]) -> str:
    """Return metrics as one line of text, with the reason after each that has no value."""
    missing = explain_missing(metrics)
    return ", ".join(
        f"{name} none ({missing[name]})" if value is None else f"{name} {value:.4g}" for name, value in metrics.items()
    )
