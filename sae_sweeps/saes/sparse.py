"""The linear algebra behind the encoder's product: the kept entries of a batch, and products with them.

Of the B x F pre-activations of a batch a few in a hundred are kept. Decoding and all gradients work on those alone,
listed row by row (`Kept`) for the one and latent by latent (`ByLatent`) for the others. Where many are kept, the same
operations on the whole matrix are faster: `Whole` has the interface of both.
"""

# B activations in a batch, D model width, F latents, N kept entries

import copy
import warnings
from typing import TypeAlias

import torch
from torch import Tensor

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

DENSE_FROM = 0.25  # share of entries kept from which the whole matrix is faster; measured on a CPU


class RowSparse:
    """Kept entries of a (B, F) matrix of pre-activations, row by row.

    Shapes: crow_B1 (B + 1,), where each row's entries start; col_N (N,), the latent of each entry, in any order within
    a row; pre (N,), their pre-activations; value (N,), their activations.
    """

    def __init__(self, crow_B1: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> None:
        # 32-bit places: half the memory, and sorted in half the time
        self.crow_B1, self.col_N = crow_B1.to(torch.int32), col_N.to(torch.int32)
        self.pre = self.value = pre_N
        self.shape = shape

    @classmethod
    def from_flat(cls, flat_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> "RowSparse":
        """The entries at ascending positions `flat_N` of the flattened matrix."""
        dict_size = shape[1]
        row_N = flat_N // dict_size
        return cls.from_sorted(row_N, flat_N - row_N * dict_size, pre_N, shape)

    @classmethod
    def from_rows(cls, col_BK: Tensor, pre_BK: Tensor, dict_size: int) -> "RowSparse":
        """The same number of entries, K, in every row."""
        batch, per_row = col_BK.shape
        crow_B1 = torch.arange(0, batch * per_row + 1, per_row, device=col_BK.device)
        return cls(crow_B1, col_BK.reshape(-1), pre_BK.reshape(-1), (batch, dict_size))

    @classmethod
    def from_sorted(cls, row_N: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> "RowSparse":
        """The entries at the given rows, ascending, and columns."""
        return cls(_starts(row_N, shape[0]), col_N, pre_N, shape)

    @property
    def active(self) -> Tensor:
        """Which entries are active, bool."""
        return self.value > 0

    @property
    def row_N(self) -> Tensor:
        """The row of each entry."""
        rows_B = torch.arange(self.shape[0], dtype=torch.int32, device=self.col_N.device)
        return rows_B.repeat_interleave(self.crow_B1.diff(), output_size=len(self.col_N))

    def fired(self) -> Tensor:
        """Which latents are active anywhere, bool (F,)."""
        return torch.bincount(self.col_N[self.active], minlength=self.shape[1]) > 0

    def per_latent(self, of_F: Tensor) -> Tensor:
        """For each entry the number that belongs to its latent."""
        return of_F[self.col_N]

    def rows(self, first: int, count: int) -> "RowSparse":
        """The entries of rows `first` to `first + count`."""
        crow_B1 = self.crow_B1[first : first + count + 1]
        entries = slice(int(crow_B1[0]), int(crow_B1[-1]))
        part = RowSparse(crow_B1 - crow_B1[0], self.col_N[entries], self.pre[entries], (count, self.shape[1]))
        part.value = self.value[entries]
        return part

    def transposed(self) -> "RowSparse":
        """The same entries as those of the transposed matrix."""
        to_columns = self.to_columns()
        turned = RowSparse(to_columns.start_F1, to_columns.row_N, to_columns.pre, (self.shape[1], self.shape[0]))
        turned.value = to_columns.value
        return turned

    def grouped(self, group_F: Tensor, groups: int) -> "RowSparse":
        """The entries of each group of latents in rows of their own: those of group g and row b in row g B + b."""
        row_N, order_N = (self.row_N + self.shape[0] * self.per_latent(group_F)).sort(stable=True)
        shape = (self.shape[0] * groups, self.shape[1])
        moved = RowSparse.from_sorted(row_N, self.col_N[order_N], self.pre[order_N], shape)
        moved.value = self.value[order_N]
        return moved

    def with_values(self, value_N: Tensor) -> "RowSparse":
        """The same entries with other activations."""
        other = RowSparse(self.crow_B1, self.col_N, self.pre, self.shape)
        other.value = value_N
        return other

    def scaled(self, factor_N: Tensor) -> "RowSparse":
        """The same entries with their activations times a factor for each."""
        return self.with_values(self.value * factor_N)

    def dense(self) -> Tensor:
        """The matrix A that holds `value`, (B, F), zero where nothing was kept."""
        return _csr(self.crow_B1, self.col_N, self.value, self.shape).to_dense()

    def decode(self, W_dec_FD: Tensor) -> Tensor:
        """A @ W_dec, (B, D)."""
        return _product(self.crow_B1, self.col_N, self.value, W_dec_FD)

    def sampled_product(self, left_BD: Tensor, right_FD: Tensor) -> Tensor:
        """The entries of left @ right^T at the kept places, (N,)."""
        return _entries(self.crow_B1, self.col_N, left_BD, right_FD)

    def to_columns(self) -> "ColumnSparse":
        return ColumnSparse(self)


class ColumnSparse:
    """The same entries latent by latent, for the gradients.

    Shapes: start_F1 (F + 1,), where each latent's entries start; row_N (N,), the row of each entry, ascending within a
    latent; pre and value (N,). The latent of an entry is implied, which `per_latent` spells out.
    """

    def __init__(self, kept: RowSparse) -> None:
        self.shape = kept.shape
        self._col_N, order_N = kept.col_N.sort(stable=True)
        self.start_F1 = _starts(self._col_N, self.shape[1]).to(torch.int32)
        self.row_N = kept.row_N[order_N]
        self.pre = kept.pre[order_N]
        self.value = self.pre if kept.value is kept.pre else kept.value[order_N]

    @property
    def active(self) -> Tensor:
        """Which entries are active, bool."""
        return self.value > 0

    def per_latent(self, of_F: Tensor) -> Tensor:
        """For each entry the number that belongs to its latent."""
        return of_F[self._col_N]

    def grouped(self, group_F: Tensor, groups: int) -> "ColumnSparse":
        """As `Kept.grouped`; the entries stay in their order."""
        moved = copy.copy(self)
        moved.shape = (self.shape[0] * groups, self.shape[1])
        moved.row_N = self.row_N + self.shape[0] * self.per_latent(group_F)
        return moved

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        """The entries of grad @ W_dec^T: the gradient of `value` given that of the decoding."""
        return _entries(self.start_F1, self.row_N, W_dec_FD, grad_BD)

    def weight_gradient(self, of_entries: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        """A^T @ right, (F, D), with A the matrix that holds `of_entries`; written to `out` if given."""
        return _product(self.start_F1, self.row_N, of_entries, right_BD, out)

    def latent_sums(self, of_entries: Tensor) -> Tensor:
        """The sum over each latent's entries, (F,)."""
        transposed = _csr(self.start_F1, self.row_N, of_entries, (self.shape[1], self.shape[0]))
        return transposed @ of_entries.new_ones(self.shape[0])


class Dense:
    """Every entry of the matrix, kept or not: `value` is 0 at those that are not. Shapes: pre and value (B, F)."""

    def __init__(self, pre_BF: Tensor) -> None:
        self.pre = self.value = pre_BF
        self.shape = (pre_BF.shape[0], pre_BF.shape[1])

    @property
    def active(self) -> Tensor:
        return self.value > 0

    def fired(self) -> Tensor:
        return self.active.any(0)

    def per_latent(self, of_F: Tensor) -> Tensor:
        return of_F

    def with_values(self, value_BF: Tensor) -> "Dense":
        other = Dense(self.pre)
        other.value = value_BF
        return other

    def dense(self) -> Tensor:
        return self.value

    def decode(self, W_dec_FD: Tensor) -> Tensor:
        return self.value @ W_dec_FD

    def to_columns(self) -> "Dense":
        return self

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        return grad_BD @ W_dec_FD.T

    def weight_gradient(self, of_entries: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mm(of_entries.T, right_BD, out=out)

    def latent_sums(self, of_entries: Tensor) -> Tensor:
        return of_entries.sum(0)


Entries: TypeAlias = RowSparse | Dense  # as a selection gives them
LatentEntries: TypeAlias = ColumnSparse | Dense  # as the gradients want them


def _csr(start: Tensor, place_N: Tensor, value_N: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(start, place_N, value_N, shape, check_invariants=False)


def _product(start: Tensor, place_N: Tensor, value_N: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """A @ right, with A in compressed rows: (rows, D).

    On a CPU embedding_bag, which is this product, takes half the time of the CSR product; but it cannot write to memory
    that is there already, and for a large result taking new memory costs more than that.
    """
    shape = (len(start) - 1, len(right))
    if out is not None:
        return torch.addmm(out, _csr(start, place_N, value_N, shape), right, beta=0.0, out=out)
    if right.is_cuda:
        return _csr(start, place_N, value_N, shape) @ right
    return torch.nn.functional.embedding_bag(
        place_N, right, start, mode="sum", per_sample_weights=value_N, include_last_offset=True
    )


def _entries(start: Tensor, place_N: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The entries of left @ right^T at the places given in compressed rows, (N,)."""
    pattern = _csr(start, place_N, left.new_zeros(len(place_N)), (len(left), len(right)))
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


def _starts(sorted_N: Tensor, count: int) -> Tensor:
    """Where the numbers 0, 1, ..., count - 1 begin in an ascending list of them, and where the last ends."""
    starts = torch.zeros(count + 1, dtype=torch.int64, device=sorted_N.device)
    torch.cumsum(torch.bincount(sorted_N, minlength=count), 0, out=starts[1:])
    return starts
