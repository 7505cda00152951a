"""Kernels for products with a sparse matrix in CSR form: each reads only the rows that its entries name.

`start` (rows + 1,) holds where each row's entries begin. Memory for more entries than there are may follow them: it is
neither read nor counted, and products at such places are 0.
"""

# N places for entries, D columns of a dense factor

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 8  # rows that a program gathers at a time
COLUMNS = 256  # columns that a program of `multiply` computes
DOTS = 16  # dot products of a program
DOT_COLUMNS = 128  # columns that these take at a time
SUMMED = 128  # values that a program adds at a time


@triton.jit
def _gather_rows(start, place, value, right, out, D: tl.constexpr, U: tl.constexpr, W: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1) * W + tl.arange(0, W)
    lane = tl.arange(0, U)
    first, end = tl.load(start + row), tl.load(start + row + 1)
    total = tl.zeros((U, W), out.dtype.element_ty)
    for at in range(first, end, U):
        held = at + lane < end
        taken = tl.load(place + at + lane, mask=held, other=0).to(tl.int64)
        weight = tl.load(value + at + lane, mask=held, other=0)
        rows = tl.load(
            right + taken[:, None] * D + column[None, :], mask=held[:, None] & (column < D)[None, :], other=0
        )
        total += weight[:, None] * rows
    tl.store(out + row.to(tl.int64) * D + column, tl.sum(total, 0), mask=column < D)


def multiply(start: Tensor, place_N: Tensor, value_N: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return A @ right, (rows, D), for a CSR matrix A of row starts, column indices `place_N` and values `value_N`.

    The result is written to `out` if given.
    """
    rows, width = len(start) - 1, right.shape[1]
    if out is None:
        out = right.new_empty(rows, width)
    grid = (rows, triton.cdiv(width, COLUMNS))
    _gather_rows[grid](start, place_N, value_N, right.contiguous(), out, width, ROWS, COLUMNS, num_warps=2)
    return out


@triton.jit
def _dot_entries(count, major, place, left, right, out, N, D: tl.constexpr, E: tl.constexpr, W: tl.constexpr):
    entry = tl.program_id(0) * E + tl.arange(0, E)
    held = entry < tl.minimum(tl.load(count), N)
    own = tl.load(major + entry, mask=held, other=0).to(tl.int64)
    other = tl.load(place + entry, mask=held, other=0).to(tl.int64)
    total = tl.zeros((E, W), out.dtype.element_ty)
    for first in range(0, D, W):
        column = first + tl.arange(0, W)
        mask = held[:, None] & (column < D)[None, :]
        a = tl.load(left + own[:, None] * D + column[None, :], mask=mask, other=0)
        b = tl.load(right + other[:, None] * D + column[None, :], mask=mask, other=0)
        total += a * b
    tl.store(out + entry, tl.sum(total, 1), mask=entry < N)


def sample_product(start: Tensor, major_N: Tensor, place_N: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Compute left @ right^T only at the entries of a CSR pattern, (N,): at the rows `major_N`, columns `place_N`.

    The bits of a dot product do not depend on the other entries.
    """
    count, width = len(place_N), left.shape[1]
    out = left.new_empty(count)
    if count > 0:
        grid = (triton.cdiv(count, DOTS),)
        left, right = left.contiguous(), right.contiguous()
        _dot_entries[grid](start[-1:], major_N, place_N, left, right, out, count, width, DOTS, DOT_COLUMNS, num_warps=4)
    return out


@triton.jit
def _sum_rows(start, value, out, W: tl.constexpr):
    row = tl.program_id(0)
    first, end = tl.load(start + row), tl.load(start + row + 1)
    total = tl.zeros((W,), out.dtype.element_ty)
    for at in range(first, end, W):
        total += tl.load(value + at + tl.arange(0, W), mask=at + tl.arange(0, W) < end, other=0)
    tl.store(out + row, tl.sum(total, 0))


def sum_rows(start: Tensor, value_N: Tensor) -> Tensor:
    """Sum the values of each row of a CSR matrix, (rows,)."""
    out = value_N.new_empty(len(start) - 1)
    _sum_rows[(len(out),)](start, value_N, out, SUMMED, num_warps=1)
    return out


@triton.jit
def _compact(kept, before, row, column, value, row_out, column_out, value_out, N, C, W: tl.constexpr):
    entry = tl.program_id(0) * W + tl.arange(0, W)
    held = entry < N
    to = tl.load(before + entry, mask=held, other=0)
    chosen = held & (tl.load(kept + entry, mask=held, other=0) != 0) & (to < C)
    tl.store(row_out + to, tl.load(row + entry, mask=chosen, other=0), mask=chosen)
    tl.store(column_out + to, tl.load(column + entry, mask=chosen, other=0), mask=chosen)
    tl.store(value_out + to, tl.load(value + entry, mask=chosen, other=0), mask=chosen)


def compact(
    kept_N: Tensor, before_N: Tensor, row_N: Tensor, col_N: Tensor, value_N: Tensor, capacity: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the entries that `kept_N`, bool (N,), marks to the front of memory for `capacity` entries.

    before_N: how many marked entries come before each one, (N,)
    Returns: rows, columns and values, (capacity,), with zeros behind the last; what does not fit is left out.
    """
    out = (row_N.new_zeros(capacity), col_N.new_zeros(capacity), value_N.new_zeros(capacity))
    if len(kept_N) > 0:
        grid = (triton.cdiv(len(kept_N), 1024),)
        _compact[grid](
            kept_N.to(torch.int8), before_N, row_N, col_N, value_N, *out, len(kept_N), capacity, 1024, num_warps=4
        )
    return out
