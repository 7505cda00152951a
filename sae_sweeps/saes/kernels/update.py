"""Kernel of Adam's step on W_enc and W_dec, which makes their gradients from the entries and never stores them.

For each latent one program adds up both gradients in registers, takes the part along the decoder row away, takes Adam's
step, and rescales the row. A latent with many entries is added up by several programs before, part by part.
"""

# B activations in a batch, R decoded rows, D their width, F latents, N places for entries, I parts of latents

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 256  # entries that a program adds; a latent with more has several parts
ROWS = 4  # rows that a program gathers at a time
PART_ROWS, PART_COLUMNS = 8, 256  # rows and columns at a time of a program that adds a part


@dataclass
class Moments:
    """Adam's running means of a parameter's gradient and of its square, in the parameter's shape."""

    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class AdamRule:
    """What Adam's step depends on beside the gradient: `rate_2` holds lr / (1 - beta1^t) and sqrt(1 - beta2^t)."""

    rate_2: Tensor
    betas: tuple[float, float]
    epsilon: float

    @property
    def factors(self) -> tuple[float, float, float]:
        """Return 1 - beta1, beta2 and 1 - beta2; the differences are exact here, and would not be in float32."""
        return 1 - self.betas[0], self.betas[1], 1 - self.betas[1]


@dataclass
class SparseGradients:
    """The gradients of W_dec and W_enc as sums over the entries of each latent.

    Shapes: start_Fp1 (F + 1,); per entry (N,): row of grad_RD, activation, row of input_BD, gradient by the
    pre-activation. `extra` adds rows: for each latent the index of its row or -1 (F,), and rows for W_dec and W_enc.
    """

    start_Fp1: Tensor
    decoded_N: Tensor
    value_N: Tensor
    grad_RD: Tensor
    row_N: Tensor
    pre_N: Tensor
    input_BD: Tensor
    extra: tuple[Tensor, Tensor, Tensor] | None = None


@triton.jit
def _add_entries(
    first, end, decoded, value, grad, row, pre, inputs, column, D: tl.constexpr, U: tl.constexpr, W: tl.constexpr
):
    """Return the sums over some entries for W_dec and W_enc, (W,) each."""
    lane = tl.arange(0, U)
    inside = (column < D)[None, :]
    for_dec = tl.zeros((U, W), tl.float32)
    for_enc = tl.zeros((U, W), tl.float32)
    for at in range(first, end, U):
        held = at + lane < end
        to = tl.load(decoded + at + lane, mask=held, other=0).to(tl.int64)
        weight = tl.load(value + at + lane, mask=held, other=0)
        for_dec += weight[:, None] * tl.load(
            grad + to[:, None] * D + column[None, :], mask=held[:, None] & inside, other=0
        )
        to = tl.load(row + at + lane, mask=held, other=0).to(tl.int64)
        weight = tl.load(pre + at + lane, mask=held, other=0)
        for_enc += weight[:, None] * tl.load(
            inputs + to[:, None] * D + column[None, :], mask=held[:, None] & inside, other=0
        )
    return tl.sum(for_dec, 0), tl.sum(for_enc, 0)


@triton.jit
def _add_parts(
    start, latent_of, part_of, decoded, value, grad, row, pre, inputs, sums,
    D: tl.constexpr, PART: tl.constexpr, U: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0)
    latent = tl.load(latent_of + item)
    if latent >= 0:
        column = tl.program_id(1) * W + tl.arange(0, W)
        first = tl.load(start + latent) + tl.load(part_of + item) * PART
        end = tl.minimum(first + PART, tl.load(start + latent + 1))
        for_dec, for_enc = _add_entries(first, end, decoded, value, grad, row, pre, inputs, column, D, U, W)
        tl.store(sums + (item * 2).to(tl.int64) * D + column, for_dec, mask=column < D)
        tl.store(sums + (item * 2 + 1).to(tl.int64) * D + column, for_enc, mask=column < D)


@triton.jit
def _take_adam_step(weight, mean, square, place, gradient, mask, rate, root, new1, beta2, new2, epsilon):
    """Return the weights after Adam's step, and store the running means."""
    first = tl.load(mean + place, mask=mask, other=0)
    second = tl.load(square + place, mask=mask, other=0)
    first = first + new1 * (gradient - first)
    second = beta2 * second + new2 * gradient * gradient
    tl.store(mean + place, first, mask=mask)
    tl.store(square + place, second, mask=mask)
    return weight - rate * first / (tl.sqrt(second) / root + epsilon)


@triton.jit
def _update_rows(
    start, item_of, decoded, value, grad, row, pre, inputs, sums, extra_of, extra_dec, extra_enc,
    W_dec, dec_mean, dec_square, W_enc, enc_mean, enc_square, rates, skipped, new1, beta2, new2, epsilon,
    NORMALIZE_FIRST: tl.constexpr, HAS_EXTRA: tl.constexpr,
    D: tl.constexpr, PART: tl.constexpr, U: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    if tl.load(skipped) != 0:
        return
    latent = tl.program_id(0)
    column = tl.arange(0, W)
    inside = column < D
    place = latent.to(tl.int64) * D + column
    first, end = tl.load(start + latent), tl.load(start + latent + 1)
    if end - first > PART:
        for_dec = tl.zeros((W,), tl.float32)
        for_enc = tl.zeros((W,), tl.float32)
        item = tl.load(item_of + latent)
        for part in range(tl.cdiv(end - first, PART)):
            stored = sums + ((item + part) * 2).to(tl.int64) * D + column
            for_dec += tl.load(stored, mask=inside, other=0)
            for_enc += tl.load(stored + D, mask=inside, other=0)
    else:
        for_dec, for_enc = _add_entries(first, end, decoded, value, grad, row, pre, inputs, column, D, U, W)
    if HAS_EXTRA:
        index = tl.load(extra_of + latent).to(tl.int64)
        added = column < tl.where(index >= 0, D, 0)
        for_dec += tl.load(extra_dec + index * D + column, mask=added, other=0)
        for_enc += tl.load(extra_enc + index * D + column, mask=added, other=0)
    rate, root = tl.load(rates), tl.load(rates + 1)
    weight = tl.load(W_dec + place, mask=inside, other=0)
    if NORMALIZE_FIRST:
        squares = tl.sum(weight * weight, 0)
        for_dec -= tl.sum(for_dec * weight, 0) / squares * weight
        weight = weight / tl.sqrt(squares)
    else:
        for_dec -= tl.sum(for_dec * weight, 0) * weight
    weight = _take_adam_step(
        weight, dec_mean, dec_square, place, for_dec, inside, rate, root, new1, beta2, new2, epsilon
    )
    if not NORMALIZE_FIRST:
        weight = weight / tl.sqrt(tl.sum(weight * weight, 0))
    tl.store(W_dec + place, weight, mask=inside)
    weight = tl.load(W_enc + place, mask=inside, other=0)
    weight = _take_adam_step(
        weight, enc_mean, enc_square, place, for_enc, inside, rate, root, new1, beta2, new2, epsilon
    )
    tl.store(W_enc + place, weight, mask=inside)


def warps_for(block: int) -> int:
    """Return the warps of a program that holds rows of `block` columns."""
    return max(1, min(16, block // 256))


def update_weights(
    W_dec_FD: Tensor, W_enc_FD: Tensor, moments: tuple[Moments, Moments], gradients: SparseGradients, rule: AdamRule,
    *, skipped: Tensor, normalize_first: bool,
) -> None:  # fmt: skip
    """Take Adam's step on W_dec and W_enc, in place, with their moments in the same order.

    The gradient of W_dec has no part along its rows, which keep unit norm: they are rescaled after the step, or before
    it with `normalize_first`. Nothing is changed if `skipped`, int (1,), is not 0.
    """
    latents, width = W_dec_FD.shape
    block = triton.next_power_of_2(width)
    entries = (
        gradients.decoded_N, gradients.value_N, gradients.grad_RD.contiguous(),
        gradients.row_N, gradients.pre_N, gradients.input_BD.contiguous(),
    )  # fmt: skip
    item_of, latent_of, part_of = _cut_into_parts(gradients.start_Fp1, len(gradients.value_N))
    sums = W_dec_FD.new_empty(len(latent_of), 2, width)
    grid = (len(latent_of), triton.cdiv(width, PART_COLUMNS))
    _add_parts[grid](
        gradients.start_Fp1, latent_of, part_of, *entries, sums, width, PART, PART_ROWS, PART_COLUMNS, num_warps=2
    )
    dec, enc = moments
    _update_rows[(latents,)](
        gradients.start_Fp1, item_of, *entries, sums, *(gradients.extra or (None, None, None)),
        W_dec_FD, dec.mean, dec.square, W_enc_FD, enc.mean, enc.square,
        rule.rate_2, skipped, *rule.factors, rule.epsilon,
        normalize_first, gradients.extra is not None, width, PART, ROWS, block, num_warps=warps_for(block),
    )  # fmt: skip


def _cut_into_parts(start_Fp1: Tensor, entries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut latents with more than PART entries into parts.

    Returns: the index of each latent's first part, (F,); and the latent, or -1, and the number of each part, (I,).
    """
    count_F = start_Fp1.diff()
    parts_F = torch.where(count_F > PART, (count_F + PART - 1) // PART, 0)
    end_F = parts_F.cumsum(0)
    item_of_F = end_F - parts_F
    items = torch.arange(max(1, 2 * entries // PART), device=start_Fp1.device)
    latent_I = torch.searchsorted(end_F, items, right=True)
    known = latent_I < len(count_F)
    latent_I = torch.where(known, latent_I, -1)
    part_I = items - item_of_F[latent_I.clamp(min=0)]
    return item_of_F.to(torch.int32), latent_I.to(torch.int32), part_I.to(torch.int32)


@triton.jit
def _update_vector(weight, mean, square, gradient, rates, skipped, new1, beta2, new2, epsilon, N, W: tl.constexpr):
    if tl.load(skipped) != 0:
        return
    place = tl.program_id(0) * W + tl.arange(0, W)
    inside = place < N
    by = tl.load(gradient + place, mask=inside, other=0)
    before = tl.load(weight + place, mask=inside, other=0)
    rate, root = tl.load(rates), tl.load(rates + 1)
    after = _take_adam_step(before, mean, square, place, by, inside, rate, root, new1, beta2, new2, epsilon)
    tl.store(weight + place, after, mask=inside)


def update_vector(weight: Tensor, moments: Moments, gradient: Tensor, rule: AdamRule, *, skipped: Tensor) -> None:
    """Take Adam's step on a vector, in place, as `update_weights` does."""
    size = weight.numel()
    _update_vector[(triton.cdiv(size, 1024),)](
        weight, moments.mean, moments.square, gradient.contiguous(), rule.rate_2, skipped, *rule.factors, rule.epsilon,
        size, 1024, num_warps=4,
    )  # fmt: skip
