"""Metrics of an SAE on held-out text: reconstruction, sparsity, and the language model's cross-entropy."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

import math

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.evaluation.ratios import CE_ROUNDING, NO_SPREAD, compute_spread, divide
from sae_sweeps.saes import SAE, TrainableSAE

BATCH = 2048  # activations in a batch
TOP_SHARE = 0.01  # share of the activations, those farthest from the mean, whose share of the variance is measured


@torch.no_grad()
def evaluate(sae: SAE, model: LanguageModel, data: HeldOut) -> dict[str, float | None]:
    """Return the metrics of an SAE on held-out activations x with reconstructions x_hat, by name.

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
    """
    sae = sae.for_inference() if isinstance(sae, TrainableSAE) else sae
    reconstructions: list[Tensor] = []
    ratio_sum, active_sum, with_spread = 0.0, 0.0, 0
    fired_F = torch.zeros(sae.dict_size, dtype=torch.bool, device=sae.W_dec.device)
    acts_AD = data.acts_AD
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
    ce, rounding = data.cross_entropy_with(model, recon_AD), CE_ROUNDING * data.ce
    return {
        "nmse": divide(ratio_sum, with_spread),
        **_measure_variance(acts_AD, recon_AD),
        "l0": active_sum / count,
        "dead_fraction": 1 - fired_F.float().mean().item(),
        "ce_degradation": ce - data.ce,
        "ce_recovered_zero": divide(data.ce_zero - ce, data.ce_zero - data.ce, rounding),
        "ce_recovered_mean": divide(data.ce_mean - ce, data.ce_mean - data.ce, rounding),
        "ce_model": data.ce,
        "ce_reconstruction": ce,
        "held_out_tokens": count,
        "held_out_left_out": data.left_out,
        "without_spread": count - with_spread,
    }


def _measure_variance(acts_AD: Tensor, recon_AD: Tensor) -> dict[str, float | None]:
    """Return `fvu` and `top_variance_share` of `evaluate`."""
    residual = (acts_AD - recon_AD).double().square().sum().item()
    squared_A = (acts_AD - acts_AD.mean(0)).double().square().sum(1)
    variance = squared_A.sum().item()
    top = squared_A.topk(math.ceil(TOP_SHARE * len(acts_AD)), sorted=False).values.sum().item()
    rounding = NO_SPREAD * acts_AD.double().square().sum().item()
    return {"fvu": divide(residual, variance, rounding), "top_variance_share": divide(top, variance, rounding)}
