"""How meta-latents relate to the latents of a smaller SAE (arXiv:2502.04878, section 5): pairs of latents, and atoms.

If a latent of a small SAE splits into several of a large one, these have it in common. A meta-SAE of the large SAE may
recover that: then latents that share a meta-latent are near the same latent of the small SAE.
"""

# A decomposed latents, M meta-latents, F latents of the smaller SAE, D model width

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, triu
from torch import Tensor

from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes.sparse import RowSparse

PAIRS = 2**24  # pairs of latents in memory at a time, at most
SAMPLE = 1024  # latents on whose pairs a threshold is found
HALVINGS = 12  # of the interval of cosines: the threshold is found to 0.0005


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
    """
    nearest = nearest_A.cpu().numpy()
    near = csr_array((np.ones(len(nearest), dtype=np.int32), (np.arange(len(nearest)), nearest)))
    return compare_pairs(_to_uses(weights), near)


def compare_pairs(uses: csr_array, near: csr_array) -> Overlap:
    """Count the pairs of rows that have a common column in each of two matrices with A rows, and in both.

    uses: meta-latents of latents; near: latents of the smaller SAE that are near them; entries are 1
    Memory: the pairs of as many rows as have about `PAIRS` of them.
    """
    count, sides = uses.shape[0], (uses, near)
    columns = [side.T.tocsr() for side in sides]
    partners_A = sum(side @ np.diff(column.indptr) for side, column in zip(sides, columns, strict=True))
    totals, first = np.zeros(3, dtype=np.int64), 0
    while first < count:
        last = first + max(1, int(np.searchsorted(partners_A[first:].cumsum(), PAIRS)))
        blocks = [
            triu(side[first:last] @ column, first + 1).astype(bool) for side, column in zip(sides, columns, strict=True)
        ]
        totals += [blocks[0].nnz, blocks[1].nnz, blocks[0].multiply(blocks[1]).nnz]
        first = last
    return Overlap(count * (count - 1) // 2, *map(int, totals))


def compare_equally_many(weights: RowSparse, directions_AD: Tensor, atoms_FD: Tensor) -> tuple[float, Overlap]:
    """Compare the pairs that share a meta-latent with about as many pairs that are near a common latent of another SAE.

    Near is every latent whose cosine reaches a threshold. The threshold is that at which `SAMPLE` latents have as many
    pairs of either kind. This is how the authors compare them: 28.92 % of the pairs are the same for 3072 latents.

    weights: of M meta-latents in A latents, (A, M); directions_AD: of these latents; atoms_FD: of the smaller SAE

    Returns the threshold, and the counts.
    """
    uses, count = _to_uses(weights), len(directions_AD)
    draw = torch.Generator().manual_seed(mix_seed(0, "latents whose pairs are counted"))
    sample = torch.randperm(count, generator=draw)[:SAMPLE].sort().values.numpy()
    wanted = (uses[sample] @ uses.T.tocsr()).nnz
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        near = _find_near(directions_AD, atoms_FD, middle, at_most=wanted * count // len(sample))
        enough = near is None or (near[sample] @ near.T.tocsr()).nnz >= wanted
        low, high = (middle, high) if enough else (low, middle)
    near = _find_near(directions_AD, atoms_FD, low)
    assert near is not None, "without a limit there is none to exceed"
    return low, compare_pairs(uses, near)


def _find_near(
    directions_AD: Tensor, atoms_FD: Tensor, threshold: float, at_most: int | None = None, rows_at_once: int = 1024
) -> csr_array | None:
    """Return 1 where the cosine of a direction with an atom reaches a threshold, sparse (A, F).

    at_most: number of entries from which None is returned
    """
    unit_FD, parts, entries = torch.nn.functional.normalize(atoms_FD, dim=1), [], 0
    for first in range(0, len(directions_AD), rows_at_once):
        cosine_TF = torch.nn.functional.normalize(directions_AD[first : first + rows_at_once], dim=1) @ unit_FD.T
        row_N, column_N = (cosine_TF >= threshold).nonzero(as_tuple=True)
        parts.append((row_N + first, column_N))
        entries += len(row_N)
        if at_most is not None and entries > at_most:
            return None
    row_N, column_N = (torch.cat(part) for part in zip(*parts, strict=True))
    ones, shape = np.ones(len(row_N), dtype=np.int32), (len(directions_AD), len(atoms_FD))
    return csr_array((ones, (row_N.cpu().numpy(), column_N.cpu().numpy())), shape=shape)


def _to_uses(weights: RowSparse) -> csr_array:
    columns, starts = weights.col_N.cpu().numpy(), weights.crow_Bp1.cpu().numpy()
    return csr_array((np.ones(len(columns), dtype=np.int32), columns, starts), shape=weights.shape)


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
