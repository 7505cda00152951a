"""The strongest activations of each latent, checked against a full search, and meta-latents' activations."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.selection import keep_top_per_row
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.top_activations import TopActivations, compute_meta_activations
from tests.entries import from_flat

SEQUENCES, SEQ_LEN, LATENTS, NEVER = 29, 12, 20, 7


def random_kept(rows, columns, k=5, seed=0):
    """Return the k largest entries per row; some are not positive and kept as zeros."""
    generator = torch.Generator().manual_seed(seed)
    pre_BF = torch.randn(rows, columns, generator=generator, dtype=torch.float64) - 1
    pre_BF *= torch.rand(columns, generator=generator, dtype=torch.float64) + 0.2
    return keep_top_per_row(Product(pre_BF, torch.eye(columns, dtype=torch.float64)), k)


def text(first_position, calls):
    """Return activations (N, S, F) without the first positions of each sequence, dense and per call of `update`."""
    places_NS = torch.arange(SEQUENCES * SEQ_LEN).view(SEQUENCES, SEQ_LEN)[:, first_position:]
    parts = []
    for number, place_nS in enumerate(places_NS.split(calls)):
        kept = random_kept(place_nS.numel(), LATENTS, seed=number)
        parts.append((kept.scale(kept.col_N != NEVER), place_nS.flatten()))
    return torch.cat([kept.to_dense() for kept, _ in parts]).view(*places_NS.shape, LATENTS), parts


def strongest(z_NSF, latent, first_position):
    """Return (value, place) of a latent's strongest activation in each sequence, the strongest first."""
    found = []
    for sequence, z_SF in enumerate(z_NSF):
        value, at = z_SF[:, latent].max(0)
        if value > 0:
            found.append((value.item(), sequence * SEQ_LEN + first_position + at.item()))
    return sorted(found, reverse=True)


def values_around(z_NSF, latent, place, first_position, offsets):
    """Return a latent's values on the tokens around a place; 0 outside of its sequence."""
    sequence, position = divmod(place, SEQ_LEN)
    inside = range(first_position, SEQ_LEN)
    columns = [position + offset for offset in offsets]
    return [z_NSF[sequence, at - first_position, latent].item() if at in inside else 0.0 for at in columns]


@pytest.mark.parametrize("examples", [1, 3, 40])
@pytest.mark.parametrize("first_position", [0, 1])
@pytest.mark.parametrize("calls", [[29], [1] * 29, [10, 1, 18]])
def test_examples_are_the_strongest_activation_of_each_sequence(calls, first_position, examples):
    z_NSF, parts = text(first_position, calls)
    top = TopActivations(LATENTS, examples, SEQ_LEN, torch.device("cpu"), before=2, after=13)
    for kept, place_B in parts:
        top.update(kept, place_B)
    assert top.value.shape == top.place.shape == (LATENTS, examples)
    counts = set()
    for latent in range(LATENTS):
        expected = strongest(z_NSF, latent, first_position)[:examples]
        none = examples - len(expected)
        values, places = ([pair[part] for pair in expected] for part in (0, 1))
        assert top.value[latent].tolist() == pytest.approx(values + [0.0] * none, rel=1e-6)
        assert top.place[latent].tolist() == places + [-1] * none
        counts.add(len(expected))
        around = [values_around(z_NSF, latent, place, first_position, range(-2, 14)) for place in places]
        assert top.around[latent].tolist() == [pytest.approx(one, rel=1e-6) for one in around] + [[0.0] * 16] * none
    assert 0 in counts
    assert len(counts) > 1

    z_AF = z_NSF.flatten(0, 1)
    active_AF = z_AF > 0
    assert top.seen == len(z_AF)
    assert_close(top.frequency.double(), active_AF.double().mean(0), rtol=1e-6, atol=0)
    mean_F = torch.stack([z_A[z_A > 0].mean() if (z_A > 0).any() else z_A.new_zeros(()) for z_A in z_AF.T])
    assert_close(top.mean, mean_F, rtol=1e-12, atol=0)
    assert top.frequency[NEVER] == top.mean[NEVER] == 0


def test_without_active_latents_there_are_no_examples():
    top = TopActivations(LATENTS, 3, SEQ_LEN, torch.device("cpu"))
    assert top.frequency.tolist() == [0] * LATENTS
    none = RowSparse.from_sorted(*torch.empty(2, 0, dtype=torch.int64), torch.empty(0), (SEQ_LEN, LATENTS))
    kept = random_kept(SEQ_LEN, LATENTS)
    for nothing in (none, kept.scale(torch.zeros_like(kept.value))):
        top.update(nothing, torch.arange(SEQ_LEN))
    assert top.seen == 2 * SEQ_LEN
    assert (top.value == 0).all()
    assert (top.place == -1).all()
    assert top.mean.tolist() == [0] * LATENTS


@pytest.mark.parametrize("meta_k", [1, 4])
def test_meta_activations_match_the_dense_product(meta_k):
    kept, weights = random_kept(50, LATENTS), random_kept(LATENTS, 9, meta_k, seed=1)
    found = compute_meta_activations(kept, weights)
    assert found.shape == (50, 9)
    assert_close(found.to_dense(), kept.to_dense() @ weights.to_dense(), rtol=1e-12, atol=1e-12)
    places = set(zip(row_of_each(found), found.col_N.tolist(), strict=True))
    assert len(places) == len(found.value), "each entry occurs once"


def row_of_each(kept):
    return torch.arange(kept.shape[0]).repeat_interleave(kept.crow_Bp1.diff()).tolist()


def test_latents_without_a_decomposition_have_no_meta_activations():
    kept = random_kept(50, LATENTS)
    weight_FM = random_kept(LATENTS, 9, seed=1).to_dense()
    weight_FM[::2] = 0
    flat_N = weight_FM.flatten().nonzero().squeeze(1)
    weights = from_flat(flat_N, weight_FM.flatten()[flat_N], (LATENTS, 9))
    assert_close(
        compute_meta_activations(kept, weights).to_dense(), kept.to_dense() @ weight_FM, rtol=1e-12, atol=1e-12
    )
    none = from_flat(flat_N[:0], flat_N[:0].double(), (LATENTS, 9))
    assert len(compute_meta_activations(kept, none).value) == 0
    assert (compute_meta_activations(kept, none).to_dense() == 0).all()


def test_signed_latents_are_ranked_by_magnitude_and_keep_their_sign():
    """One latent, two sequences of two tokens: -3 and 1, then 2 and 0."""
    top = TopActivations(1, 2, 2, torch.device("cpu"))
    kept = from_flat(torch.arange(3), torch.tensor([-3.0, 1.0, 2.0]), (4, 1))
    top.update(kept, torch.arange(4))
    assert top.value.tolist() == [[-3.0, 2.0]]
    assert top.place.tolist() == [[0, 2]]
    assert top.fired.tolist() == [3]
