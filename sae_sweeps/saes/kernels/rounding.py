"""Kernel that rounds rows to bfloat16 and bounds what the rounding changes, in one pass over them."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _round_rows(
    rows, bias, wide, D: tl.constexpr, STRIDE: tl.constexpr, IS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROUNDING: tl.constexpr, TINY: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W)
    exact = tl.load(rows + row * D + column, mask=column < D, other=0).to(tl.float32)
    rounded = exact.to(tl.bfloat16)
    difference = exact - rounded.to(tl.float32)
    norm = tl.sqrt(tl.sum(exact * exact, 0)) * (1 + 1 / 1024) + TINY
    error = tl.sqrt(tl.sum(difference * difference, 0)) * (1 + 1 / 1024) + TINY
    if IS_WEIGHT:
        first, second = norm + error, error + ROUNDING * norm
    else:
        first, second = error, norm
    # rounded up, never down, also where a conversion cuts the last bits off; further columns are zeros
    first, second = (first + first / 128).to(tl.bfloat16), (second + second / 128).to(tl.bfloat16)
    tl.store(wide + row * STRIDE + column, rounded, mask=column < D)
    place = tl.arange(0, 16)
    extra = tl.where(place == 0, first, tl.where(place == 1, second, 0.0))
    if HAS_BIAS:
        if IS_WEIGHT:
            whole = tl.load(bias + row).to(tl.float32)
            part = whole.to(tl.bfloat16)
            left = whole - part.to(tl.float32)
            left = (left + tl.abs(left) / 128).to(tl.bfloat16)
            extra = tl.where(place == 2, part, tl.where(place == 3, left, extra))
        else:
            extra = tl.where((place == 2) | (place == 3), 1.0, extra)
    tl.store(wide + row * STRIDE + D + place, extra.to(tl.bfloat16), mask=place < STRIDE - D)


def round_rows(rows: Tensor, bias: Tensor | None, *, has_bias: bool, is_weight: bool, tiny: float) -> Tensor:
    """Return rows (R, D) in bfloat16 with the columns that `Product` needs for its bounds, (R, D + J).

    bias: of the latents, (R,), for the rows of W_enc if `has_bias`
    tiny: root of the sum of squares of numbers so small that their squares underflow
    """
    count, width = rows.shape
    extra = 4 if has_bias else 2
    wide = rows.new_empty(count, width + extra + -(width + extra) % 8, dtype=torch.bfloat16)
    block = triton.next_power_of_2(width)
    _round_rows[(count,)](
        rows.contiguous(), bias, wide, width, wide.shape[1], is_weight, has_bias,
        2 * width * torch.finfo(torch.float32).eps, tiny, block, num_warps=max(1, min(8, block // 256)),
    )  # fmt: skip
    return wide
