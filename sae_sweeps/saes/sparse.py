"""The linear algebra behind the encoder's product: the kept entries of a batch, and products with them.

Of the B x F pre-activations of a batch a few in a hundred are kept. Decoding and all gradients work on those alone,
through PyTorch's compressed sparse row (CSR) products. Where many are kept, the same operations on the whole matrix
are faster: `Kept` and `DenseKept` are the two ways, with one interface.
"""

# B activations in a batch, D model width, F latents, N kept entries

import warnings
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

DENSE_FROM = 0.18  # share of entries kept from which the whole matrix is faster; measured, see benchmarks/


class Entries(ABC):
    """Some entries of a (B, F) matrix of pre-activations.

    `pre` holds their pre-activations and `value` their activations: one number per entry, in a shape of the layout's
    own that the arithmetic between entries need not know.
    """

    shape: tuple[int, int]
    pre: Tensor
    value: Tensor

    @property
    def active(self) -> Tensor:
        """Which entries are active, bool."""
        return self.value > 0

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrix A that holds `value`, (B, F), zero elsewhere."""

    @abstractmethod
    def per_latent(self, of_F: Tensor) -> Tensor:
        """For each entry the number that belongs to its latent."""

    @abstractmethod
    def decode(self, W_dec_FD: Tensor, base_BD: Tensor) -> Tensor:
        """base + A @ W_dec, (B, D), with A the matrix that holds `value`."""

    @abstractmethod
    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        """The entries of grad @ W_dec^T: the gradient of `value` given that of the decoding."""

    @abstractmethod
    def weight_gradient(self, of_entries: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        """A^T @ right, (F, D), with A the matrix that holds `of_entries`; written to `out` if given."""

    @abstractmethod
    def latent_sums(self, of_entries: Tensor) -> Tensor:
        """The sum over each latent's entries, (F,)."""

    @abstractmethod
    def fired(self) -> Tensor:
        """Which latents are active anywhere, bool (F,)."""


class Kept(Entries):
    """Entries listed row by row.

    Shapes: crow_B1 (B + 1,), where each row's entries start; col_N (N,), the latent of each entry, in any order within
    a row; pre and value (N,).
    """

    def __init__(self, crow_B1: Tensor, col_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> None:
        # 32-bit places: half the memory, and sorted in half the time
        self.crow_B1, self.col_N = crow_B1.to(torch.int32), col_N.to(torch.int32)
        self.pre = self.value = pre_N
        self.shape = shape

    @classmethod
    def from_flat(cls, flat_N: Tensor, pre_N: Tensor, shape: tuple[int, int]) -> "Kept":
        """The entries at ascending positions `flat_N` of the flattened matrix."""
        batch, dict_size = shape
        row_N = flat_N // dict_size
        return cls(_starts(row_N, batch), flat_N - row_N * dict_size, pre_N, shape)

    @classmethod
    def from_rows(cls, col_BK: Tensor, pre_BK: Tensor, dict_size: int) -> "Kept":
        """The same number of entries, K, in every row."""
        batch, per_row = col_BK.shape
        crow_B1 = torch.arange(0, batch * per_row + 1, per_row, device=col_BK.device)
        return cls(crow_B1, col_BK.reshape(-1), pre_BK.reshape(-1), (batch, dict_size))

    @cached_property
    def row_N(self) -> Tensor:
        """The row of each entry."""
        rows = torch.arange(self.shape[0], dtype=torch.int32, device=self.col_N.device)
        return rows.repeat_interleave(self.crow_B1.diff().long(), output_size=len(self.col_N))

    def _csr(self, value_N: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(self.crow_B1, self.col_N, value_N, self.shape, check_invariants=False)

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order that lists the entries latent by latent, where each latent's start, and the row of each."""
        col_N, order_N = self.col_N.sort(stable=True)
        return order_N, _starts(col_N, self.shape[1]).to(torch.int32), self.row_N[order_N]

    def _transposed(self, value_N: Tensor) -> Tensor:
        order_N, start_F1, row_N = self._by_latent
        batch, dict_size = self.shape
        return torch.sparse_csr_tensor(start_F1, row_N, value_N[order_N], (dict_size, batch), check_invariants=False)

    def dense(self) -> Tensor:
        return self._csr(self.value).to_dense()

    def entries_of(self, left_BD: Tensor, right_FD: Tensor) -> Tensor:
        """The entries of left @ right^T at the kept places, (N,)."""
        pattern = self._csr(torch.zeros_like(self.pre, dtype=left_BD.dtype))
        return torch.sparse.sampled_addmm(pattern, left_BD, right_FD.T, beta=0.0).values()

    def per_latent(self, of_F: Tensor) -> Tensor:
        return of_F[self.col_N]

    def decode(self, W_dec_FD: Tensor, base_BD: Tensor) -> Tensor:
        return torch.addmm(base_BD, self._csr(self.value), W_dec_FD)

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        return self.entries_of(grad_BD, W_dec_FD)

    def weight_gradient(self, of_entries: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        if out is None:
            out = right_BD.new_empty(self.shape[1], right_BD.shape[1])
        return torch.addmm(out, self._transposed(of_entries), right_BD, beta=0.0, out=out)

    def latent_sums(self, of_entries: Tensor) -> Tensor:
        return self._transposed(of_entries) @ of_entries.new_ones(self.shape[0])

    def fired(self) -> Tensor:
        fired_F = torch.zeros(self.shape[1], dtype=torch.bool, device=self.col_N.device)
        return fired_F.index_fill_(0, self.col_N[self.active].long(), True)


class DenseKept(Entries):
    """Every entry of the matrix, kept or not: `value` is 0 at those that are not. Shapes: pre and value (B, F)."""

    def __init__(self, pre_BF: Tensor) -> None:
        self.pre = self.value = pre_BF
        self.shape = (pre_BF.shape[0], pre_BF.shape[1])

    def dense(self) -> Tensor:
        return self.value

    def per_latent(self, of_F: Tensor) -> Tensor:
        return of_F

    def decode(self, W_dec_FD: Tensor, base_BD: Tensor) -> Tensor:
        return torch.addmm(base_BD, self.value, W_dec_FD)

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        return grad_BD @ W_dec_FD.T

    def weight_gradient(self, of_entries: Tensor, right_BD: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mm(of_entries.T, right_BD, out=out)

    def latent_sums(self, of_entries: Tensor) -> Tensor:
        return of_entries.sum(0)

    def fired(self) -> Tensor:
        return self.active.any(0)


def _starts(sorted_N: Tensor, count: int) -> Tensor:
    """Where the numbers 0, 1, ..., count - 1 begin in an ascending list of them, and where the last ends."""
    starts = torch.zeros(count + 1, dtype=torch.int64, device=sorted_N.device)
    torch.cumsum(torch.bincount(sorted_N, minlength=count), 0, out=starts[1:])
    return starts
