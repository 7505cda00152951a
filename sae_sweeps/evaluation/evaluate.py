"""Metrics of an SAE on held-out text: reconstruction, sparsity, and the language model's cross-entropy."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.saes import SAE

BATCH = 2048  # activations in a batch


@torch.no_grad()
def evaluate(sae: SAE, model: LanguageModel, data: HeldOut) -> dict[str, float]:
    """Return the metrics of an SAE on held-out activations x with reconstructions x_hat, by name.

    nmse: mean over activations of |x - x_hat|^2 / |x - mean_D(x)|^2 (arXiv:2502.04878); mean_D is over the entries of x
    fvu: sum |x - x_hat|^2 / sum |x - mean_A(x)|^2, also known as 1 - explained variance; mean_A is over activations
    l0: mean number of active latents per activation, with the selection used at inference
    dead_fraction: share of latents that are active on none of the held-out activations
    ce_degradation: increase of the model's cross-entropy, in nats per token, when reconstructions replace activations
    ce_recovered_zero, ce_recovered_mean: 1 for no increase, 0 for the increase under zero or mean ablation
    ce_model, ce_reconstruction: the model's cross-entropy, in nats per token, without and with the reconstructions
    held_out_tokens: number of held-out activations
    """
    reconstructions: list[Tensor] = []
    ratio_sum = active_sum = 0.0
    fired_F = torch.zeros(sae.dict_size, dtype=torch.bool, device=sae.W_dec.device)
    acts_AD = data.acts_AD
    for x_BD in acts_AD.split(BATCH):
        normalized = sae.normalize(x_BD)
        kept = sae.find_active(normalized)
        recon_BD = sae.reconstruct(kept, normalized)
        error_B = (x_BD - recon_BD).square().sum(1).double()
        spread_B = (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1).double()
        ratio_sum += (error_B / spread_B).sum().item()
        active_sum += kept.active.sum().item()
        fired_F |= kept.find_fired()
        reconstructions.append(recon_BD)
    recon_AD = torch.cat(reconstructions)
    count = len(acts_AD)
    residual = (acts_AD - recon_AD).double().square().sum()
    variance = (acts_AD - acts_AD.mean(0)).double().square().sum()
    ce = data.cross_entropy_with(model, recon_AD)
    return {
        "nmse": ratio_sum / count,
        "fvu": (residual / variance).item(),
        "l0": active_sum / count,
        "dead_fraction": 1 - fired_F.float().mean().item(),
        "ce_degradation": ce - data.ce,
        "ce_recovered_zero": (data.ce_zero - ce) / (data.ce_zero - data.ce),
        "ce_recovered_mean": (data.ce_mean - ce) / (data.ce_mean - data.ce),
        "ce_model": data.ce,
        "ce_reconstruction": ce,
        "held_out_tokens": count,
    }
