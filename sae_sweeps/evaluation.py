"""Quality of an SAE on held-out text: reconstruction, sparsity, and what the language model loses by it."""

# N sequences, S positions, A held-out activations, B activations in a batch, D model width, F latents

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.errors import first_line
from sae_sweeps.language.model import LanguageModel
from sae_sweeps.saes import SAE

log = logging.getLogger(__name__)

BATCH = 2048  # activations
SEQUENCES_TRIED = 4


@dataclass
class HeldOut:
    """Held-out sequences, their activations, and the language model's cross entropy (nats per token) on them: as it
    is, and with the activations replaced by zero and by their mean."""

    tokens_NS: Tensor
    acts_NSD: Tensor
    first_position: int
    from_hook: bool  # whether replaced activations need only the layers above the hook
    ce: float = 0.0
    ce_zero: float = 0.0
    ce_mean: float = 0.0

    @property
    def acts_AD(self) -> Tensor:
        return self.acts_NSD[:, self.first_position :].flatten(0, 1)

    def cross_entropy_with(self, model: LanguageModel, acts_AD: Tensor) -> float:
        """Cross entropy with `acts_AD` in place of the activations from `first_position` on."""
        per_sequence = acts_AD.unflatten(0, (len(self.tokens_NS), -1))

        def replace(original: Tensor, first: int) -> Tensor:
            sequences = slice(first, first + len(original))
            return torch.cat([self.acts_NSD[sequences, : self.first_position], per_sequence[sequences]], dim=1)

        return model.cross_entropy(self.tokens_NS, replace, self.first_position, from_hook=self.from_hook)


def held_out(model: LanguageModel, tokens_NS: Tensor, first_position: int) -> HeldOut:
    """Measure the language model itself. Positions before `first_position` (a BOS) are never counted or replaced."""
    data = HeldOut(tokens_NS, model.activations(tokens_NS), first_position, _starts_at_hook(model, tokens_NS))
    acts_AD = data.acts_AD
    data.ce = model.cross_entropy(tokens_NS, first_position=first_position)
    data.ce_zero = data.cross_entropy_with(model, torch.zeros_like(acts_AD))
    data.ce_mean = data.cross_entropy_with(model, acts_AD.mean(0).expand_as(acts_AD))
    return data


def _starts_at_hook(model: LanguageModel, tokens_NS: Tensor) -> bool:
    """Whether running only the layers above the hook gives the same; tried, for not every architecture can."""
    if not model.can_start_at_hook:
        return False
    few_NS = tokens_NS[:SEQUENCES_TRIED]
    acts_NSD = model.activations(few_NS)
    try:
        ce = model.cross_entropy(few_NS, lambda acts, first: acts_NSD[first : first + len(acts)], from_hook=True)
    except Exception as error:
        log.info("the whole model is run for each evaluation (%s)", first_line(error))
        return False
    expected = model.cross_entropy(few_NS)
    if not math.isclose(ce, expected, rel_tol=1e-5):
        log.info("the whole model is run for each evaluation (its upper layers alone give %g, not %g)", ce, expected)
        return False
    return True


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
