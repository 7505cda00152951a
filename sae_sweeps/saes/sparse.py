"""Sparse algebra on the kept entries of a batch's pre-activations.

Only a few per cent of the B x F pre-activations are kept. Decoding and all gradients work on those alone: decoding
reads them in row-major (CSR) order, `RowSparse`, the gradients in column-major (CSC) order, `ColumnSparse`. Where many
are kept, the same operations on the whole matrix are faster: `Dense` has the interface of both.
"""

# B activations in a batch, D model width, F latents, N kept entries

import copy
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweeps.saes.products import find_starts, multiply, sample_product, sum_by_index, sum_rows

DENSE_FROM = {"cpu": 0.1, "cuda": 0.05}  # share of kept entries above which the dense matrix is faster, measured
DENSE_LIMIT = 2**29  # entries of a dense matrix at most: a step holds up to eight such matrices of 2 GiB


def dense_from(shape: tuple[int, int], device: torch.device) -> float:
    """Return the share of kept entries of a matrix of this shape above which `Dense` is faster and fits in memory."""
    return DENSE_FROM.get(device.type, DENSE_FROM["cpu"]) if shape[0] * shape[1] <= DENSE_LIMIT else 1.0


def is_active(value: Tensor) -> Tensor:
    """Return where latent activations are not 0 and so count as active, bool, in the shape of `value`.

    Negative activations count too, for SAEs with signed latents.
    """
    return value != 0


class RowSparse:
    """Kept entries of a (B, F) matrix of pre-activations in row-major (CSR) order.

    Shapes: crow_Bp1 (B + 1,), where each row's entries start; col_N (N,), the latent of each entry, in any order within
    a row; pre (N,), the entries' pre-activations; value (N,), the entries' activations, at first the pre-activations.
    """

    def __init__(self, crow_Bp1: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> None:
        # 32-bit indices take half the memory, and half the time to sort
        self.crow_Bp1, self.col_N = crow_Bp1.to(torch.int32), col_N.to(torch.int32)
        self.pre = self.value = pre_N
        self.shape = shape

    @classmethod
    def from_rows(cls, col_BK: Tensor, pre_BK: Tensor, dict_size: int) -> "RowSparse":
        """Build the (B, dict_size) matrix from K entries per row: latents (B, K) and pre-activations (B, K)."""
        batch, per_row = col_BK.shape
        crow_Bp1 = torch.arange(0, batch * per_row + 1, per_row, device=col_BK.device)
        return cls(crow_Bp1, col_BK.reshape(-1), pre_BK.reshape(-1), (batch, dict_size))

    @classmethod
    def from_sorted(cls, row_N: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> "RowSparse":
        """Build the matrix from pre-activations (N,) at the ascending rows `row_N` and the columns `col_N`."""
        return cls(find_starts(row_N, shape[0]), col_N, pre_N, shape)

    @property
    def active(self) -> Tensor:
        """Return which kept entries have an activation other than 0, bool (N,)."""
        return is_active(self.value)

    @property
    def row_N(self) -> Tensor:
        """Return the row of each kept entry, int32 (N,)."""
        rows_B = torch.arange(self.shape[0], dtype=torch.int32, device=self.col_N.device)
        return rows_B.repeat_interleave(self.crow_Bp1.diff(), output_size=len(self.col_N))

    def find_fired(self) -> Tensor:
        """Return which latents are active in at least one row, bool (F,)."""
        return sum_by_index(self.col_N, self.shape[1], self.active.to(torch.int32)) > 0

    def count_active(self) -> Tensor:
        """Return the number of active latents of each row, int32 (B,)."""
        return sum_by_index(self.row_N, self.shape[0], self.active.to(torch.int32))

    def gather(self, vector_F: Tensor) -> Tensor:
        """Gather the values of a per-latent vector (F,) at the kept entries, (N,)."""
        return vector_F[self.col_N]

    def select(self, place_N: Tensor) -> "RowSparse":
        """Return the matrix of the kept entries at the ascending places `place_N` of `col_N` only."""
        row_N = self.row_N[place_N]
        chosen = RowSparse.from_sorted(row_N, self.col_N[place_N], self.pre[place_N], self.shape)
        if self.value is not self.pre:
            chosen.value = self.value[place_N]
        return chosen

    def slice_rows(self, first: int, count: int) -> "RowSparse":
        """Return rows `first` to `first + count - 1` as a matrix of `count` rows."""
        crow_Bp1 = self.crow_Bp1[first : first + count + 1]
        entries = slice(int(crow_Bp1[0]), int(crow_Bp1[-1]))
        part = RowSparse(crow_Bp1 - crow_Bp1[0], self.col_N[entries], self.pre[entries], (count, self.shape[1]))
        part.value = self.value[entries]
        return part

    def transpose(self) -> "RowSparse":
        """Return the transposed matrix, (F, B)."""
        columns = self.to_columns()
        transposed = RowSparse(columns.start_Fp1, columns.row_N, columns.pre, (self.shape[1], self.shape[0]))
        transposed.value = columns.value
        return transposed

    def split_groups(self, group_F: Tensor, groups: int) -> "RowSparse":
        """Move each group of latents to separate rows of a (groups * B, F) matrix: from row b to row g * B + b.

        `group_F` (F,) holds the group g of each latent, from 0 to `groups` - 1.
        """
        row_N, order_N = (self.row_N + self.shape[0] * self.gather(group_F)).sort(stable=True)
        shape = (self.shape[0] * groups, self.shape[1])
        moved = RowSparse.from_sorted(row_N, self.col_N[order_N], self.pre[order_N], shape)
        moved.value = self.value[order_N]
        return moved

    def with_values(self, value_N: Tensor) -> "RowSparse":
        """Return the matrix with the same entries and pre-activations, but with the activations `value_N`."""
        other = RowSparse(self.crow_Bp1, self.col_N, self.pre, self.shape)
        other.value = value_N
        return other

    def scale(self, factor_N: Tensor) -> "RowSparse":
        """Return the matrix with the same entries, but with each activation multiplied by a factor (N,)."""
        return self.with_values(self.value * factor_N)

    def to_dense(self) -> Tensor:
        """Return the dense matrix of the activations, (B, F), with 0 where nothing was kept."""
        dense_BF = self.value.new_zeros(self.shape)
        dense_BF.view(-1)[self.row_N.long() * self.shape[1] + self.col_N] = self.value
        return dense_BF

    def decode(self, W_dec_FD: Tensor) -> Tensor:
        """Return the decoded rows, activations @ W_dec, (B, D), without b_dec."""
        return multiply(self.crow_Bp1, self.col_N, self.value, W_dec_FD)

    def sample_product(self, left_BD: Tensor, right_FD: Tensor) -> Tensor:
        """Compute left @ right^T at the kept entries only, (N,)."""
        return sample_product(self.crow_Bp1, self.row_N, self.col_N, left_BD, right_FD)

    def to_columns(self) -> "ColumnSparse":
        """Return the same entries in column-major (CSC) order."""
        col_N, order_N = self.col_N.sort(stable=True)
        start_Fp1 = find_starts(col_N, self.shape[1]).to(torch.int32)
        columns = ColumnSparse(start_Fp1, self.row_N[order_N], col_N, self.pre[order_N], self.shape)
        if self.value is not self.pre:
            columns.value = self.value[order_N]
        return columns


class ColumnSparse:
    """The entries of a `RowSparse` in column-major (CSC) order, for the gradients.

    Shapes: start_Fp1 (F + 1,), where each latent's entries start; row_N (N,), the row of each entry, ascending within a
    latent; pre and value (N,), the entries' pre-activations and activations.
    """

    def __init__(self, start_Fp1: Tensor, row_N: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> None:
        self.start_Fp1, self.row_N, self._col_N = start_Fp1, row_N, col_N
        self.pre = self.value = pre_N
        self.shape = shape

    @property
    def active(self) -> Tensor:
        """Return which kept entries have an activation other than 0, bool (N,)."""
        return is_active(self.value)

    def gather(self, vector_F: Tensor) -> Tensor:
        """Gather the values of a per-latent vector (F,) at the kept entries, (N,)."""
        return vector_F[self._col_N]

    def split_groups(self, group_F: Tensor, groups: int) -> "ColumnSparse":
        """Move each group of latents to separate rows of a (groups * B, F) matrix: from row b to row g * B + b.

        `group_F` (F,) holds the group g of each latent. The order of the entries does not change.
        """
        moved = copy.copy(self)
        moved.shape = (self.shape[0] * groups, self.shape[1])
        moved.row_N = self.row_N + self.shape[0] * self.gather(group_F)
        return moved

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        """Compute the gradient by the activations, (N,), from the gradient by the decoded rows.

        The result is grad @ W_dec^T at the kept entries.
        """
        return sample_product(self.start_Fp1, self._col_N, self.row_N, W_dec_FD, grad_BD)

    def weight_gradient(self, entry_N: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute A^T @ right, (F, D), for the (B, F) matrix A with the values `entry_N` at the kept entries.

        The result is written to `out` if given.
        """
        return multiply(self.start_Fp1, self.row_N, entry_N, right_BD, out)

    def latent_sums(self, entry_N: Tensor) -> Tensor:
        """Sum `entry_N` over the kept entries of each latent, (F,)."""
        return sum_rows(self.start_Fp1, self.row_N, entry_N, self.shape[0])

    def total(self, entry_N: Tensor) -> Tensor:
        """Sum `entry_N` over all kept entries, (), latent by latent: memory behind the last entry changes no bit."""
        return self.latent_sums(entry_N).sum()


class Dense:
    """Every entry of a (B, F) matrix, with the interface of RowSparse and ColumnSparse.

    Shapes: pre and value (B, F), pre-activations and activations. The activations are 0 where nothing is kept.
    """

    def __init__(self, pre_BF: Tensor) -> None:
        self.pre = self.value = pre_BF
        self.shape = (pre_BF.shape[0], pre_BF.shape[1])

    @property
    def active(self) -> Tensor:
        """Return which entries have an activation other than 0, bool (B, F)."""
        return is_active(self.value)

    def find_fired(self) -> Tensor:
        """Return which latents are active in at least one row, bool (F,)."""
        return self.active.any(0)

    def gather(self, vector_F: Tensor) -> Tensor:
        """Return the per-latent vector (F,) itself, which broadcasts against the entries (B, F)."""
        return vector_F

    def with_values(self, value_BF: Tensor) -> "Dense":
        """Return the matrix with the same pre-activations, but with the activations `value_BF`."""
        other = Dense(self.pre)
        other.value = value_BF
        return other

    def to_dense(self) -> Tensor:
        """Return the dense matrix of the activations, (B, F), with 0 where nothing is kept."""
        return self.value

    def decode(self, W_dec_FD: Tensor) -> Tensor:
        """Return the decoded rows, activations @ W_dec, (B, D), without b_dec."""
        return self.value @ W_dec_FD

    def to_columns(self) -> "Dense":
        """Return the matrix itself: gradients need no other order of a dense matrix."""
        return self

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        """Compute the gradient by the activations, grad @ W_dec^T, (B, F), from the gradient by the decoded rows."""
        return grad_BD @ W_dec_FD.T

    def weight_gradient(self, entry_BF: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute entry^T @ right, (F, D), and write the result to `out` if given."""
        return torch.mm(entry_BF.T, right_BD, out=out)

    def latent_sums(self, entry_BF: Tensor) -> Tensor:
        """Sum `entry_BF` over the rows for each latent, (F,)."""
        return entry_BF.sum(0)

    def total(self, entry_BF: Tensor) -> Tensor:
        """Sum `entry_BF` over all entries, ()."""
        return entry_BF.sum()


Entries: TypeAlias = RowSparse | Dense  # entries in the order in which they are selected and decoded
LatentEntries: TypeAlias = ColumnSparse | Dense  # entries in the order in which gradients are computed
