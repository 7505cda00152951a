"""Kernels that read a block of upper bounds (F, R) once or twice and leave its candidates, latent by latent."""

# F latents, R rows, G groups of latents, P parts of a latent's row, C places for candidates, L places in each row

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 256  # bounds of a latent that are counted together; a part without candidates is not read again
PARTS = 16  # parts that a program counts
SLOTS = 1024  # candidates that a program of `fill_rows` takes


@triton.jit
def _count_parts(upper, least, counts, R, by_latent, by_row, P, W: tl.constexpr, T: tl.constexpr):
    latent = tl.program_id(0)
    part = tl.program_id(1) * T + tl.arange(0, T)
    row = part[:, None] * W + tl.arange(0, W)[None, :]
    inside = row < R
    bound = tl.load(upper + latent.to(tl.int64) * R + row, mask=inside, other=float("-inf")).to(tl.float32)
    floor = tl.load(least + latent * by_latent + row * by_row, mask=inside, other=float("inf")).to(tl.float32)
    found = tl.sum((bound >= floor).to(tl.int32), 1)
    tl.store(counts + latent * P + part, found, mask=part < P)


@triton.jit
def _write_parts(
    upper, least, before, row_out, latent_out, R, by_latent, by_row, P, C, W: tl.constexpr, T: tl.constexpr
):
    latent = tl.program_id(0)
    lane = tl.arange(0, W)
    for part in range(tl.program_id(1) * T, tl.minimum(tl.program_id(1) * T + T, P)):
        first = tl.load(before + latent * P + part)
        if tl.load(before + latent * P + part + 1) > first:
            row = part * W + lane
            inside = row < R
            bound = tl.load(upper + latent.to(tl.int64) * R + row, mask=inside, other=float("-inf")).to(tl.float32)
            floor = tl.load(least + latent * by_latent + row * by_row, mask=inside, other=float("inf")).to(tl.float32)
            found = bound >= floor
            to = first + tl.cumsum(found.to(tl.int32), 0) - 1
            tl.store(row_out + to, row, mask=found & (to < C))
            tl.store(latent_out + to, tl.zeros_like(row) + latent, mask=found & (to < C))


def find_candidates(upper_FR: Tensor, least: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the bounds of at least `least`, which broadcasts with the block, in the order of latents and rows.

    Returns: where each latent's candidates begin, int32 (F + 1,), also where they do not fit; and rows and latents of
    the candidates, int32 (capacity,), with zeros behind the last.
    """
    latents, rows = upper_FR.shape
    parts = triton.cdiv(rows, PART)
    by_latent, by_row = least.expand(latents, rows).stride()
    before = torch.zeros(latents * parts + 1, dtype=torch.int32, device=upper_FR.device)
    counts, grid = torch.empty_like(before[1:]), (latents, triton.cdiv(parts, PARTS))
    _count_parts[grid](upper_FR, least, counts, rows, by_latent, by_row, parts, PART, PARTS, num_warps=4)
    torch.cumsum(counts, 0, dtype=torch.int32, out=before[1:])
    row_C, latent_C = (torch.zeros(capacity, dtype=torch.int32, device=upper_FR.device) for _ in range(2))
    _write_parts[grid](
        upper_FR, least, before, row_C, latent_C, rows, by_latent, by_row, parts, capacity, PART, PARTS, num_warps=1
    )
    return before[::parts].contiguous(), row_C, latent_C


@triton.jit
def _find_group_maxima(upper, out, F, R, GROUP: tl.constexpr, W: tl.constexpr):
    group = tl.program_id(0)
    row = tl.program_id(1) * W + tl.arange(0, W)
    largest = tl.full((W,), float("-inf"), tl.float32)
    for member in range(GROUP):
        latent = group * GROUP + member
        inside = row < tl.where(latent < F, R, 0)
        bound = tl.load(upper + latent.to(tl.int64) * R + row, mask=inside, other=float("-inf")).to(tl.float32)
        largest = tl.maximum(largest, bound)
    tl.store(out + row * tl.num_programs(0) + group, largest, mask=row < R)


def find_group_maxima(upper_FR: Tensor, group: int) -> Tensor:
    """Return the largest bound of each row among each `group` latents, (R, G); the last group may be smaller."""
    latents, rows = upper_FR.shape
    out = upper_FR.new_empty(rows, triton.cdiv(latents, group))
    grid = (out.shape[1], triton.cdiv(rows, PART))
    _find_group_maxima[grid](upper_FR, out, latents, rows, group, PART, num_warps=1)
    return out


@triton.jit
def _fill_rows(count, row, key, used, out, N, L, W: tl.constexpr):
    entry = tl.program_id(0) * W + tl.arange(0, W)
    held = entry < tl.minimum(tl.load(count), N)
    own = tl.load(row + entry, mask=held, other=0)
    slot = tl.atomic_add(used + own, 1, mask=held)
    tl.store(out + own.to(tl.int64) * L + slot, tl.load(key + entry, mask=held, other=0), mask=held & (slot < L))


def fill_rows(count_1: Tensor, row_N: Tensor, key_N: Tensor, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Write the first `count_1` keys, int64 (N,), to places in the row of each, in no certain order.

    Returns: the keys, (rows, width), with the lowest of all numbers where there is none; and how many keys each row
    has, int32 (rows,), also where more than `width` of them do not fit.
    """
    used = torch.zeros(rows, dtype=torch.int32, device=row_N.device)
    out = torch.full((rows, width), torch.iinfo(torch.int64).min, device=row_N.device)
    grid = (triton.cdiv(len(row_N), SLOTS),)
    _fill_rows[grid](count_1, row_N, key_N, used, out, len(row_N), width, SLOTS, num_warps=4)
    return out, used
