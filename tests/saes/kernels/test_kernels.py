"""Each kernel against a slow, obvious computation in float64, at odd sizes."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes.kernels import entries, rounding, scan, update
from tests.saes.kernels.conftest import DEVICE

B, F, D = 17, 37, 12
WIDE = 300  # columns that take two programs
EMPTY, FULL = 5, 7  # a latent that is active nowhere, and one that is active in every row


def sparse(rows=B, latents=F, share=0.2, seed=0):
    """Return a dense mask (latents, rows) with an empty and a full latent, and its CSR form with values."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    mask = torch.rand(latents, rows, generator=generator) < share
    mask[EMPTY], mask[FULL] = False, True
    latent_N, row_N = mask.nonzero().int().T.contiguous()
    start = torch.cat([torch.zeros(1), mask.sum(1).cumsum(0)]).int()
    return mask, start, latent_N, row_N, torch.randn(len(row_N), generator=generator)


def dense(mask, value_N):
    """Return the values as a dense matrix in float64."""
    matrix = torch.zeros(mask.shape, dtype=torch.float64)
    matrix[mask] = value_N.double()
    return matrix


@pytest.mark.parametrize("width", [D, WIDE])
@pytest.mark.parametrize("left_over", [0, 9])  # places behind the last entry
def test_multiply_gathers_and_adds_rows(width, left_over):
    mask, start, _, row_N, value_N = sparse()
    right = torch.randn(B, width)
    expected = dense(mask, value_N) @ right.double()
    row_N = torch.cat([row_N, torch.full((left_over,), 10**6, dtype=torch.int32)])
    value_N = torch.cat([value_N, torch.full((left_over,), torch.nan)])
    found = entries.multiply(start, row_N, value_N, right)
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert found[EMPTY].eq(0).all()
    poisoned = torch.full_like(found, torch.nan)
    assert entries.multiply(start, row_N, value_N, right, poisoned) is poisoned
    assert torch.equal(poisoned, found)


@pytest.mark.parametrize("width", [D, WIDE])
def test_sample_product_computes_dot_products_at_the_entries(width):
    mask, start, latent_N, row_N, _ = sparse()
    left, right = torch.randn(F, width), torch.randn(B, width)
    places = [torch.cat([each, each.new_full((9,), 10**6)]) for each in (latent_N, row_N)]
    found = entries.sample_product(start, *places, left, right)
    count = len(row_N)
    assert_close(found[:count].double(), (left.double() @ right.double().T)[mask], rtol=1e-5, atol=1e-5)
    assert found[count:].eq(0).all()
    assert len(entries.sample_product(start * 0, latent_N[:0], row_N[:0], left, right)) == 0


def test_sum_rows_adds_the_values_of_each_row():
    mask, start, _, _, value_N = sparse(rows=401)  # more than a program adds at a time
    assert_close(entries.sum_rows(start, value_N).double(), dense(mask, value_N).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("capacity", [3, 60, 500])
def test_compact_moves_marked_entries_to_the_front(capacity):
    _, _, latent_N, row_N, value_N = sparse()
    kept = value_N > 0.3
    before = kept.cumsum(0, dtype=torch.int32) - kept.int()
    for found, all_N in zip(
        entries.compact(kept, before, row_N, latent_N, value_N, capacity), (row_N, latent_N, value_N), strict=True
    ):
        expected = all_N[kept][:capacity]
        assert torch.equal(found[: len(expected)], expected)
        assert found[len(expected) :].eq(0).all()


@pytest.mark.parametrize(  # one part of the rows, two parts, two programs
    ("rows", "floors", "dtype"),
    [
        (B, "by latent", torch.bfloat16),
        (300, "one", torch.bfloat16),
        (300, "by row", torch.float32),
        (4200, "by row", torch.bfloat16),
    ],
)
def test_candidates_are_the_bounds_of_at_least_the_floor(rows, floors, dtype):
    latents = F if rows == B else FULL + 1
    upper_FR = torch.randn(latents, rows).to(dtype)
    shape = {"one": (), "by latent": (latents, 1), "by row": (rows,)}[floors]
    least = (1.5 + torch.rand(shape)).to(dtype)
    upper_FR[EMPTY], upper_FR[FULL] = -torch.inf, 9
    latent_N, row_N = (upper_FR >= least).nonzero().T
    start, found_rows, found_latents = scan.find_candidates(upper_FR, least, len(row_N) + 5)
    assert torch.equal(start[1:], (upper_FR >= least).sum(1).cumsum(0).int())
    assert start[0] == 0
    assert torch.equal(found_rows, torch.cat([row_N, row_N.new_zeros(5)]).int())
    assert torch.equal(found_latents, torch.cat([latent_N, row_N.new_zeros(5)]).int())
    _, fewer, _ = scan.find_candidates(upper_FR, least, 7)
    assert torch.equal(fewer, row_N[:7].int())


@pytest.mark.parametrize("group", [1, 4, 64])
def test_group_maxima_are_the_largest_of_each_group(group):
    upper_FR = torch.randn(F, 300).bfloat16()
    expected = torch.stack([part.amax(0) for part in upper_FR.split(group)], 1)
    assert torch.equal(scan.find_group_maxima(upper_FR, group), expected)


def test_fill_rows_puts_each_key_into_its_row():
    row_N = torch.randint(0, B, (200,)).int()
    key_N, count = torch.arange(200) - 100, torch.tensor([150], dtype=torch.int32)
    found, used = scan.fill_rows(count, row_N, key_N, B, 30)
    assert torch.equal(used.long(), row_N[:150].long().bincount(minlength=B))
    lowest = torch.iinfo(torch.int64).min
    for row in range(B):
        keys = found[row][found[row] != lowest]
        assert torch.equal(keys.sort().values, key_N[:150][row_N[:150] == row])
    few, used = scan.fill_rows(count, row_N, key_N, B, 2)
    assert (few != lowest).sum() == used.clamp(max=2).sum()


def adam(weight, mean, square, gradient, rate, root, betas, epsilon):
    mean.mul_(betas[0]).add_((1 - betas[0]) * gradient)
    square.mul_(betas[1]).add_((1 - betas[1]) * gradient**2)
    return weight - rate * mean / (square.sqrt() / root + epsilon)


@pytest.mark.parametrize(  # part: entries that are added at once
    ("width", "part", "has_extra", "normalize_first"),
    [(D, 256, False, False), (D, 256, True, True), (D, 6, False, True), (WIDE, 6, True, False)],
)
def test_the_update_is_adams_with_unit_decoder_rows(width, part, has_extra, normalize_first, monkeypatch):
    monkeypatch.setattr(update, "PART", part)
    mask, start, _, row_N, value_N = sparse()
    pre_N, grad_BD, input_BD = torch.randn(len(row_N)), torch.randn(B, width), torch.randn(B, width)
    W_dec, W_enc = torch.nn.functional.normalize(torch.randn(F, width), dim=1), torch.randn(F, width)
    if normalize_first:
        W_dec *= 0.5 + torch.rand(F, 1)
    moments = [update.Moments(torch.randn(F, width), torch.rand(F, width)) for _ in range(2)]
    extra, extra_rows = None, torch.zeros(2, F, width, dtype=torch.float64)
    if has_extra:
        index = torch.full((F,), -1, dtype=torch.int32)
        index[[3, FULL]] = torch.tensor([1, 0], dtype=torch.int32)
        extra = (index, torch.randn(2, width), torch.randn(2, width))
        for matrix, added in zip(extra_rows, extra[1:], strict=True):
            matrix[[FULL, 3]] = added.double()
    gradients = update.SparseGradients(start, row_N, value_N, grad_BD, row_N, pre_N, input_BD, extra)
    rule = update.AdamRule(torch.tensor([0.01, 0.3]), (0.8, 0.99), 1e-8)

    grad_dec = dense(mask, value_N) @ grad_BD.double() + extra_rows[0]
    grad_enc = dense(mask, pre_N) @ input_BD.double() + extra_rows[1]
    start_dec = W_dec.double()
    grad_dec -= (grad_dec * start_dec).sum(1, keepdim=True) / start_dec.square().sum(1, keepdim=True) * start_dec
    if normalize_first:
        start_dec = torch.nn.functional.normalize(start_dec, dim=1)
    doubles = [(each.mean.double(), each.square.double()) for each in moments]
    expected_dec = adam(start_dec, *doubles[0], grad_dec, 0.01, 0.3, rule.betas, rule.epsilon)
    if not normalize_first:
        expected_dec = torch.nn.functional.normalize(expected_dec, dim=1)
    expected_enc = adam(W_enc.double(), *doubles[1], grad_enc, 0.01, 0.3, rule.betas, rule.epsilon)

    before = W_dec.clone(), W_enc.clone(), moments[0].mean.clone()
    for skipped in (1, 0):
        update.update_weights(
            W_dec, W_enc, tuple(moments), gradients, rule,
            skipped=torch.tensor([skipped]), normalize_first=normalize_first,
        )  # fmt: skip
        if skipped:
            assert all(map(torch.equal, before, (W_dec, W_enc, moments[0].mean)))
    pairs = [(W_dec, expected_dec), (W_enc, expected_enc)]
    pairs += [(getattr(a, name), b) for a, two in zip(moments, doubles, strict=True)
              for name, b in zip(("mean", "square"), two, strict=True)]  # fmt: skip
    for found, expected in pairs:
        assert_close(found.double(), expected, rtol=1e-4, atol=2e-5)


def test_the_update_of_a_vector_is_adams():
    weight, gradient, moments = (
        torch.randn(1500),
        torch.randn(1500),
        update.Moments(torch.randn(1500), torch.rand(1500)),
    )
    rule = update.AdamRule(torch.tensor([0.01, 0.3]), (0.9, 0.999), 1e-8)
    doubles = moments.mean.double(), moments.square.double()
    expected = adam(weight.double(), *doubles, gradient.double(), 0.01, 0.3, rule.betas, rule.epsilon)
    before = weight.clone()
    update.update_vector(weight, moments, gradient, rule, skipped=torch.tensor([1]))
    assert torch.equal(weight, before)
    update.update_vector(weight, moments, gradient, rule, skipped=torch.tensor([0]))
    assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert_close(moments.square.double(), doubles[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("is_weight", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("width", [D, WIDE])
def test_rounded_rows_have_bounds_that_hold(width, has_bias, is_weight):
    rows = torch.randn(B, width) * torch.logspace(-30, 3, B)[:, None]
    bias = torch.randn(B) if has_bias else None
    tiny = width**0.5 * 2.0**-62
    wide = rounding.round_rows(rows, bias, has_bias=has_bias, is_weight=is_weight, tiny=tiny)
    assert wide.shape[1] % 8 == 0
    # the interpreter cuts bits off where a GPU rounds; the bounds are of the operands as they are
    assert_close(wide[:, :width].float(), rows, rtol=2.0**-7, atol=0)
    norm = rows.double().norm(dim=1)
    error = (rows.double() - wide[:, :width].double()).norm(dim=1)
    slack = 2 * width * torch.finfo(torch.float32).eps * norm
    expected = (norm + error, error + slack) if is_weight else (error, norm)
    for found, least in zip(wide[:, width : width + 2].double().T, expected, strict=True):
        assert (found >= least).all()
        assert (found <= 1.02 * least + 1.02 * (2 * tiny)).all()
    if has_bias and is_weight:
        sums = wide[:, width + 2].double() + wide[:, width + 3].double()
        assert (sums >= bias.double()).all()
        assert_close(sums, bias.double(), rtol=2.0**-13, atol=0)
    elif has_bias:
        assert wide[:, width + 2 : width + 4].eq(1).all()
    assert wide[:, width + (4 if has_bias else 2) :].eq(0).all()
