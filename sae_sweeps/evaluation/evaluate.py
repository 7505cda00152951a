"""Metrics of an SAE on held-out text: reconstruction, sparsity, and the language model's cross-entropy."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

import math
from typing import TypeAlias, cast, overload

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.evaluation.ratios import CE_ROUNDING, NO_SPREAD, compute_spread, divide
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, describe, require_type, to_activations
from sae_sweeps.saes import SAE, Activations, TrainableSAE

BATCH = 2048  # activations in a batch
# order of the metrics, in results.json as well
ORDER = (
    "nmse", "fvu", "top_variance_share", "l0", "dead_fraction", "ce_degradation", "ce_recovered_zero",
    "ce_recovered_mean", "ce_model", "ce_reconstruction", "held_out_tokens", "held_out_left_out", "without_spread",
)  # fmt: skip
TOP_SHARE = 0.01  # share of the activations, those farthest from the mean, whose share of the variance is measured
LOAD = "load_sae(FOLDER), or make a BatchTopKSAE, TopKSAE, JumpReLUSAE, ..."
BOTH = "evaluate(sae, stream.model, stream.held_out()), or evaluate(sae, acts) for the metrics without a language model"

Metrics: TypeAlias = dict[str, float | None]


@overload
def evaluate(sae: SAE, model: Activations | HeldOut) -> Metrics: ...


@overload
def evaluate(sae: SAE, model: LanguageModel | None, data: HeldOut) -> Metrics: ...


@overload
def evaluate(sae: SAE, model: None = None, *, data: Activations | HeldOut) -> Metrics: ...


@check_names
@torch.no_grad()
def evaluate(
    sae: SAE,
    model: LanguageModel | Activations | HeldOut | None = None,
    data: Activations | HeldOut | None = None,
) -> Metrics:
    """Return the metrics of an SAE on held-out activations x with reconstructions x_hat, by name.

    evaluate(sae, acts): of any activations (A, D) of the SAE's hook, without a language model and without `ce_...`
    evaluate(sae, model, data): with the language model; `data` is what `stream.held_out()` returns

    nmse: mean over activations of |x - x_hat|^2 / |x - mean_D(x)|^2 (arXiv:2502.04878); mean_D is over the entries of
        x. Activations without spread, whose entries are all equal, are left out
    fvu: sum |x - x_hat|^2 / sum |x - mean_A(x)|^2, also known as 1 - explained variance; mean_A is over activations
    l0: mean number of active latents per activation, with the selection used at inference
    dead_fraction: share of latents that are active on none of the held-out activations
    ce_degradation: increase of the model's cross-entropy, in nats per token, when reconstructions replace activations
    ce_recovered_zero, ce_recovered_mean: 1 for no increase, 0 for the increase under zero or mean ablation
    ce_model, ce_reconstruction: the model's cross-entropy, in nats per token, without and with the reconstructions
    top_variance_share: share of sum |x - mean_A(x)|^2 that the 1 % of the activations farthest from mean_A(x) hold
    held_out_tokens: number of held-out activations
    held_out_left_out: number of held-out positions left out because of their token (dataset.exclude)
    without_spread: number of activations without spread, which `nmse` leaves out

    A ratio is None where there is nothing to divide by (ratios.py). An SAE in training is evaluated as it is saved.
    Raises: ConfigError if an argument is of another type, or activations are not finite or of another shape.
    """
    require_type("sae", sae, SAE, "an SAE", LOAD)
    if data is None:
        model, data = None, model
    if model is not None and not hasattr(model, "cross_entropy"):
        raise ConfigError("model", describe(model), "must be a language model, and `data` what it was run on", BOTH)
    if data is None or not isinstance(data, HeldOut if model is not None else HeldOut | Activations):
        raise ConfigError("data", describe(data), "must be activations, those of held_out() with a model", BOTH)
    acts_AD = to_activations("acts", data, sae.d_in, device=sae.W_dec.device, dtype=sae.W_dec.dtype)
    if len(acts_AD) == 0:
        raise ConfigError("acts", 0, "there must be at least one activation", "give some thousands of activations")
    metrics, recon_AD = _measure_reconstruction(sae.for_inference() if isinstance(sae, TrainableSAE) else sae, acts_AD)
    if isinstance(data, HeldOut):
        metrics["held_out_left_out"] = data.left_out
        if model is not None:
            metrics |= _measure_cross_entropy(cast(LanguageModel, model), data, recon_AD)
    return {name: metrics[name] for name in ORDER if name in metrics}


def _measure_cross_entropy(model: LanguageModel, data: HeldOut, recon_AD: Tensor) -> Metrics:
    """Return the metrics of `evaluate` that need the language model, with reconstructions (A, D)."""
    ce, rounding = data.cross_entropy_with(model, recon_AD.to(data.acts_NSD.device)), CE_ROUNDING * data.ce
    return {
        "ce_degradation": ce - data.ce,
        "ce_recovered_zero": divide(data.ce_zero - ce, data.ce_zero - data.ce, rounding),
        "ce_recovered_mean": divide(data.ce_mean - ce, data.ce_mean - data.ce, rounding),
        "ce_model": data.ce,
        "ce_reconstruction": ce,
    }


def _measure_reconstruction(sae: SAE, acts_AD: Tensor) -> tuple[Metrics, Tensor]:
    """Return the metrics of `evaluate` that need no language model, and the reconstructions (A, D)."""
    reconstructions: list[Tensor] = []
    ratio_sum, active_sum, with_spread = 0.0, 0.0, 0
    fired_F = torch.zeros(sae.dict_size, dtype=torch.bool, device=sae.W_dec.device)
    for x_BD in acts_AD.split(BATCH):
        normalized = sae.normalize(x_BD)
        kept = sae.find_active(normalized)
        recon_BD = sae.reconstruct(kept, normalized)
        error_B = (x_BD - recon_BD).square().sum(1).double()
        spread_B, has_spread_B = compute_spread(x_BD)
        ratio_sum += (error_B / spread_B)[has_spread_B].sum().item()
        with_spread += int(has_spread_B.sum())
        active_sum += kept.active.sum().item()
        fired_F |= kept.find_fired()
        reconstructions.append(recon_BD)
    recon_AD, count = torch.cat(reconstructions), len(acts_AD)
    metrics: Metrics = {
        "nmse": divide(ratio_sum, with_spread),
        **_measure_variance(acts_AD, recon_AD),
        "l0": active_sum / count,
        "dead_fraction": 1 - fired_F.float().mean().item(),
        "held_out_tokens": count,
        "without_spread": count - with_spread,
    }
    return metrics, recon_AD


def _measure_variance(acts_AD: Tensor, recon_AD: Tensor) -> dict[str, float | None]:
    """Return `fvu` and `top_variance_share` of `evaluate`."""
    residual = (acts_AD - recon_AD).double().square().sum().item()
    squared_A = (acts_AD - acts_AD.mean(0)).double().square().sum(1)
    variance = squared_A.sum().item()
    top = squared_A.topk(math.ceil(TOP_SHARE * len(acts_AD)), sorted=False).values.sum().item()
    rounding = NO_SPREAD * acts_AD.double().square().sum().item()
    return {"fvu": divide(residual, variance, rounding), "top_variance_share": divide(top, variance, rounding)}
