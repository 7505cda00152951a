"""Products with a sparse matrix in CSR form, each sum in a fixed order, so that every run gives the same bytes."""

# D columns of the other factor, N entries of the sparse matrix

import warnings

import torch
from torch import Tensor

from sae_sweeps.saes import kernels

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def _csr(start: Tensor, place_N: Tensor, value_N: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(start, place_N, value_N, shape, check_invariants=False)


def multiply(start: Tensor, place_N: Tensor, value_N: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return A @ right, (rows, D), for a CSR matrix A of row starts, column indices `place_N` and values `value_N`.

    The result is written to `out` if given. embedding_bag adds each row's entries in order. CUDA's CSR product does
    not, so that its results differ from run to run; a CPU's takes twice the time. But embedding_bag cannot write to
    existing memory, and on a CPU allocating memory for a large result costs more than embedding_bag saves.
    """
    if kernels.can_run(right):
        from sae_sweeps.saes.kernels import entries

        return entries.multiply(start, place_N, value_N, right, out)
    if out is not None:
        matrix = _csr(start, place_N, value_N, (len(start) - 1, len(right)))
        return torch.addmm(out, matrix, right, beta=0.0, out=out)
    return torch.nn.functional.embedding_bag(
        place_N, right, start, mode="sum", per_sample_weights=value_N, include_last_offset=True
    )


def sample_product(start: Tensor, major_N: Tensor, place_N: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Compute left @ right^T only at the entries of a CSR pattern, (N,).

    The pattern has row starts, and rows `major_N` and column indices `place_N` of the entries.
    """
    if kernels.can_run(right):
        from sae_sweeps.saes.kernels import entries

        return entries.sample_product(start, major_N, place_N, left, right)
    pattern = _csr(start, place_N, left.new_zeros(len(place_N)), (len(left), len(right)))
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


def sum_rows(start: Tensor, place_N: Tensor, value_N: Tensor, columns: int) -> Tensor:
    """Sum the values of each row of a CSR matrix with `columns` columns, (rows,)."""
    if kernels.can_run(value_N):
        from sae_sweeps.saes.kernels import entries

        return entries.sum_rows(start, value_N)
    if value_N.is_cuda:
        return torch.segment_reduce(value_N, "sum", offsets=start.long(), unsafe=True)
    return _csr(start, place_N, value_N, (len(start) - 1, columns)) @ value_N.new_ones(columns)


def find_starts(sorted_N: Tensor, size: int) -> Tensor:
    """Return the index where each of 0, 1, ..., size - 1 starts in an ascending list (N,), then the list's length.

    Returns: int64 (size + 1,), as the row starts of a CSR matrix.
    """
    starts = torch.zeros(size + 1, dtype=torch.int64, device=sorted_N.device)
    torch.cumsum(sum_by_index(sorted_N, size, torch.ones_like(sorted_N, dtype=torch.int32)), 0, out=starts[1:])
    return starts


def sum_by_index(index_N: Tensor, size: int, weight_N: Tensor) -> Tensor:
    """Sum whole numbers `weight_N` by index, int32 (size,).

    `bincount` would wait for the GPU twice, and takes many times longer on a CPU.
    """
    return torch.zeros(size, dtype=torch.int32, device=index_N.device).index_add_(0, index_N, weight_N)
