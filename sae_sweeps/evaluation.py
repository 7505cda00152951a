"""Quality of an SAE on held-out text: reconstruction, sparsity, and what the language model loses by it."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.language.model import LanguageModel
from sae_sweeps.saes import SAE

BATCH = 2048  # activations


@dataclass
class HeldOut:
    """Held-out sequences, their activations, and the language model's cross entropy (nats per token) on them: as it
    is, and with the activations replaced by zero and by their mean."""

    tokens_NS: Tensor
    acts_AD: Tensor
    first_position: int
    ce: float
    ce_zero: float
    ce_mean: float


def held_out(model: LanguageModel, tokens_NS: Tensor, first_position: int) -> HeldOut:
    """Measure the language model itself. Positions before `first_position` (a BOS) are never counted or replaced."""
    acts_AD = model.activations(tokens_NS)[:, first_position:].flatten(0, 1)
    return HeldOut(
        tokens_NS,
        acts_AD,
        first_position,
        ce=model.cross_entropy(tokens_NS, first_position=first_position),
        ce_zero=_cross_entropy_with(model, tokens_NS, first_position, torch.zeros_like(acts_AD)),
        ce_mean=_cross_entropy_with(model, tokens_NS, first_position, acts_AD.mean(0).expand_as(acts_AD)),
    )


def _cross_entropy_with(model: LanguageModel, tokens_NS: Tensor, first_position: int, acts_AD: Tensor) -> float:
    """Cross entropy with `acts_AD` in place of the activations behind `first_position`."""
    per_sequence = acts_AD.unflatten(0, (len(tokens_NS), -1))

    def replace(original: Tensor, first_sequence: int) -> Tensor:
        new = per_sequence[first_sequence : first_sequence + len(original)]
        return torch.cat([original[:, :first_position], new.to(original.device)], dim=1)

    return model.cross_entropy(tokens_NS, replace, first_position)


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
    for x_BD in data.acts_AD.split(BATCH):
        normalized = sae.normalize(x_BD)
        kept = sae.active(normalized)
        recon_BD = sae.reconstruct(kept, normalized)
        error_B = (x_BD - recon_BD).square().sum(1).double()
        spread_B = (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1).double()
        ratio_sum += (error_B / spread_B).sum().item()
        active_N = kept.active
        active += active_N.sum().item()
        fired_F |= kept.fired()
        reconstructions.append(recon_BD)
    recon_AD = torch.cat(reconstructions)
    count = len(data.acts_AD)
    residual = (data.acts_AD - recon_AD).double().square().sum()
    variance = (data.acts_AD - data.acts_AD.mean(0)).double().square().sum()
    ce = _cross_entropy_with(model, data.tokens_NS, data.first_position, recon_AD)
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
