"""Reconstructions of held-out activations, with the metrics that need no language model."""

# A held-out activations, B activations in a batch, M of them with spread, D model width, F latents

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.evaluation.ratios import NO_SPREAD, compute_spread, divide
from sae_sweeps.saes import SAE
from sae_sweeps.saes.base import Normalized
from sae_sweeps.saes.sparse import RowSparse

BATCH = 2048  # activations in a batch
TOP_SHARE = 0.01  # share of the activations, those farthest from the mean, whose share of the variance is measured

Select = Callable[[int, Normalized], RowSparse]  # (index of the batch's first activation, the batch) -> active latents


@dataclass
class Reconstruction:
    """What an SAE makes of A activations with one selection of active latents.

    recon_AD: the reconstructions
    active_A: number of active latents of each activation, int32
    fired_F: which latents are active on at least one activation, bool
    nmse: as `evaluate` defines it
    without_spread: number of activations that it leaves out
    ratio_A: what it is the mean of, float64; 0 where an activation is left out
    has_spread_A: which activations are not left out, bool
    """

    recon_AD: Tensor
    active_A: Tensor
    fired_F: Tensor
    nmse: float | None
    without_spread: int
    ratio_A: Tensor
    has_spread_A: Tensor

    @property
    def l0(self) -> float:
        """Return the mean number of active latents per activation."""
        return self.active_A.sum().item() / len(self.active_A)


def reconstruct(sae: SAE, acts_AD: Tensor, select: Select | None = None) -> Reconstruction:
    """Reconstruct activations batch by batch. `select`: which latents are active; None: as at inference."""
    recon_AD = torch.empty_like(acts_AD)
    active_A = torch.empty(len(acts_AD), dtype=torch.int32, device=acts_AD.device)
    ratio_A = torch.zeros(len(acts_AD), dtype=torch.float64, device=acts_AD.device)
    has_spread_A = torch.zeros(len(acts_AD), dtype=torch.bool, device=acts_AD.device)
    ratio_sum = 0.0
    fired_F = torch.zeros(sae.dict_size, dtype=torch.bool, device=sae.W_dec.device)
    for first in range(0, len(acts_AD), BATCH):
        x_BD = acts_AD[first : first + BATCH]
        normalized = sae.normalize(x_BD)
        kept = sae.find_active(normalized) if select is None else select(first, normalized)
        recon_BD = sae.reconstruct(kept, normalized)
        error_B = (x_BD - recon_BD).square().sum(1).double()
        spread_B, has_spread_B = compute_spread(x_BD)
        ratio_M = (error_B / spread_B)[has_spread_B]
        ratio_A[first : first + BATCH][has_spread_B] = ratio_M
        has_spread_A[first : first + BATCH] = has_spread_B
        ratio_sum += ratio_M.sum().item()
        recon_AD[first : first + BATCH] = recon_BD
        active_A[first : first + BATCH] = kept.count_active()
        fired_F |= kept.find_fired()
    with_spread = int(has_spread_A.sum())
    nmse, left_out = divide(ratio_sum, with_spread), len(acts_AD) - with_spread
    return Reconstruction(recon_AD, active_A, fired_F, nmse, left_out, ratio_A, has_spread_A)


def measure_variance(acts_AD: Tensor, recon_AD: Tensor) -> dict[str, float | None]:
    """Return `fvu` and `top_variance_share` of `evaluate`."""
    residual = (acts_AD - recon_AD).double().square().sum().item()
    squared_A = (acts_AD - acts_AD.mean(0)).double().square().sum(1)
    variance = squared_A.sum().item()
    top = squared_A.topk(math.ceil(TOP_SHARE * len(acts_AD)), sorted=False).values.sum().item()
    rounding = NO_SPREAD * acts_AD.double().square().sum().item()
    return {"fvu": divide(residual, variance, rounding), "top_variance_share": divide(top, variance, rounding)}
