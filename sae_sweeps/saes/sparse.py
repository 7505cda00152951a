"""The sparse linear algebra of a training step: a batch's kept entries, and products with them.

Of the B x F pre-activations of a batch a few in a hundred are kept. Everything behind the encoder product works on
those alone, through PyTorch's compressed sparse row (CSR) products.
"""

# B activations in a batch, D model width, F latents, N kept entries

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


@dataclass
class Kept:
    """Kept entries of a (B, F) matrix, row by row.

    Shapes: crow_B1 (B + 1,), where each row's entries start; col_N (N,), the latent of each entry;
    value_N (N,), its activation.
    """

    crow_B1: Tensor
    col_N: Tensor
    value_N: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_mask(cls, mask_BF: Tensor, dense_BF: Tensor) -> "Kept":
        """The entries of `dense_BF` at which `mask_BF` is true."""
        batch, dict_size = dense_BF.shape
        flat_N = mask_BF.reshape(-1).nonzero().squeeze(1)
        return cls.from_flat(flat_N, dense_BF.reshape(-1)[flat_N], (batch, dict_size))

    @classmethod
    def from_flat(cls, flat_N: Tensor, value_N: Tensor, shape: tuple[int, int]) -> "Kept":
        """The entries at ascending positions `flat_N` of the flattened matrix."""
        batch, dict_size = shape
        row_N = flat_N // dict_size
        per_row_B = torch.bincount(row_N, minlength=batch)
        crow_B1 = torch.zeros(batch + 1, dtype=torch.int64, device=flat_N.device)
        torch.cumsum(per_row_B, 0, out=crow_B1[1:])
        return cls(crow_B1, flat_N - row_N * dict_size, value_N, shape)

    @classmethod
    def from_rows(cls, col_BK: Tensor, value_BK: Tensor, dict_size: int) -> "Kept":
        """The same number of entries, K, in every row; `col_BK` ascends within a row."""
        batch, per_row = col_BK.shape
        crow_B1 = torch.arange(0, batch * per_row + 1, per_row, device=col_BK.device)
        return cls(crow_B1, col_BK.reshape(-1), value_BK.reshape(-1), (batch, dict_size))

    def _csr(self, value_N: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(self.crow_B1, self.col_N, value_N, self.shape, check_invariants=False)

    def dense(self) -> Tensor:
        """(B, F), zero where nothing was kept."""
        return self._csr(self.value_N).to_dense()

    def decode(self, W_dec_FD: Tensor) -> Tensor:
        """A @ W_dec, (B, D)."""
        return self._csr(self.value_N) @ W_dec_FD

    def value_gradients(self, grad_BD: Tensor, W_dec_FD: Tensor) -> Tensor:
        """The entries of grad @ W_dec^T at the kept places, (N,): the gradient of the values under `decode`."""
        pattern = self._csr(torch.zeros_like(self.value_N))
        return torch.sparse.sampled_addmm(pattern, grad_BD, W_dec_FD.T, beta=0.0).values()

    def transposed_product(self, value_N: Tensor, right_BD: Tensor) -> Tensor:
        """A^T @ right, (F, D), with A the kept places holding `value_N`: the gradient of a weight matrix."""
        csc = self._csr(value_N).to_sparse_csc()
        batch, dict_size = self.shape
        transposed = torch.sparse_csr_tensor(
            csc.ccol_indices(), csc.row_indices(), csc.values(), (dict_size, batch), check_invariants=False
        )
        return transposed @ right_BD

    def column_sums(self, value_N: Tensor) -> Tensor:
        """The sum of `value_N` over each latent's entries, (F,)."""
        return torch.zeros(self.shape[1], dtype=value_N.dtype, device=value_N.device).index_add_(0, self.col_N, value_N)
