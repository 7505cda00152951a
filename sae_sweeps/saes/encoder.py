"""Blocked encoder matmul: upper bounds of all pre-activations, and exact values of the few that are selected.

The dense (B, F) matrix of pre-activations is never materialised. A fast product, possibly of operands rounded to
bfloat16, gives each entry an upper bound; a selection recomputes the entries whose bound is high enough in float32,
each as a dot product of its own in a fixed order, and decides by these values. So the selection is exact, and neither
the precision nor the shape or order of the fast product changes a result.
"""

# B activations in a batch, R of them in a block, D model width, F latents, M chosen latents, N entries, J columns that
# the operands of the product get in addition to their D

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sae_sweeps.saes import kernels
from sae_sweeps.saes.products import find_starts, sample_product
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.sparse import RowSparse

BLOCK = 2**23  # entries of the product in one block, so that a block stays about in the cache while it is searched
BLOCK_CUDA = 2**27  # the same number on a GPU
TINY = 2.0**-62  # squares of smaller numbers underflow in a norm
TF32_ROUNDING = 2.0**-10  # largest relative error of rounding or cutting a float32 to tf32
ROUNDED = 2**18  # numbers to round at a time on a CPU
SAMPLE = 32  # rows by which to decide between sparse and dense entries

OnBlock = Callable[[int, Tensor], None]  # is called with (index of the block's first row, upper bounds upper_MR)


class Product:
    """The pre-activations input @ W_enc^T + b_enc, (B, F), with only one block of rows in memory at a time.

    `blocks` yields upper bounds, `exact` computes entries. With a `precision` of "bfloat16" the bound of an entry is
    the product of the rounded operands x^ and w^ plus the most that rounding can have changed,

        |x.w - x^.w^| <= |x - x^| |w^| + |x| |w - w^| + 2 D eps |x| |w|,

    where eps is float32's: the last term is for the order in which the product and `exact` add. The norms' own products
    are columns that x^ and w^ get in addition, so that the bound costs no pass over the (B, F) matrix. With "float32"
    and "tf32" the bound is the product plus the largest such error in the batch, `slack`.
    """

    def __init__(
        self,
        input_BD: Tensor,
        W_enc_FD: Tensor,
        b_enc_F: Tensor | None = None,
        *,
        precision: str = "float32",
        room: Room | None = None,
    ) -> None:
        """Take the factors and the bias; with a `room`, selections keep to its sizes and do not wait for a GPU."""
        self.input_BD, self.W_enc_FD, self.b_enc_F, self.room = input_BD, W_enc_FD, b_enc_F, room
        self.shape = (input_BD.shape[0], W_enc_FD.shape[0])
        self._precision = precision
        self._callbacks: list[tuple[Tensor, OnBlock]] = []

    def add_callback(self, latents_M: Tensor, on_block: OnBlock) -> None:
        """Register `on_block` to be called for every block while `blocks` runs next.

        The arguments are the index of the block's first row and the upper bounds (M, R) of the latents `latents_M`.
        """
        self._callbacks.append((latents_M, on_block))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each block: the index of the block's first row, and upper bounds (F, R) of the pre-activations.

        A pre-activation of at least `floor` has a bound of at least `lower(floor)`. A row of bounds is a latent's: a
        product with the long factor first is the faster one on a CPU, which has to rearrange the second factor for each
        block. The next block overwrites the memory of these bounds.
        """
        batch, dict_size = self.shape
        left, right, bias_F = self._operands
        callbacks, self._callbacks = self._callbacks, []  # a second search reads the blocks again
        most_rows = max(1, (BLOCK_CUDA if left.is_cuda else BLOCK) // dict_size)
        rows = math.ceil(batch / max(1, math.ceil(batch / most_rows)))
        memory = left.new_empty(rows * dict_size)
        for first in range(0, batch, rows):
            chunk = left[first : first + rows]
            upper_FR = memory[: dict_size * len(chunk)].view(dict_size, len(chunk))
            self._multiply(right, chunk, bias_F, upper_FR)
            for latents_M, on_block in callbacks:
                on_block(first, upper_FR[latents_M])
            yield first, upper_FR

    def whole_block(self) -> Tensor:
        """Return the upper bounds of all pre-activations at once, (F, B)."""
        left, right, bias_F = self._operands
        return self._multiply(right, left, bias_F, left.new_empty(len(right), len(left)))

    def _multiply(self, right: Tensor, left: Tensor, bias_F: Tensor | None, upper_FR: Tensor) -> Tensor:
        """Write the product of the operands, with the bias, to `upper_FR`, and return it."""
        with _float32_accumulation(tf32=self._precision == "tf32"):
            torch.mm(right, left.T, out=upper_FR)
        return upper_FR if bias_F is None else upper_FR.add_(bias_F[:, None])

    def lower(self, floor: Tensor) -> Tensor:
        """Return what the bound of a pre-activation of at least `floor` reaches, in the shape and device of `floor`.

        The result has the dtype of the blocks and is rounded down: rounding a bound to this dtype keeps the order.
        """
        if self._precision == "bfloat16":
            return torch.where(floor.abs() < TINY, floor.clamp(max=0), floor - floor.abs() * 2.0**-8).bfloat16()
        return floor - floor.abs() * 2.0**-20 - self._slack_B.amax()

    @functools.cached_property
    def error_B(self) -> Tensor:
        """Return for each activation how much its bounds may exceed the pre-activations, before rounding, (B,)."""
        if self._precision != "bfloat16":
            return 2 * self._slack_B
        left, right, _ = self._operands
        width = self.input_BD.shape[1]
        largest_2 = right[:, width : width + 2].float().amax(0)
        return 2.02 * (left[:, width : width + 2].float() @ largest_2)

    @functools.cached_property
    def _slack_B(self) -> Tensor:
        """Return the largest error of the float32 or tf32 product of each activation, (B,)."""
        rounding = self.input_BD.shape[1] * 2 * torch.finfo(self.input_BD.dtype).eps
        if self._precision == "tf32":
            rounding += 2.01 * TF32_ROUNDING
        slack_B = rounding * _upper_norm(self.input_BD) * _upper_norm(self.W_enc_FD).amax()
        return slack_B if self.b_enc_F is None else slack_B + 2.0**-20 * self.b_enc_F.abs().amax()

    @functools.cached_property
    def _operands(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the factors of the product, (B, D + J) and (F, D + J), and the bias (F,) to add to each row, if any.

        In bfloat16 the additional columns hold the norms of the error bound and the bias, each rounded up.
        """
        input_BD, W_enc_FD = self.input_BD, self.W_enc_FD
        if self._precision != "bfloat16":
            return input_BD, W_enc_FD, self.b_enc_F
        if kernels.can_run(input_BD) and input_BD.dtype == torch.float32:
            from sae_sweeps.saes.kernels.rounding import round_rows

            has_bias, tiny = self.b_enc_F is not None, input_BD.shape[1] ** 0.5 * TINY
            left = round_rows(input_BD, None, has_bias=has_bias, is_weight=False, tiny=tiny)
            return left, round_rows(W_enc_FD, self.b_enc_F, has_bias=has_bias, is_weight=True, tiny=tiny), None
        rounding = 2 * input_BD.shape[1] * torch.finfo(torch.float32).eps
        extra = 2 if self.b_enc_F is None else 4
        left, x_norm_B, x_error_B = _round_rows(input_BD, extra)
        right, w_norm_F, w_error_F = _round_rows(W_enc_FD, extra)
        left_BJ, right_FJ = left[:, input_BD.shape[1] :], right[:, input_BD.shape[1] :]
        left_BJ[:, 0], left_BJ[:, 1] = _round_up(x_error_B), _round_up(x_norm_B)
        right_FJ[:, 0], right_FJ[:, 1] = _round_up(w_norm_F + w_error_F), _round_up(w_error_F + rounding * w_norm_F)
        if self.b_enc_F is not None:
            left_BJ[:, 2:4] = 1
            right_FJ[:, 2] = self.b_enc_F
            right_FJ[:, 3] = _round_up(self.b_enc_F - right_FJ[:, 2])
        return left, right, None

    def compute(self, row_N: Tensor, col_N: Tensor) -> RowSparse:
        """Compute the pre-activations at the rows `row_N` and latents `col_N`, in any order, as sparse entries (B, F).

        Each is a dot product of its own, in the inputs' precision and with the bias; its bits do not depend on the
        other entries. They are computed latent by latent, so that each row of W_enc is read once.
        """
        col_N, order_N = col_N.to(torch.int32).sort(stable=True)
        row_N = row_N.to(torch.int32)[order_N]
        pre_N = sample_product(find_starts(col_N, self.shape[1]).int(), col_N, row_N, self.W_enc_FD, self.input_BD)
        if self.b_enc_F is not None:
            pre_N = pre_N + self.b_enc_F[col_N]
        row_N, order_N = row_N.sort(stable=True)
        return RowSparse.from_sorted(row_N, col_N[order_N], pre_N[order_N], self.shape)

    def take(self, rows: Tensor | slice, latents_M: Tensor | None = None) -> "Product":
        """Return the exact product of some rows only, and of all latents or only `latents_M`."""
        W_enc_FD = self.W_enc_FD if latents_M is None else self.W_enc_FD[latents_M]
        b_enc_F = self.b_enc_F if latents_M is None or self.b_enc_F is None else self.b_enc_F[latents_M]
        return Product(self.input_BD[rows], W_enc_FD, b_enc_F)

    def to_dense(self) -> Tensor:
        """Compute the whole matrix of pre-activations in the inputs' precision with the bias, (B, F)."""
        pre_BF = self.input_BD @ self.W_enc_FD.T
        return pre_BF if self.b_enc_F is None else pre_BF.add_(self.b_enc_F)

    def share_above(self, floor_F: Tensor) -> Tensor:
        """Return the share of the first rows' pre-activations that are above the latent's value in `floor_F`, ()."""
        pre_FR = self.W_enc_FD @ self.input_BD[:SAMPLE].T
        if self.b_enc_F is not None:
            pre_FR += self.b_enc_F[:, None]
        return (pre_FR > floor_F[:, None]).float().mean()


def _upper_norm(rows: Tensor) -> Tensor:
    """Return an upper bound of the norm of each row (R, D), (R,), although the squares of small numbers underflow."""
    return rows.norm(dim=1) * (1 + 2.0**-10) + rows.shape[1] ** 0.5 * TINY


def _round_rows(rows: Tensor, extra: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round rows (R, D) to bfloat16; return them, and upper bounds of the norms of rows and of rounding errors, (R,).

    The rounded rows have `extra` columns of zeros more, or a few more still: matrix units take whole groups of columns.
    On a CPU few rows are taken at a time, which stay in the cache meanwhile.
    """
    count, width = rows.shape
    wide = rows.new_empty(count, width + extra + -(width + extra) % 8, dtype=torch.bfloat16)
    rounded = wide[:, :width]
    wide[:, width:] = 0
    if rows.is_cuda:
        rounded.copy_(rows)
        return wide, _upper_norm(rows), _upper_norm(rows - rounded)
    norm, error = rows.new_empty(count), rows.new_empty(count)
    at_a_time = max(1, ROUNDED // width)
    for first in range(0, count, at_a_time):
        part = slice(first, first + at_a_time)
        rounded[part] = rows[part]
        norm[part] = _upper_norm(rows[part])
        error[part] = _upper_norm(rows[part] - rounded[part])
    return wide, norm, error


def _round_up(values: Tensor) -> Tensor:
    """Round to bfloat16, never down."""
    return (values + values.abs() * 2.0**-8).bfloat16()


@contextmanager
def _float32_accumulation(*, tf32: bool) -> Iterator[None]:
    """Make CUDA's products add in float32, and round float32 factors to tf32 or not, within the context."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision, settings.allow_bf16_reduced_precision_reduction
    settings.fp32_precision, settings.allow_bf16_reduced_precision_reduction = "tf32" if tf32 else "ieee", False
    try:
        yield
    finally:
        settings.fp32_precision, settings.allow_bf16_reduced_precision_reduction = before
