"""Quality of an SAE on held-out text: reconstruction, sparsity, and what the language model loses by it."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

import logging

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.saes import SAE

log = logging.getLogger(__name__)

BATCH = 2048  # activations


@torch.no_grad()
def evaluate(sae: SAE, model: LanguageModel, data: HeldOut) -> dict[str, float]:
    """The metrics of a point.

    nmse: mean over activations of |x - x_hat|^2 / |x - mean_D(x)|^2 (arXiv:2502.04878)
    fvu: sum |x - x_hat|^2 / sum |x - mean_A(x)|^2, elsewhere called 1 - explained variance
    l0: active latents per activation, with the selection used at inference
    dead_fraction: latents active on none of the held-out activations
    ce_degradation: nats per token lost with reconstructions in place of activations
    ce_recovered_zero, ce_recovered_mean: 1 if nothing is lost, 0 if as much as by zero or mean ablation
    """
    reconstructions: list[Tensor] = []
    ratio_sum = active = 0.0
    fired_F = torch.zeros(sae.dict_size, dtype=torch.bool, device=sae.W_dec.device)
    acts_AD = data.acts_AD
    for x_BD in acts_AD.split(BATCH):
        normalized = sae.normalize(x_BD)
        kept = sae.find_active(normalized)
        recon_BD = sae.reconstruct(kept, normalized)
        error_B = (x_BD - recon_BD).square().sum(1).double()
        spread_B = (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1).double()
        ratio_sum += (error_B / spread_B).sum().item()
        active_N = kept.active
        active += active_N.sum().item()
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
        "l0": active / count,
        "dead_fraction": 1 - fired_F.float().mean().item(),
        "ce_degradation": ce - data.ce,
        "ce_recovered_zero": (data.ce_zero - ce) / (data.ce_zero - data.ce),
        "ce_recovered_mean": (data.ce_mean - ce) / (data.ce_mean - data.ce),
        "ce_model": data.ce,
        "ce_reconstruction": ce,
        "held_out_tokens": count,
    }
