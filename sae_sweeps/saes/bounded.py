"""Selection of pre-activations into memory of a fixed size, without waiting for the GPU.

The result is that of `selection.py`, to the bit, with zeros behind the last entry. What does not fit is noted in
`Room.overflow`; the result is then of no use, but computing with it does no harm.
"""

# B activations in a batch, F latents, C places for candidates, N places for entries, L places in each row

import torch
from torch import Tensor

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.kernels import entries, scan
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.search import choose_group, find_kth_largest
from sae_sweeps.saes.sparse import ColumnSparse, RowSparse

WIDEST = 8  # most candidates of a row, in multiples of k


class PaddedRows(RowSparse):
    """Entries with memory behind the last one, and the same entries in column-major order."""

    def __init__(self, crow_Bp1: Tensor, order_N: Tensor, row_N: Tensor, col_N: Tensor, columns: ColumnSparse) -> None:
        """Take row starts, the place of each entry in `columns`, and the rows and latents of the entries."""
        super().__init__(crow_Bp1, col_N, columns.pre[order_N], columns.shape)
        self._columns, self._order_N, self._row_N = columns, order_N, row_N

    @property
    def row_N(self) -> Tensor:
        """Return the row of each kept entry, int32 (N,)."""
        return self._row_N

    def to_columns(self) -> ColumnSparse:
        """Return the same entries in column-major (CSC) order."""
        columns = self._columns
        if self.value is not self.pre:
            columns.value = torch.empty_like(self.value).scatter_(0, self._order_N, self.value)
        return columns


class Candidates:
    """Entries of a product whose upper bound reaches a floor, latent by latent, with their exact values.

    Shapes: start_Fp1 (F + 1,), where each latent's candidates begin; row_C and col_C (C,); pre_C (C,), -inf behind the
    last.
    """

    def __init__(self, product: Product, upper_FB: Tensor, least: Tensor, room: Room) -> None:
        """Find the candidates with a bound in `upper_FB` of at least `least`, which broadcasts with these bounds."""
        self._room, self._shape = room, product.shape
        self.start_Fp1, self.row_C, self.col_C = scan.find_candidates(upper_FB, least, room.candidates)
        self.count_1 = self.start_Fp1[-1:]
        room.require(self.count_1 <= room.candidates)
        pre_C = entries.sample_product(self.start_Fp1, self.col_C, self.row_C, product.W_enc_FD, product.input_BD)
        if product.b_enc_F is not None:
            pre_C = pre_C + product.b_enc_F[self.col_C]
        is_entry_C = torch.arange(room.candidates, device=pre_C.device) < self.count_1
        self.pre_C = torch.where(is_entry_C, pre_C, -torch.inf)

    def keys(self, allowed_C: Tensor) -> Tensor:
        """Return integers in the order of the values, of equal values the first of the matrix first, int64 (C,).

        Candidates that `allowed_C`, bool (C,), does not mark get the lowest of all numbers.
        """
        bits_C = self.pre_C.view(torch.int32)
        ordered_C = (bits_C ^ ((bits_C >> 31) & 0x7FFFFFFF)).long()  # in the order of the numbers, also negative ones
        place_C = self.row_C.long() * self._shape[1] + self.col_C
        return torch.where(allowed_C, (ordered_C << 32) | (2**31 - 1 - place_C), torch.iinfo(torch.int64).min)

    def keep(self, kept_C: Tensor) -> PaddedRows:
        """Return the entries that `kept_C`, bool (C,), marks."""
        room, (batch, dict_size) = self._room, self._shape
        counts = torch.zeros(len(kept_C) + 1, dtype=torch.int32, device=kept_C.device)
        torch.cumsum(kept_C, 0, dtype=torch.int32, out=counts[1:])
        room.require(counts[-1:] <= room.entries)
        start_Fp1 = counts[self.start_Fp1.clamp(max=len(kept_C))].clamp(max=room.entries)
        row_N, col_N, pre_N = entries.compact(kept_C, counts[:-1], self.row_C, self.col_C, self.pre_C, room.entries)
        columns = ColumnSparse(start_Fp1, row_N, col_N, pre_N, (batch, dict_size))
        is_entry_N = torch.arange(room.entries, device=row_N.device) < counts[-1]
        # half the passes of a sort of 32-bit numbers
        kind = torch.int16 if batch < 2**15 else torch.int32
        sorted_N, order_N = torch.where(is_entry_N, row_N, batch).to(kind).sort(stable=True)
        rows = torch.arange(batch + 1, dtype=kind, device=row_N.device)
        crow_Bp1 = torch.searchsorted(sorted_N, rows, out_int32=True)
        row_N = sorted_N.clamp(max=batch - 1).to(torch.int32)
        return PaddedRows(crow_Bp1, order_N, row_N, col_N[order_N], columns)


def keep_above(product: Product, room: Room, floor_F: Tensor, at_most: float) -> RowSparse:
    """Return the pre-activations above the latent's value in `floor_F`, which is at least 0.

    There is an overflow if more than the share `at_most` of the first rows' entries are above.
    """
    if at_most < 1:
        room.require(product.share_above(floor_F) <= at_most)
    candidates = Candidates(product, product.whole_block(), product.lower(floor_F)[:, None], room)
    return candidates.keep(candidates.pre_C > floor_F[candidates.col_C])


def keep_top_of_batch(product: Product, room: Room, k: int, guess: Tensor) -> RowSparse:
    """Return the k x B largest pre-activations, all positive; there is an overflow if fewer reach `guess`, ()."""
    budget = min(k, product.shape[1]) * product.shape[0]
    candidates = Candidates(product, product.whole_block(), product.lower(guess), room)
    reached_C = (candidates.pre_C > 0) & (candidates.pre_C >= guess)
    room.require(reached_C.sum(dtype=torch.int32) >= budget)
    key_C = candidates.keys(reached_C)
    return candidates.keep(reached_C & (key_C >= key_C.topk(budget, sorted=False).values.amin()))


def keep_top_per_row(product: Product, room: Room, k: int) -> RowSparse:
    """Return the k largest pre-activations of each row, with 0 in place of negative values."""
    batch, dict_size = product.shape
    k = min(k, dict_size)
    upper_FB = product.whole_block()
    largest_B = find_kth_largest(scan.find_group_maxima(upper_FB, choose_group(dict_size, k)), k).float()
    floor_B = largest_B - product.error_B - largest_B.abs() * 2.0**-8
    candidates = Candidates(product, upper_FB, product.lower(floor_B), room)
    key_C = candidates.keys(candidates.pre_C > -torch.inf)
    width = min(WIDEST * k, dict_size)
    key_BL, count_B = scan.fill_rows(candidates.count_1, candidates.row_C, key_C, batch, width)
    room.require((count_B.amax() <= width) & (count_B.amin() >= k))
    kth_B = key_BL.topk(k, dim=1, sorted=False).values.amin(1)
    kept_C = (key_C >= kth_B[candidates.row_C]) & (candidates.pre_C > -torch.inf)
    candidates.pre_C = candidates.pre_C.relu()
    return candidates.keep(kept_C)
