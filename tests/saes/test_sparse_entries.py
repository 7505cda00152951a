"""Operations on the kept entries of a matrix, compared with the dense matrix."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.selection import keep_top_per_row
from sae_sweeps.saes.sparse import Dense, RowSparse
from tests.entries import from_flat

B, F, D = 13, 29, 6


def entries(pre_BF, at_BF):
    """Return the entries of a matrix where `at` is true."""
    flat_N = at_BF.flatten().nonzero().squeeze(1)
    return from_flat(flat_N, pre_BF.flatten()[flat_N], pre_BF.shape)


@pytest.fixture(params=["in order", "in any order", "scaled", "none"])
def kept(request) -> RowSparse:
    """Return entries with empty rows at both ends and in the middle, or with the same number in every row.

    Their activations may differ from their pre-activations.
    """
    generator = torch.Generator().manual_seed(0)
    pre_BF = torch.randn(B, F, generator=generator, dtype=torch.float64)
    if request.param == "in any order":
        return keep_top_per_row(Product(pre_BF, torch.eye(F, dtype=torch.float64)), 4)
    at_BF = torch.rand(B, F, generator=generator) < (0 if request.param == "none" else 0.3)
    at_BF[[0, 5, B - 1]] = False
    found = entries(pre_BF, at_BF)
    if request.param == "scaled":
        found.value = found.pre * (found.pre > 0.5)
    return found


def dense_pre(kept):
    return RowSparse(kept.crow_Bp1, kept.col_N, kept.pre, kept.shape).to_dense()


def test_entries_come_from_sorted_rows(kept):
    row_N = torch.arange(B).repeat_interleave(kept.crow_Bp1.diff())
    again = RowSparse.from_sorted(row_N, kept.col_N, kept.pre, kept.shape)
    expected_BF = torch.zeros(B, F, dtype=torch.float64)
    for row, column, pre in zip(row_N.tolist(), kept.col_N.tolist(), kept.pre.tolist(), strict=True):
        expected_BF[row, column] = pre
    assert again.shape == (B, F)
    assert torch.equal(again.to_dense(), expected_BF)
    assert torch.equal(again.crow_Bp1, kept.crow_Bp1)


@pytest.mark.parametrize(("first", "count"), [(0, B), (0, 1), (3, 4), (5, 1), (B - 2, 2), (B - 2, 7), (4, 0)])
def test_slice_rows_gives_rows_of_the_matrix(kept, first, count):
    part = kept.slice_rows(first, min(count, B - first))
    assert part.shape == (min(count, B - first), F)
    assert torch.equal(part.to_dense(), kept.to_dense()[first : first + count])
    assert torch.equal(dense_pre(part), dense_pre(kept)[first : first + count])
    weight_FD = torch.randn(F, D, dtype=torch.float64)
    if count > 0:
        assert_close(part.decode(weight_FD), kept.decode(weight_FD)[first : first + count])


def test_transpose_gives_the_transposed_matrix(kept):
    turned = kept.transpose()
    assert turned.shape == (F, B)
    assert torch.equal(turned.to_dense(), kept.to_dense().T)
    assert torch.equal(dense_pre(turned), dense_pre(kept).T)
    weight_BD = torch.randn(B, D, dtype=torch.float64)
    assert_close(turned.decode(weight_BD), kept.to_dense().T @ weight_BD)
    assert torch.equal(turned.transpose().to_dense(), kept.to_dense())


def test_scale_changes_only_activations_and_not_the_original(kept):
    before_BF, pre_BF = kept.to_dense(), dense_pre(kept)
    factor_F = torch.randn(F, dtype=torch.float64)
    scaled = kept.scale(kept.gather(factor_F))
    assert_close(scaled.to_dense(), before_BF * factor_F)
    assert torch.equal(dense_pre(scaled), pre_BF)
    assert torch.equal(kept.to_dense(), before_BF)
    there_F = torch.arange(F) % 2 == 0
    assert torch.equal(kept.scale(kept.gather(there_F)).to_dense(), before_BF * there_F)


def test_a_latent_is_active_where_it_is_not_0():
    """So that activations may be negative, in every layout."""
    value_BF = torch.tensor([[0.0, -2.0, 0.0], [1.0, 0.0, 0.0]])
    rows = from_flat(torch.arange(6), value_BF.flatten(), (2, 3))
    dense = Dense(value_BF)
    for layout in (rows, rows.to_columns(), dense):
        assert layout.active.sum() == 2
    for layout in (rows, dense):
        assert layout.find_fired().tolist() == [True, True, False]
