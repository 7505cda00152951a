"""What swapping each family of similar latents alone does to the small SAE's error (arXiv:2502.04878, section 4)."""

# B activations in a batch, D model width, S latents of the small SAE, L of the large one, Q families to swap,
# N kept entries, G pairs of an activation and a family that is active on it

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import Families, Labels

AT_ONCE = 2**23  # numbers in memory at a time for what families add to reconstructions


class FamilySwaps:
    """The change in the small SAE's MSE when the latents of one family are swapped, for each family by itself.

    A swap takes the family's latents of the small SAE out and puts those of the large SAE in. A family without latents
    on one side is no swap. `update` adds batches of activations.

    small_Q, large_Q: numbers of the latents on both sides of each family, families in order of their number
    fired_Q (Q,): number of activations so far on which a latent of the family is active
    """

    def __init__(self, small: SAE, large: SAE, families: Families) -> None:
        self._sides = [(large.W_dec.detach(), 1.0), (small.W_dec.detach(), -1.0)]
        labels = sorted({*families.left.tolist()} & {*families.right.tolist()})
        self.small_Q, self.large_Q = (_list_members(side, labels) for side in (families.left, families.right))
        place = np.full(int(max(families.left.max(), families.right.max())) + 1, -1)
        place[labels] = np.arange(len(labels))
        device = large.W_dec.device
        self._family_of = [torch.from_numpy(place[side]).to(device) for side in (families.right, families.left)]
        self._change_sum_Q = torch.zeros(len(labels), dtype=torch.float64, device=device)
        self.fired_Q = torch.zeros(len(labels), dtype=torch.int64, device=device)
        self.seen = 0

    @torch.no_grad()
    def update(self, residual_BD: Tensor, kept_S: RowSparse, kept_L: RowSparse) -> None:
        """Add a batch: the small SAE's residuals x - x_hat in normalised space, and the active latents of both SAEs."""
        self.seen += len(residual_BD)
        if len(self.fired_Q) == 0:
            return
        per_row = max(1, (len(kept_S.col_N) + len(kept_L.col_N)) // max(1, len(residual_BD)))
        rows = max(1, AT_ONCE // (per_row * residual_BD.shape[1]))
        for first in range(0, len(residual_BD), rows):
            part_BD = residual_BD[first : first + rows]
            sides = [kept.slice_rows(first, len(part_BD)) for kept in (kept_L, kept_S)]
            family_G, change_G = self._find_changes(part_BD, sides)
            self._change_sum_Q += torch.bincount(family_G, weights=change_G, minlength=len(self.fired_Q))
            self.fired_Q += torch.bincount(family_G, minlength=len(self.fired_Q))

    def _find_changes(self, residual_BD: Tensor, sides: list[RowSparse]) -> tuple[Tensor, Tensor]:
        """Return the family and the change in squared error of each pair of an activation and an active family, (G,).

        The reconstruction changes by u, so the squared error by |r - u|^2 - |r|^2 = <u - 2 r, u>.
        """
        families, keys = len(self.fired_Q), []
        for kept, family_F in zip(sides, self._family_of, strict=True):
            family_N = kept.gather(family_F)
            keys.append(torch.where((family_N >= 0) & kept.active, kept.row_N.long() * families + family_N, -1))
        pair_G, place_N = torch.cat(keys).unique(return_inverse=True)
        skipped = int(len(pair_G) > 0 and pair_G[0] == -1)  # entries of latents that are in no family to swap
        pair_G = pair_G[skipped:]
        moved_GD = residual_BD.new_zeros(len(pair_G), residual_BD.shape[1])
        places = place_N.split([len(key) for key in keys])
        for kept, place_n, (W_dec_FD, sign) in zip(sides, places, self._sides, strict=True):
            row_N, order_N = (place_n - skipped).sort(stable=True)
            is_swapped_N = row_N >= 0
            row_N, order_N = row_N[is_swapped_N], order_N[is_swapped_N]
            shape = (len(pair_G), len(W_dec_FD))
            by_pair = RowSparse.from_sorted(row_N, kept.col_N[order_N], sign * kept.value[order_N], shape)
            moved_GD += by_pair.decode(W_dec_FD)
        row_G, family_G = pair_G // families, pair_G % families
        return family_G, ((moved_GD - 2 * residual_BD[row_G]) * moved_GD).sum(1, dtype=torch.float64)

    @property
    def change_Q(self) -> Tensor:
        """Return the change in the small SAE's MSE when each family alone is swapped, (Q,) float64."""
        return self._change_sum_Q / max(1, self.seen)


def _list_members(labels_F: Labels, wanted: list[int]) -> list[list[int]]:
    """Return the latents with each of the wanted labels."""
    order = labels_F.argsort(kind="stable")
    starts = np.searchsorted(labels_F[order], [*wanted, *[label + 1 for label in wanted]])
    first, last = starts[: len(wanted)], starts[len(wanted) :]
    return [order[start:end].tolist() for start, end in zip(first, last, strict=True)]
