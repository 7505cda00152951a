"""Selection of pre-activations: above thresholds, the largest of each row, or the largest of the whole batch.

Every selection finds candidates by their upper bounds, computes these exactly and decides among the exact values; of
equal values the first are taken. So the result is the same for every precision of the encoder's product.
"""

# B activations in a batch, R of them in a block, F latents, M chosen latents, N entries, K entries kept in each row

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.search import choose_group, find_at_least, find_kth_largest, find_true, pick_large
from sae_sweeps.saes.sparse import RowSparse

GUESS = 0.57  # the first floor of a row is the k-th largest bound less this share of the largest error
WIDEST = 8  # most candidates of a row, in multiples of k, to search together with the other rows
MOST_CANDIDATES = 4  # limit of a batch's candidates, in multiples of the number wanted, before the floor is raised


def keep_above(product: Product, floor_F: Tensor, at_most: float = 1.0, *, signed: bool = False) -> RowSparse | None:
    """Return the pre-activations that are positive and above the latent's value in `floor_F`, as sparse entries (B, F).

    Returns None if more than the share `at_most` of the first rows' entries are above: a dense matrix is then faster.
    signed: whether pre-activations may also be negative
    """
    floor_F = floor_F if signed else floor_F.clamp(min=0)
    if product.room is not None:
        from sae_sweeps.saes import bounded

        return bounded.keep_above(product, product.room, floor_F, at_most)
    if at_most < 1 and product.share_above(floor_F) > at_most:
        return None
    lower_F1 = product.lower(floor_F)[:, None]
    places = [_Places.find(first, upper_FR, lower_F1) for first, upper_FR in product.blocks()]
    candidates = _compute(product, places)
    return candidates.select(find_true(candidates.pre > candidates.gather(floor_F)))


def keep_top_per_row(product: Product, k: int) -> RowSparse:
    """Return the k largest pre-activations of each row (B, F) as sparse entries, with 0 in place of negative values."""
    if product.room is not None:
        from sae_sweeps.saes import bounded

        return bounded.keep_top_per_row(product, product.room, k)
    top = RowTopK(product, k)
    for first, upper_FR in product.blocks():
        top.add_block(first, upper_FR)
    return top.collect()


def keep_top_of_batch(product: Product, k: int, guess: Tensor | None = None) -> RowSparse:
    """Return the k x B largest pre-activations of the (B, F) matrix as sparse entries; fewer if fewer are positive.

    `guess`, (), is a lower bound of at least 0 to try first. It saves time and does not change the result: entries
    below it are ignored if enough lie above.
    """
    if product.room is not None:
        from sae_sweeps.saes import bounded

        assert guess is not None, "only a guess makes a search in a fixed room possible"
        return bounded.keep_top_of_batch(product, product.room, k, guess)
    budget = min(k, product.shape[1]) * product.shape[0]
    floor = product.input_BD.new_zeros(()) if guess is None else guess
    candidates, kept_N = _search_batch(product, budget, floor)
    if guess is not None and len(kept_N) < budget:
        candidates, kept_N = _search_batch(product, budget, torch.zeros_like(floor))
    return candidates.select(kept_N)


def _search_batch(product: Product, count: int, floor: Tensor) -> tuple[RowSparse, Tensor]:
    """Find candidates, and the places among them of the `count` largest entries that are positive and reach `floor`."""
    candidates = _find_candidates(product, count, floor)
    reached = (candidates.pre > 0) & (candidates.pre >= floor)
    return candidates, find_true(_is_largest(candidates.pre, count) & reached)


class RowTopK:
    """A search for the k largest pre-activations of each row, block by block.

    A row's floor is the k-th largest bound among groups of latents, less a part of the error bound. If k exact values
    reach the floor, no entry below it is among the k largest; otherwise the row is searched again with a floor that k
    exact values are certain to reach.
    """

    def __init__(self, product: Product, k: int, latents_M: Tensor | None = None, *, certain: bool = False) -> None:
        """Prepare to search all columns, or only the latents `latents_M` (M,).

        With `latents_M`, a callback on `product` passes the blocks on; otherwise the caller gives each to `add_block`.
        With `certain`, the floor is one that k exact values are certain to reach.
        """
        self._product, self._latents_M, self._certain = product, latents_M, certain
        self._width = product.shape[1] if latents_M is None else len(latents_M)
        self._k = min(k, self._width)
        self._group = choose_group(self._width, self._k)
        self._floors: list[Tensor] = []
        self._places: list[_Places] = []
        if latents_M is not None:
            product.add_callback(latents_M, self.add_block)

    def add_block(self, first: int, upper_FR: Tensor) -> None:
        """Find the candidates in a block of upper bounds (F, R); `first` is the index of the block's first row."""
        largest_R = self._find_kth_bound(upper_FR)
        error_R = self._product.error_B[first : first + upper_FR.shape[1]]
        share = 1 if self._certain else GUESS
        floor_R = largest_R - share * error_R - largest_R.abs() * 2.0**-8 * self._certain
        self._floors.append(floor_R)
        self._places.append(_Places.find(first, upper_FR, self._product.lower(floor_R)))

    def _find_kth_bound(self, upper_FR: Tensor) -> Tensor:
        """Return a value that at least k bounds of each row reach: the k-th largest of the groups' maxima, (R,)."""
        groups = self._width // self._group
        whole = groups * self._group
        chosen = pick_large(upper_FR[:whole], groups) if self._group > 1 else upper_FR
        if self._group > 1 and whole < self._width:
            chosen = torch.cat([chosen, upper_FR[whole:]])
        return find_kth_largest(chosen.T.contiguous(), self._k).to(self._product.input_BD.dtype)

    def collect(self) -> RowSparse:
        """Return the k largest entries of each row as sparse entries, with 0 in place of negative values.

        The matrix is (B, F), or (B, M) if only the latents `latents_M` were searched. All values are nan if a row has
        pre-activations that are no numbers.
        """
        candidates = _compute(self._product.take(slice(None), self._latents_M), self._places)
        count_B = candidates.crow_Bp1.diff()
        most = int(count_B.max())
        limit = most if self._certain else min(most, WIDEST * self._k)
        kept_N, kth_B = _find_largest_in_rows(candidates, self._k, max(limit, self._k))
        if len(kept_N) < len(count_B) * self._k:
            col_BK = torch.arange(self._k, device=kth_B.device).expand(len(count_B), -1)
            return RowSparse.from_rows(col_BK, candidates.pre.new_full(col_BK.shape, torch.nan), self._width)
        col_BK, pre_BK = (values_N[kept_N].view(-1, self._k) for values_N in (candidates.col_N, candidates.pre))
        if not self._certain:
            self._search_again(find_true((kth_B < torch.cat(self._floors)) | (count_B > limit)), col_BK, pre_BK)
        return RowSparse.from_rows(col_BK, pre_BK.relu(), self._width)

    def _search_again(self, rows_R: Tensor, col_BK: Tensor, pre_BK: Tensor) -> None:
        """Write the k largest entries of the rows `rows_R`, with a floor that is certain, to `col_BK` and `pre_BK`."""
        if len(rows_R) > 0:
            product = self._product.take(rows_R, self._latents_M)
            top = RowTopK(product, self._k, certain=True)
            for first, upper_MR in product.blocks():
                top.add_block(first, upper_MR)
            found = top.collect()
            col_BK[rows_R], pre_BK[rows_R] = found.col_N.view(-1, self._k), found.pre.view(-1, self._k)


@dataclass
class _Places:
    """Places of candidates in a block of upper bounds (F, R), and their bounds if they are needed."""

    first: int  # index of the block's first row
    rows: int  # R
    place_N: Tensor  # in the flattened block, ascending
    upper_N: Tensor | None = None

    @classmethod
    def find(cls, first: int, upper_FR: Tensor, least: Tensor, *, with_bounds: bool = False) -> "_Places":
        """Find the bounds of at least `least`, which broadcasts with the block."""
        place_N = find_at_least(upper_FR, least)
        return cls(first, upper_FR.shape[1], place_N, upper_FR.view(-1)[place_N] if with_bounds else None)

    @property
    def row_N(self) -> Tensor:
        """Return the row of each place in the batch, (N,)."""
        return self.place_N % self.rows + self.first

    @property
    def col_N(self) -> Tensor:
        """Return the latent of each place, (N,)."""
        return self.place_N // self.rows


def _compute(product: Product, places: Sequence[_Places]) -> RowSparse:
    """Compute the pre-activations at the places of all blocks."""
    return product.compute(torch.cat([block.row_N for block in places]), torch.cat([block.col_N for block in places]))


def _find_candidates(product: Product, wanted: int, floor_1: Tensor) -> RowSparse:
    """Find entries above a floor, (): at least the `wanted` largest, or all if there are fewer; with exact values."""
    found: list[_Places] = []
    for first, upper_FR in product.blocks():
        found.append(_Places.find(first, upper_FR, product.lower(floor_1), with_bounds=True))
        if sum(len(block.place_N) for block in found) > MOST_CANDIDATES * wanted:
            # no pre-activation lies below these
            least_N = torch.cat([_lower_bounds(product, block) for block in found])
            floor_1 = torch.maximum(floor_1, find_kth_largest(least_N, wanted))
            found = [_keep_bounds(block, product.lower(floor_1)) for block in found]
    return _compute(product, found)


def _keep_bounds(block: _Places, least: Tensor) -> _Places:
    """Return the places whose bounds are at least `least`."""
    assert block.upper_N is not None, "the bounds were asked for"
    kept = find_at_least(block.upper_N, least)
    return replace(block, place_N=block.place_N[kept], upper_N=block.upper_N[kept])


def _lower_bounds(product: Product, block: _Places) -> Tensor:
    """Return values that the exact pre-activations at the places reach, (N,)."""
    assert block.upper_N is not None, "the bounds were asked for"
    upper_N = block.upper_N.to(product.input_BD.dtype)
    return upper_N - product.error_B[block.row_N] - upper_N.abs() * 2.0**-8


def _is_largest(pre_N: Tensor, count: int) -> Tensor:
    """Return which values are among the `count` largest, the first ones of equal values, bool (N,)."""
    if len(pre_N) <= count:
        return torch.ones_like(pre_N, dtype=torch.bool)
    smallest = find_kth_largest(pre_N, count)
    above_N, equal_N = pre_N > smallest, pre_N == smallest
    return above_N | (equal_N & (equal_N.cumsum(0) <= count - above_N.sum()))


def _find_largest_in_rows(entries: RowSparse, k: int, limit: int) -> tuple[Tensor, Tensor]:
    """Find the k largest of the first `limit` entries of each row, the first ones of equal values.

    Returns: their places among the entries, ascending, and the k-th largest of each row, (B,).
    """
    row_N, start_B = entries.row_N, entries.crow_Bp1[:-1]
    place_N = torch.arange(len(row_N), device=row_N.device) - start_B[row_N]
    padded_BL = entries.pre.new_full((entries.shape[0], limit + 1), -torch.inf)
    padded_BL[row_N, place_N.clamp(max=limit)] = entries.pre
    kth_B = find_kth_largest(padded_BL[:, :limit], k)
    searched_N = place_N < limit
    above_N, equal_N = ((compare(entries.pre, kth_B[row_N])) & searched_N for compare in (torch.gt, torch.eq))
    above_Np1, equal_Np1 = _running_count(above_N), _running_count(equal_N)
    left_B = k - (above_Np1[entries.crow_Bp1[1:]] - above_Np1[start_B])
    equal_so_far_N = equal_Np1[1:] - equal_Np1[start_B[row_N]]
    return find_true(above_N | (equal_N & (equal_so_far_N <= left_B[row_N]))), kth_B


def _running_count(mask_N: Tensor) -> Tensor:
    """Return how many values are true before each place and in all, int32 (N + 1,)."""
    counts = torch.zeros(len(mask_N) + 1, dtype=torch.int32, device=mask_N.device)
    torch.cumsum(mask_N, 0, dtype=torch.int32, out=counts[1:])
    return counts
