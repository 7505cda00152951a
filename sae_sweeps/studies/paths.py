"""Paths from a small SAE towards a large one: which latents are inserted and removed at each position."""

# B activations in a batch, D model width, S latents of the small SAE, L of the large one, P positions after the first

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import Families


@dataclass(frozen=True)
class SAEPath:
    """A sequence of SAEs (positions) that starts with the small SAE; at each next one latents are inserted or removed.

    Position 0 is the small SAE. A change at a position also holds at all later positions.

    inserted_at (L,): the position at which each latent of the large SAE is inserted; `length + 1` if it never is
    removed_at (S,): the position at which each latent of the small SAE is removed; `length + 1` if it never is
    length: the last position, P
    bias_switched_at: the position from which the large SAE's decoder bias is used; `length + 1` if it never is
    """

    inserted_at: Tensor
    removed_at: Tensor
    length: int
    bias_switched_at: int

    @property
    def latent_count(self) -> Tensor:
        """Return the number of latents at each position, (P + 1,)."""
        inserted = torch.bincount(self.inserted_at, minlength=self.length + 2)[: self.length + 1]
        removed = torch.bincount(self.removed_at, minlength=self.length + 2)[: self.length + 1]
        return len(self.removed_at) + (inserted - removed).cumsum(0)

    def count_active(self, fired_S: Tensor, fired_L: Tensor) -> Tensor:
        """Return how many activations the latents at each position have in total, (P + 1,).

        fired_S (S,), fired_L (L,): number of tokens on which each latent of the small and the large SAE is active
        """
        inserted = torch.bincount(self.inserted_at, weights=fired_L.double(), minlength=self.length + 2)
        removed = torch.bincount(self.removed_at, weights=fired_S.double(), minlength=self.length + 2)
        return fired_S.sum() + (inserted - removed)[: self.length + 1].cumsum(0)

    def decode(self, position: int, small: SAE, kept_S: RowSparse, large: SAE, kept_L: RowSparse) -> Tensor:
        """Return the reconstruction (B, D) at a position, in normalised space.

        kept_S (B, S), kept_L (B, L): latent activations of the small and the large SAE
        """
        present_S = kept_S.gather(self.removed_at > position)
        present_L = kept_L.gather(self.inserted_at <= position)
        bias_D = large.b_dec if position >= self.bias_switched_at else small.b_dec
        from_small_BD = kept_S.scale(present_S).decode(small.W_dec)
        return from_small_BD.add_(kept_L.scale(present_L).decode(large.W_dec)).add_(bias_D)


def insert_in_order(order: Tensor, small: int, large: int, positions: int) -> SAEPath:
    """Return the path that inserts latents of the large SAE in the given order, in about equal portions.

    order: numbers of the latents to insert
    small, large: numbers of latents of the two SAEs
    positions: maximal number of portions
    """
    length = min(positions, len(order))
    inserted_at = order.new_full((large,), length + 1)
    inserted_at[order] = _split_evenly(len(order), length).to(order.device)
    return SAEPath(inserted_at, order.new_full((small,), length + 1), length, length + 1)


def insert_by_value(value_L: Tensor, limits: list[float], small: int) -> SAEPath:
    """Return the path that contains, at position i, all latents of the large SAE with a value below `limits[i - 1]`.

    All latents of the small SAE stay.
    limits: upper limits of the values, ascending
    small: number of latents of the small SAE
    """
    edges = torch.tensor(limits, dtype=value_L.dtype, device=value_L.device)
    inserted_at = torch.bucketize(value_L, edges, right=True) + 1
    return SAEPath(inserted_at, inserted_at.new_full((small,), len(limits) + 1), len(limits), len(limits) + 1)


def interpolate(novel: Tensor, families: Families, small: int, large: int, positions: int) -> tuple[SAEPath, int]:
    """Return the path from the small SAE to the large one, and the position from which all novel latents are inserted.

    Source: arXiv:2502.04878, section 4.

    First the novel latents are inserted, in the given order. Then the families are swapped, smallest first: at one
    position the family's latents of the small SAE are removed and those of the large SAE inserted. At the last
    position the small SAE's latents without a family are removed, and the decoder's bias is switched.

    novel: numbers of the novel latents (latents of the large SAE that are similar to none of the small SAE), in order
    families: groups of similar latents of both SAEs
    small, large: numbers of latents of the two SAEs
    positions: maximal number of positions to insert the novel latents, and also to swap the families
    """
    insertion = insert_in_order(novel, small, large, positions)
    inserted_at, removed_at = insertion.inserted_at.clone(), insertion.removed_at.clone()
    is_novel = np.zeros(large, dtype=bool)
    is_novel[novel.cpu().numpy()] = True
    swapped = np.unique(families.right[~is_novel])
    members = np.bincount(np.concatenate([families.left, families.right]), minlength=large + small)
    swapped = swapped[np.argsort(members[swapped], kind="stable")]
    swaps = min(positions, len(swapped))
    # positions are shared out by the number of latents that move, not by the number of families
    moved = members[swapped].cumsum()
    swapped_at = insertion.length + 1 + (moved - 1) * swaps // max(1, moved[-1] if len(moved) else 0)
    last = insertion.length + swaps + 1
    family_position = np.full(large + small, last)
    family_position[swapped] = swapped_at
    inserted_at[~torch.from_numpy(is_novel)] = torch.from_numpy(family_position[families.right[~is_novel]]).to(
        inserted_at
    )
    removed_at[:] = torch.from_numpy(family_position[families.left]).to(removed_at)
    return SAEPath(inserted_at, removed_at, last, last), insertion.length


def _split_evenly(count: int, positions: int) -> Tensor:
    """Return an ascending position from 1 to `positions` for each of `count` items, about equally many at each."""
    return torch.arange(count) * positions // max(1, count) + 1
