"""How meta-latents relate to the latents of a smaller SAE (arXiv:2502.04878, section 5): pairs of latents, and atoms.

If a latent of a small SAE splits into several of a large one, these have it in common. A meta-SAE of the large SAE may
recover that: then latents that share a meta-latent are near the same latent of the small SAE.
"""

# A decomposed latents, M meta-latents, F latents of the smaller SAE, D model width

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes.sparse import RowSparse

PAIRS = 2**24  # pairs of latents in memory at a time, at most


@dataclass(frozen=True)
class Overlap:
    """Counts of pairs of decomposed latents.

    pairs: all of them; sharing: those that share a meta-latent; near: those that are nearest to the same latent of the
    smaller SAE; both: those that do both
    """

    pairs: int
    sharing: int
    near: int
    both: int

    @property
    def near_of_sharing(self) -> float | None:
        """Return the share of the pairs with a common meta-latent that have a common nearest latent."""
        return divide(self.both, self.sharing)

    @property
    def sharing_of_near(self) -> float | None:
        """Return the share of the pairs with a common nearest latent that have a common meta-latent."""
        return divide(self.both, self.near)

    @property
    def near_of_all(self) -> float | None:
        """Return the share of all pairs that have a common nearest latent: what `near_of_sharing` is by chance."""
        return divide(self.near, self.pairs)

    @property
    def sharing_of_all(self) -> float | None:
        """Return the share of all pairs that have a common meta-latent: what `sharing_of_near` is by chance."""
        return divide(self.sharing, self.pairs)


def count_pairs(weights: RowSparse, nearest_A: Tensor) -> Overlap:
    """Count the pairs of latents that share a meta-latent, and that have the same nearest latent, exactly.

    weights: of M meta-latents in A latents, (A, M); nearest_A (A,): number of the nearest latent of the smaller SAE

    Memory: the pairs that share a meta-latent of as many latents as have about `PAIRS` of them.
    """
    count, nearest = weights.shape[0], nearest_A.cpu().numpy()
    columns, starts = weights.col_N.cpu().numpy(), weights.crow_Bp1.cpu().numpy()
    uses = csr_array((np.ones(len(columns), dtype=np.int32), columns, starts), shape=weights.shape)
    users = uses.T.tocsr()
    partners_A = uses @ np.diff(users.indptr)  # entries of a latent's row of the product, at most
    sharing = both = first = 0
    while first < count:
        last = first + max(1, int(np.searchsorted(partners_A[first:].cumsum(), PAIRS)))
        product = (uses[first:last] @ users).tocoo()
        row, column = product.coords[0] + first, product.coords[1]
        is_pair = row < column
        sharing += int(is_pair.sum())
        both += int((nearest[row[is_pair]] == nearest[column[is_pair]]).sum())
        first = last
    sizes = np.unique(nearest, return_counts=True)[1]
    return Overlap(count * (count - 1) // 2, sharing, int((sizes * (sizes - 1) // 2).sum()), both)


def draw_directions(count: int, like_MD: Tensor, seed: int) -> Tensor:
    """Return `count` random directions of unit norm, in the width, dtype and device of `like_MD`."""
    generator = torch.Generator().manual_seed(mix_seed(seed, "random directions"))
    drawn_MD = torch.randn(count, like_MD.shape[1], generator=generator)
    return torch.nn.functional.normalize(drawn_MD, dim=1).to(like_MD)


@torch.no_grad()
def find_nearest_other(rows_MD: Tensor, rows_at_once: int = 1024) -> Tensor:
    """Return the largest cosine of each direction with another one of the same set, (M,); -inf for a single one."""
    unit_MD = torch.nn.functional.normalize(rows_MD, dim=1)
    found = []
    for first in range(0, len(unit_MD), rows_at_once):
        cosine_TM = unit_MD[first : first + rows_at_once] @ unit_MD.T
        own_T = torch.arange(len(cosine_TM), device=cosine_TM.device)
        cosine_TM[own_T, own_T + first] = -torch.inf
        found.append(cosine_TM.amax(1))
    return torch.cat(found)
