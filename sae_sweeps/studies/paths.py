"""Paths from one SAE to another: which latents are put in and taken out at each position on the way."""

# B activations in a batch, D model width, S latents of the small SAE, L of the large one, P positions behind the first

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import Families


@dataclass(frozen=True)
class SAEPath:
    """Position 0 is the small SAE as it is. What happens at a position is in effect from there on.

    inserted_at (L,): the position at which each latent of the large SAE comes in; `length + 1` if it never does
    removed_at (S,): the same for the latents of the small SAE going out
    count (P + 1,): how many latents there are at each position
    bias_switched_at: the position at which the decoder's bias becomes that of the large SAE
    """

    inserted_at: Tensor
    removed_at: Tensor
    length: int
    bias_switched_at: int

    @property
    def latent_count(self) -> Tensor:
        arrived = torch.bincount(self.inserted_at, minlength=self.length + 2)[: self.length + 1]
        left = torch.bincount(self.removed_at, minlength=self.length + 2)[: self.length + 1]
        return len(self.removed_at) + (arrived - left).cumsum(0)

    def count_active(self, fired_S: Tensor, fired_L: Tensor) -> Tensor:
        """How often latents are active at each position (P + 1,), given how often each of them is."""
        arrived = torch.bincount(self.inserted_at, weights=fired_L.double(), minlength=self.length + 2)
        left = torch.bincount(self.removed_at, weights=fired_S.double(), minlength=self.length + 2)
        return fired_S.sum() + (arrived - left)[: self.length + 1].cumsum(0)

    def decode(self, position: int, small: SAE, kept_S: RowSparse, large: SAE, kept_L: RowSparse) -> Tensor:
        """The reconstruction (B, D), in normalised space, at a position of the path."""
        there_S = kept_S.per_latent(self.removed_at > position)
        there_L = kept_L.per_latent(self.inserted_at <= position)
        bias_D = large.b_dec if position >= self.bias_switched_at else small.b_dec
        return kept_S.scaled(there_S).decode(small.W_dec).add_(kept_L.scaled(there_L).decode(large.W_dec)).add_(bias_D)


def insert_in_order(order: Tensor, small: int, large: int, positions: int) -> SAEPath:
    """Put in the latents of the large SAE that `order` lists, in that order, in about equal portions."""
    length = min(positions, len(order))
    inserted_at = order.new_full((large,), length + 1)
    inserted_at[order] = _portions(len(order), length).to(order.device)
    return SAEPath(inserted_at, order.new_full((small,), length + 1), length, length + 1)


def insert_by_value(value_L: Tensor, limits: list[float], small: int) -> SAEPath:
    """Put in at position i the latents whose value is below `limits[i - 1]`, and was not below an earlier one."""
    edges = torch.tensor(limits, dtype=value_L.dtype, device=value_L.device)
    inserted_at = torch.bucketize(value_L, edges, right=True) + 1
    return SAEPath(inserted_at, inserted_at.new_full((small,), len(limits) + 1), len(limits), len(limits) + 1)


def interpolate(novel: Tensor, families: Families, small: int, large: int, positions: int) -> tuple[SAEPath, int]:
    """From the small SAE to the large one (arXiv:2502.04878, section 4): the novel latents, in the order given, are put
    in; then, smallest families first, each has its latents of the small SAE taken out and those of the large one put
    in, in one move. At the last position the latents of the small SAE that are in no family go, and the bias changes.

    Returns the path and the position at which all novel latents are in.
    """
    first = insert_in_order(novel, small, large, positions)
    inserted_at, removed_at = first.inserted_at.clone(), first.removed_at.clone()
    is_novel = np.zeros(large, dtype=bool)
    is_novel[novel.cpu().numpy()] = True
    swapped = np.unique(families.right[~is_novel])
    members = np.bincount(np.concatenate([families.left, families.right]), minlength=large + small)
    swapped = swapped[np.argsort(members[swapped], kind="stable")]
    swaps = min(positions, len(swapped))
    reached = members[swapped].cumsum()
    place = first.length + 1 + (reached - 1) * swaps // max(1, reached[-1] if len(reached) else 0)
    last = first.length + swaps + 1
    position_of = np.full(large + small, last)
    position_of[swapped] = place
    inserted_at[~torch.from_numpy(is_novel)] = torch.from_numpy(position_of[families.right[~is_novel]]).to(inserted_at)
    removed_at[:] = torch.from_numpy(position_of[families.left]).to(removed_at)
    return SAEPath(inserted_at, removed_at, last, last), first.length


def _portions(count: int, positions: int) -> Tensor:
    """The position, from 1 on, of each of `count` things that are shared out among so many."""
    return torch.arange(count) * positions // max(1, count) + 1
