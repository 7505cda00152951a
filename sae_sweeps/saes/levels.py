"""Levels: all thresholds of a saved SAE, moved together by one number, to compare SAEs at an equal L0."""

# B activations in a batch, F latents (dict_size), N entries, R activations in a sample, M levels

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.search import find_kth_largest, find_true
from sae_sweeps.saes.selection import keep_above
from sae_sweeps.saes.sparse import Dense, Entries, RowSparse

LEAST_SCALE = 1e-30  # of a latent whose row of W_enc is 0, to divide by


@dataclass(frozen=True)
class Levels:
    """The levels of an SAE's latents: a latent is active if pre-activation / scale is above one level of all latents.

    If a threshold is above 0 (BatchTopK, Matryoshka, JumpReLU), the scales are the thresholds. The level is then a
    factor on all thresholds, 1 for the SAE as it is, and leaves the activations of active latents unchanged.

    If all thresholds are 0 (ReLU, gated), the scales are the norms of W_enc's rows. The level is then a shift that is
    subtracted from all encoder biases, in units of these norms, as training to a target L0 shifts them (`ReLUSAE`); it
    is 0 for the SAE as it is. The activations of a ReLU SAE fall by level * scale; in a gated SAE it moves the gate,
    of which the magnitudes are independent.

    scale_F: the scale of each latent, (F,)
    is_factor: whether the level is a factor, else a shift
    """

    sae: InferenceSAE
    scale_F: Tensor
    is_factor: bool

    @classmethod
    def from_sae(cls, sae: InferenceSAE) -> "Levels | None":
        """Return the levels of an SAE; None for TopK, and for a subclass with another selection rule."""
        if sae.threshold is None or type(sae) is not InferenceSAE:
            return None
        if (sae.threshold > 0).any():
            return cls(sae, sae.threshold.clamp(min=0), True)
        return cls(sae, sae.W_enc.norm(dim=1).clamp(min=LEAST_SCALE), False)

    @property
    def own(self) -> float:
        """Return the level of the SAE as it is."""
        return 1.0 if self.is_factor else 0.0

    @property
    def lowest(self) -> float:
        """Return the level at which every latent that can be active is active."""
        return 0.0 if self.is_factor else -torch.inf

    @property
    def has_one_threshold(self) -> bool:
        """Return whether all latents have one threshold above 0, which stands for a batch's k x B largest at use."""
        return self.is_factor and bool((self.scale_F == self.scale_F[0]).all())

    def measure(self, entries: Entries) -> Tensor:
        """Return the level of each entry, in the shape of `entries.pre`: the SAE has it active at all lower levels."""
        level = entries.pre / entries.gather(self.scale_F)
        is_possible = self.sae.activate(entries) > 0 if self.is_factor or self.sae.gain is not None else None
        return level if is_possible is None else level.where(is_possible, -torch.inf)

    def keep(self, product: Product, level: float) -> RowSparse:
        """Select the pre-activations above a level as sparse entries (B, F); their activations are not set."""
        floor_F = torch.full_like(self.scale_F, level) if level == -torch.inf else level * self.scale_F
        kept = keep_above(product, floor_F, signed=not self.is_factor)
        assert kept is not None, "keep_above returns entries if no `at_most` is given"
        return kept

    def select_own(self, kept: RowSparse) -> RowSparse:
        """Select, from entries above a lower level, those that the SAE as it is has active: `keep_for_inference`."""
        assert self.sae.threshold is not None, "an SAE with levels has thresholds"
        chosen = kept.select(find_true((kept.pre > kept.gather(self.sae.threshold)) & (kept.pre > 0)))
        chosen.value = self.sae.activate(chosen)
        return chosen

    def select(self, kept: RowSparse, level_B: Tensor) -> RowSparse:
        """Select the entries above the level of their activation, (B,), and set their activations at this level."""
        chosen_N = find_true(self.measure(kept) > level_B[kept.row_N])
        chosen = kept.select(chosen_N)
        chosen.value = self.sae.activate(chosen)
        if not self.is_factor and self.sae.gain is None:
            chosen.value = chosen.value - level_B[chosen.row_N] * chosen.gather(self.scale_F)
        return chosen

    def guess_floor(self, x_RD: Tensor, per_activation: float) -> float:
        """Return a level above which `per_activation` latents of each activation are, on average over a sample.

        x_RD: normalised activations; a small sample, as all of its pre-activations are computed at once
        """
        wanted = round(per_activation * len(x_RD))
        if wanted >= len(x_RD) * self.sae.dict_size:
            return self.lowest
        pre_RF = self.sae.product(self.sae.encoder_input(x_RD)).to_dense()
        floor = find_kth_largest(self.measure(Dense(pre_RF)).flatten(), wanted).item()
        return max(self.lowest, floor if floor < torch.inf else self.own)


def find_level(levels_M: Tensor, count: int) -> float:
    """Return the level above which the `count` largest of M levels are, but for ties; all if there are fewer.

    Infinite if more than `count` levels are.
    """
    if len(levels_M) > count:
        return find_kth_largest(levels_M, count + 1).item()
    below = levels_M.new_tensor(-torch.inf)
    return torch.nextafter(levels_M.min(), below).item() if len(levels_M) > 0 else 0.0
