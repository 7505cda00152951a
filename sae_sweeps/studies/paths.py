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
class Path:
    """Position 0 is the small SAE as it is. What happens at a position is in effect from there on.

    put_in (L,): the position at which each latent of the large SAE comes in; `length + 1` if it never does
    taken_out (S,): the same for the latents of the small SAE going out
    count (P + 1,): how many latents there are at each position
    bias_at: the position at which the decoder's bias becomes that of the large SAE
    """

    put_in: Tensor
    taken_out: Tensor
    length: int
    bias_at: int

    @property
    def count(self) -> Tensor:
        arrived = torch.bincount(self.put_in, minlength=self.length + 2)[: self.length + 1]
        left = torch.bincount(self.taken_out, minlength=self.length + 2)[: self.length + 1]
        return len(self.taken_out) + (arrived - left).cumsum(0)

    def active(self, fired_S: Tensor, fired_L: Tensor) -> Tensor:
        """How often latents are active at each position (P + 1,), given how often each of them is."""
        arrived = torch.bincount(self.put_in, weights=fired_L.double(), minlength=self.length + 2)
        left = torch.bincount(self.taken_out, weights=fired_S.double(), minlength=self.length + 2)
        return fired_S.sum() + (arrived - left)[: self.length + 1].cumsum(0)

    def decode(self, position: int, small: SAE, kept_S: RowSparse, large: SAE, kept_L: RowSparse) -> Tensor:
        """The reconstruction (B, D), in normalised space, at a position of the path."""
        there_S = kept_S.gather(self.taken_out > position)
        there_L = kept_L.gather(self.put_in <= position)
        bias_D = large.b_dec if position >= self.bias_at else small.b_dec
        return kept_S.scale(there_S).decode(small.W_dec).add_(kept_L.scale(there_L).decode(large.W_dec)).add_(bias_D)


def insertion(order: Tensor, small: int, large: int, positions: int) -> Path:
    """Put in the latents of the large SAE that `order` lists, in that order, in about equal portions."""
    length = min(positions, len(order))
    put_in = order.new_full((large,), length + 1)
    put_in[order] = _portions(len(order), length).to(order.device)
    return Path(put_in, order.new_full((small,), length + 1), length, length + 1)


def insertion_by(value_L: Tensor, limits: list[float], small: int) -> Path:
    """Put in at position i the latents whose value is below `limits[i - 1]`, and was not below an earlier one."""
    edges = torch.tensor(limits, dtype=value_L.dtype, device=value_L.device)
    put_in = torch.bucketize(value_L, edges, right=True) + 1
    return Path(put_in, put_in.new_full((small,), len(limits) + 1), len(limits), len(limits) + 1)


def interpolation(novel: Tensor, families: Families, small: int, large: int, positions: int) -> tuple[Path, int]:
    """From the small SAE to the large one (arXiv:2502.04878, section 4): the novel latents, in the order given, are put
    in; then, smallest families first, each has its latents of the small SAE taken out and those of the large one put
    in, in one move. At the last position the latents of the small SAE that are in no family go, and the bias changes.

    Returns the path and the position at which all novel latents are in.
    """
    first = insertion(novel, small, large, positions)
    put_in, taken_out = first.put_in.clone(), first.taken_out.clone()
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
    put_in[~torch.from_numpy(is_novel)] = torch.from_numpy(position_of[families.right[~is_novel]]).to(put_in)
    taken_out[:] = torch.from_numpy(position_of[families.left]).to(taken_out)
    return Path(put_in, taken_out, last, last), first.length


def _portions(count: int, positions: int) -> Tensor:
    """The position, from 1 on, of each of `count` things that are shared out among so many."""
    return torch.arange(count) * positions // max(1, count) + 1
