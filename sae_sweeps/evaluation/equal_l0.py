"""SAEs at an L0 of exactly k, so that they are compared at an equal L0.

The activations are split into two halves. The level of all thresholds (saes/levels.py) at which L0 is k on one half is
used on the other half, so each activation is measured at a level that was found without it.
"""

# A held-out activations, B activations in a batch, D model width, F latents, G groups of activations, N entries

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.evaluation.reconstruction import Reconstruction, reconstruct
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes.base import Normalized
from sae_sweeps.saes.levels import Levels, find_level
from sae_sweeps.saes.search import find_true
from sae_sweeps.saes.sparse import RowSparse

SAMPLE = 128  # activations on which the floor of the candidates is guessed
MARGIN = 1.25  # candidates per activation, in multiples of k; more if they turn out to be too few
SEED = 0  # of the order of the activations in batches

Metrics = dict[str, float | None]


class Candidates:
    """The entries of A activations above a floor, more than k per activation: those at an L0 of k are among them.

    They are collected while the SAE as it is reconstructs the activations, so that the encoder runs once.
    """

    def __init__(self, levels: Levels, acts_AD: Tensor, k: int, margin: float) -> None:
        """Guess the floor on a sample of the activations (A, D): about `margin` * k candidates per activation."""
        self._levels = levels
        sample_RD = acts_AD[:: -(-len(acts_AD) // SAMPLE)]
        self._floor = levels.guess_floor(levels.sae.normalize(sample_RD).x_BD, margin * k)
        self._kept: dict[int, RowSparse] = {}  # by the index of the batch's first activation

    def find_active(self, first: int, normalized: Normalized) -> RowSparse:
        """Return the active latents of the SAE as it is, and collect the candidates."""
        levels, sae = self._levels, self._levels.sae
        product = sae.product(sae.encoder_input(normalized.x_BD))
        found = levels.keep(product, min(self._floor, levels.own))
        self._kept[first] = found.select(find_true(levels.measure(found) > self._floor))
        return levels.select_own(found)

    def find_levels(self, group_A: Tensor, k: int) -> Tensor | None:
        """Return the level of each of G groups at which its L0 is k, (G,), or L0 at the lowest level if that is less.

        None if the floor is too high to know them. `group_A` (A,) holds the group of each activation.
        """
        count_A = torch.cat([kept.crow_Bp1.diff() for kept in self._kept.values()]).long()
        group_N, order_N = group_A.repeat_interleave(count_A).sort(stable=True)
        level_N = torch.cat([self._levels.measure(kept) for kept in self._kept.values()])[order_N]
        activations_G = torch.bincount(group_A)
        sizes = torch.bincount(group_N, minlength=len(activations_G)).tolist()
        wanted = [k * size for size in activations_G.tolist()]
        if self._floor > self._levels.lowest and any(size <= count for size, count in zip(sizes, wanted, strict=True)):
            return None
        parts = zip(level_N.split(sizes), wanted, strict=True)
        return torch.tensor([find_level(part_M, count) for part_M, count in parts], device=count_A.device)

    def reconstruct(self, acts_AD: Tensor, level_A: Tensor) -> Reconstruction:
        """Reconstruct activations, each with the latents above a level of its own, (A,)."""

        def select(first: int, normalized: Normalized) -> RowSparse:
            kept = self._kept[first]
            return self._levels.select(kept, level_A[first : first + kept.shape[0]])

        return reconstruct(self._levels.sae, acts_AD, select)


@dataclass
class EqualL0:
    """An SAE as it is, and at an L0 of k.

    own: the activations with the SAE as it is
    at_k: the activations with an L0 of k; None if no level gives it
    metrics: those of `evaluate` at an L0 of k, but for cross-entropies, and with a batch's k x B largest latents
    """

    own: Reconstruction
    at_k: Reconstruction | None
    metrics: Metrics


def measure_equal_l0(levels: Levels, acts_AD: Tensor, k: int, batch_size: int) -> EqualL0:
    """Reconstruct at least two activations (A, D) with the SAE as it is and at an L0 of k.

    batch_size: activations in a batch of training, for an SAE with one threshold for all latents
    """
    half_A = (torch.arange(len(acts_AD)) >= len(acts_AD) // 2).int()
    margin, groups = MARGIN, {"half": half_A}
    if levels.has_one_threshold:
        groups["batch"] = _draw_batches(len(acts_AD), batch_size)
    while True:
        candidates = Candidates(levels, acts_AD, k, margin)
        own = reconstruct(levels.sae, acts_AD, candidates.find_active)
        found = {name: candidates.find_levels(group_A.to(acts_AD.device), k) for name, group_A in groups.items()}
        known = {name: level_G for name, level_G in found.items() if level_G is not None}
        if len(known) == len(groups):
            break
        margin *= 2  # the sample was unlike the rest
    metrics = _measure_batches(candidates, acts_AD, known["batch"][groups["batch"]]) if "batch" in known else {}
    at_k, metrics_at_k = _measure_halves(candidates, acts_AD, known["half"], half_A, k)
    moved = "threshold_factor" if levels.is_factor else "bias_shift"
    metrics |= {**metrics_at_k, moved: None if at_k is None else known["half"].mean().item()}
    return EqualL0(own, at_k, metrics)


def _measure_batches(candidates: Candidates, acts_AD: Tensor, level_A: Tensor) -> Metrics:
    """Return the metrics with the k x B largest latents of each batch, which are above the level of its activations."""
    found = candidates.reconstruct(acts_AD, level_A)
    return {"nmse_batch": found.nmse, "l0_batch": found.l0}


def _measure_halves(
    candidates: Candidates, acts_AD: Tensor, level_2: Tensor, half_A: Tensor, k: int
) -> tuple[Reconstruction | None, Metrics]:
    """Reconstruct each half of the activations at the level of the other half, and return the metrics of both."""
    if not level_2.isfinite().all():
        return None, dict.fromkeys(("nmse_at_k", "l0_at_k", "l0_at_k_error"))
    at_k = candidates.reconstruct(acts_AD, level_2.flip(0)[half_A])
    errors = [abs(part_A.double().mean().item() - k) for part_A in at_k.active_A.tensor_split([len(acts_AD) // 2])]
    return at_k, {"nmse_at_k": at_k.nmse, "l0_at_k": at_k.l0, "l0_at_k_error": sum(errors) / len(errors)}


def _draw_batches(count: int, batch_size: int) -> Tensor:
    """Return the number of the batch that each of `count` activations is in, in a random order, as in training."""
    order_A = torch.randperm(count, generator=torch.Generator().manual_seed(mix_seed(SEED, "batches")))
    batch_A = torch.empty_like(order_A, dtype=torch.int32)
    batch_A[order_A] = torch.arange(count, dtype=torch.int32) // batch_size
    return batch_A
