"""Meta-SAEs: the stream of directions, decompositions, and planted meta-latents that are found."""

import pytest
import torch
from sklearn.linear_model import orthogonal_mp
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import BatchTopKSAE, TopKSAE, encoder
from sae_sweeps.saes.selection import keep_top_of_batch
from sae_sweeps.studies import meta_sae
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.meta_sae import (
    compute_explained_share,
    compute_explained_variance,
    decompose,
    expand_to_all_latents,
    orthogonal_matching_pursuit,
    replace_directions,
    set_threshold,
    shuffle_directions,
)
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train
from tests.entries import from_flat

A, D, M = 103, 16, 40


def random_directions(count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, D, generator=generator, dtype=dtype), dim=1)


def rows_of(x_AD):
    return {tuple(row) for row in x_AD.tolist()}


def test_a_chunk_has_as_many_distinct_directions_as_fill_whole_batches():
    directions_AD = random_directions(A)
    stream = TensorStream(directions_AD, 20, seed=3)
    assert stream.chunk_size == 100
    left_out = set()
    for index in range(4):
        chunk_AD = stream.chunk(index)
        assert chunk_AD.shape == (100, D)
        assert len(rows_of(chunk_AD)) == 100
        assert rows_of(chunk_AD) < rows_of(directions_AD)
        left_out |= {frozenset(rows_of(directions_AD) - rows_of(chunk_AD))}
    assert len(left_out) == 4


def test_a_chunk_depends_on_the_seed_and_its_number_alone():
    directions_AD = random_directions(A)
    chunks = {}
    for seed in (0, 1):
        stream = TensorStream(directions_AD, 20, seed=seed)
        for index in (4, 0, 1):
            chunks[seed, index] = stream.chunk(index)
        assert torch.equal(stream.chunk(4), chunks[seed, 4])
        assert torch.equal(TensorStream(directions_AD, 20, seed=seed).chunk(1), chunks[seed, 1])
    assert len({tuple(chunk_AD[:, 0].tolist()) for chunk_AD in chunks.values()}) == len(chunks)


def test_one_batch_can_hold_all_directions():
    directions_AD = random_directions(A)
    assert rows_of(TensorStream(directions_AD, A).chunk(5)) == rows_of(directions_AD)


@pytest.mark.parametrize("batch_size", [0, -1, A + 1])
def test_directions_that_fill_no_batch_are_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: must be at"):
        TensorStream(random_directions(A), batch_size)


@pytest.mark.parametrize("rows", [1, 7, A])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_set_threshold_makes_k_entries_per_direction_active(k, rows, monkeypatch):
    monkeypatch.setattr(encoder, "BLOCK", rows * M)
    meta, directions_AD = BatchTopKSAE(D, M, k, normalize_input=False), random_directions(A)
    meta.center(directions_AD.mean(0))
    set_threshold(meta, directions_AD)
    kept = decompose(meta, directions_AD)
    assert kept.shape == (A, M)
    assert kept.active.sum() == len(kept.value) == k * A
    product = meta.product(meta.encoder_input(directions_AD))
    assert torch.equal(kept.to_dense(), keep_top_of_batch(product, k).to_dense())
    assert (meta.encode(directions_AD) > 0).sum() == k * A


def test_set_threshold_makes_all_positive_entries_active_if_they_are_fewer():
    meta, directions_AD = BatchTopKSAE(D, M, 30, normalize_input=False), random_directions(A)
    meta.threshold.fill_(5.0)
    set_threshold(meta, directions_AD)
    positive = (directions_AD @ meta.W_enc.T > 0).sum()
    assert 0 < positive < 30 * A
    assert decompose(meta, directions_AD).active.sum() == positive


def test_a_reconstruction_is_the_sum_of_the_decomposition():
    meta, directions_AD = BatchTopKSAE(D, M, 3, normalize_input=False), random_directions(A)
    meta.center(directions_AD.mean(0))
    set_threshold(meta, directions_AD)
    expected_AD = decompose(meta, directions_AD).to_dense() @ meta.W_dec + meta.b_dec
    assert_close(meta(directions_AD), expected_AD.detach(), rtol=1e-5, atol=1e-6)


def test_explained_variance_is_the_share_of_the_squares_around_the_mean():
    directions_AD = random_directions(A)
    mean_D, rough_AD = directions_AD.mean(0), directions_AD + 0.1 * random_directions(A, seed=1)
    left = sum((one - other) ** 2 for one, other in zip(directions_AD.flatten(), rough_AD.flatten(), strict=True))
    spread = sum((one_D - mean_D).square().sum() for one_D in directions_AD)
    assert compute_explained_variance(directions_AD, rough_AD) == pytest.approx(1 - (left / spread).item(), rel=1e-5)
    assert compute_explained_variance(directions_AD, directions_AD) == 1
    assert compute_explained_variance(directions_AD, mean_D.expand(A, D)) == pytest.approx(0, abs=1e-6)
    assert compute_explained_variance(directions_AD, -directions_AD) < 0


def pursued_by_sklearn(directions_AD, atoms_MD, k):
    mean_D = directions_AD.mean(0)
    unit_DM = torch.nn.functional.normalize(atoms_MD, dim=1).T.numpy()
    weights_MA = orthogonal_mp(unit_DM, (directions_AD - mean_D).T.numpy(), n_nonzero_coefs=k)
    return torch.from_numpy((unit_DM @ weights_MA).T) + mean_D


@pytest.mark.parametrize("entries", [1, 500, 2**24])
@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_orthogonal_matching_pursuit_agrees_with_sklearn(k, entries, monkeypatch):
    monkeypatch.setattr(meta_sae, "TILE_ENTRIES", entries)
    directions_AD = random_directions(A, dtype=torch.float64) + 0.2
    atoms_MD = 3 * random_directions(M, seed=1, dtype=torch.float64)
    expected_AD = pursued_by_sklearn(directions_AD, atoms_MD, k)
    assert_close(orthogonal_matching_pursuit(directions_AD, atoms_MD, k), expected_AD, rtol=1e-5, atol=1e-5)
    found_AD = orthogonal_matching_pursuit(directions_AD.float(), atoms_MD.float(), k)
    assert_close(found_AD.double(), expected_AD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_duplicate_and_zero_atoms_change_nothing(dtype):
    directions_AD = random_directions(A, dtype=dtype)
    atoms_MD = random_directions(10, seed=1, dtype=dtype)
    more_MD = torch.cat([atoms_MD, 2 * atoms_MD, torch.zeros(1, D, dtype=dtype), -atoms_MD])
    for k in (1, 3, 10):
        found_AD = orthogonal_matching_pursuit(directions_AD, more_MD, k)
        assert_close(found_AD, orthogonal_matching_pursuit(directions_AD, atoms_MD, k), rtol=1e-4, atol=1e-4)
    assert_close(orthogonal_matching_pursuit(directions_AD, more_MD, 25), found_AD, rtol=1e-4, atol=1e-4)


def test_pursuit_with_k_above_the_number_of_atoms_uses_all():
    directions_AD, atoms_MD = (random_directions(n, seed=n, dtype=torch.float64) for n in (A, 5))
    centred_AD = directions_AD - directions_AD.mean(0)
    fitted_AD = centred_AD @ torch.linalg.pinv(atoms_MD) @ atoms_MD
    found_AD = orthogonal_matching_pursuit(directions_AD, atoms_MD, 9)
    assert_close(found_AD, fitted_AD + directions_AD.mean(0), rtol=1e-8, atol=1e-8)


def test_shuffling_permutes_each_coordinate_independently():
    """With values that differ in sign alone every norm is 1 before and after, and the values can be counted."""
    generator = torch.Generator().manual_seed(0)
    size_D = torch.nn.functional.normalize(1 + torch.arange(D, dtype=torch.float64), dim=0)
    sign_AD = torch.where(torch.rand(A, D, generator=generator) < torch.linspace(0.1, 0.9, D), 1.0, -1.0)
    directions_AD = sign_AD * size_D
    found_AD = shuffle_directions(directions_AD, seed=1)
    assert_close(found_AD.sort(0).values, directions_AD.sort(0).values, rtol=1e-12, atol=1e-12)
    moved_AD = found_AD.sign() != sign_AD
    assert moved_AD.any(0).all()
    assert len(rows_of(moved_AD)) > A / 2, "each coordinate by itself"


def test_shuffled_directions_have_unit_norms_and_depend_on_the_seed():
    directions_AD = random_directions(A)
    found_AD = shuffle_directions(directions_AD, seed=1)
    assert_close(found_AD.norm(dim=1), torch.ones(A))
    assert torch.equal(shuffle_directions(directions_AD, seed=1), found_AD)
    assert not torch.equal(shuffle_directions(directions_AD, seed=2), found_AD)


def test_replacing_directions_leaves_the_sae_as_it_was():
    sae, latents_A = TopKSAE(D, 30, 3), torch.tensor([2, 5, 29])
    norm_A1 = torch.tensor([[3.0], [0.5], [1.0]])
    with torch.no_grad():
        sae.W_dec[latents_A] *= norm_A1
    before_FD, new_AD = sae.W_dec.detach().clone(), random_directions(3, seed=1)
    changed = replace_directions(sae, latents_A, new_AD)
    assert torch.equal(sae.W_dec, before_FD)
    assert_close(changed.W_dec[latents_A], norm_A1 * new_AD)
    others = [latent for latent in range(30) if latent not in latents_A]
    assert torch.equal(changed.W_dec[others], before_FD[others])
    x_BD = random_directions(20, seed=2)
    assert torch.equal(changed.encode(x_BD), sae.encode(x_BD))


def test_expanded_decompositions_are_empty_for_the_other_latents():
    weight_AM = random_directions(4).relu()
    weight_AM[2] = 0
    flat_N = weight_AM.flatten().nonzero().squeeze(1)
    kept = from_flat(flat_N, weight_AM.flatten()[flat_N], (4, D))
    expected_FM = torch.zeros(11, D)
    expected_FM[[0, 3, 4, 9]] = weight_AM
    whole = expand_to_all_latents(kept, torch.tensor([0, 3, 4, 9]), 11)
    assert whole.shape == (11, D)
    assert torch.equal(whole.to_dense(), expected_FM)


def planted(parts, width=32, hidden=24, count=400):
    """Return directions that are positive sums of `parts[i]` meta-directions in turn, and the meta-directions."""
    generator = torch.Generator().manual_seed(0)
    hidden_MD = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q[:hidden]
    weight_AM = torch.zeros(count, hidden)
    for number in range(count):
        drawn = torch.randperm(hidden, generator=generator)[: parts[number % len(parts)]]
        weight_AM[number, drawn] = 0.5 + torch.rand(len(drawn), generator=generator)
    return torch.nn.functional.normalize(weight_AM @ hidden_MD, dim=1), hidden_MD


def trained(directions_AD, size, k, seed, steps=1000, batch_size=50):
    """Return a trained meta-SAE with its threshold set."""
    stream = TensorStream(directions_AD, batch_size, seed=seed)
    config = TrainingConfig(
        tokens=steps * batch_size,
        batch_size=batch_size,
        lr=1e-2,
        decay_fraction=0.2,
        initial_bias="mean",
        dead_after_tokens=5 * stream.chunk_size,
    )
    meta = BatchTopKSAE(directions_AD.shape[1], size, k, normalize_input=False, seed=seed)
    for _, steps_taken in train([Trainer(meta, config)], stream):
        list(steps_taken)
    set_threshold(meta, directions_AD)
    return meta


def explained(meta, directions_AD):
    return compute_explained_variance(directions_AD, meta(directions_AD))


def best_trained(directions_AD, size, k):
    """Return the first good one of a few meta-SAEs: about one in four has its bias in place of a meta-latent."""
    found = (trained(directions_AD, size, k, seed) for seed in range(3))
    return next(meta for meta in found if explained(meta, directions_AD) > 0.995)


def test_sums_of_two_meta_directions_are_explained_with_the_right_number_of_meta_latents():
    directions_AD, hidden_MD = planted([2])
    assert explained(best_trained(directions_AD, len(hidden_MD), k=2), directions_AD) > 0.99
    control_AD = shuffle_directions(directions_AD, seed=0)
    assert explained(trained(control_AD, len(hidden_MD), k=2, seed=0), control_AD) < 0.6


def test_planted_meta_directions_are_found():
    """Sums of two alone are ambiguous: with one meta-direction as the bias and less in the others, each is nearly a sum
    of two again. Sums of six resolve it."""
    directions_AD, hidden_MD = planted([2, 6])
    meta = best_trained(directions_AD, len(hidden_MD), k=4)
    assert explained(meta, directions_AD) > 0.99
    matches = compare(meta.W_dec.detach(), hidden_MD)
    assert matches.left.cosine.min() > 0.99
    assert matches.right.cosine.min() > 0.99
    assert sorted(matches.left.index.tolist()) == list(range(len(hidden_MD)))


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("row", [torch.zeros(D), torch.full((D,), D**-0.5), torch.eye(D)[3]])
def test_equal_directions_have_no_explained_variance(count, row):
    equal_AD = row.expand(count, D)
    for reconstructed_AD in (equal_AD, torch.zeros(count, D), equal_AD + 1):
        assert compute_explained_variance(equal_AD, reconstructed_AD) is None
        assert compute_explained_share(equal_AD, reconstructed_AD).isnan().all()


def test_a_direction_that_is_the_mean_has_no_explained_share():
    directions_AD = torch.stack([torch.eye(D)[0], -torch.eye(D)[0], torch.zeros(D)])
    assert compute_explained_share(directions_AD, directions_AD).tolist()[:2] == [1, 1]
    assert compute_explained_share(directions_AD, directions_AD)[2].isnan()
    assert compute_explained_variance(directions_AD, directions_AD) == 1
