"""Stitching along paths, checked against dense reconstructions."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.studies import stitching
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.paths import insert_by_value, insert_in_order, interpolate
from sae_sweeps.studies.stitching import PathReconstructions
from tests.reference import nmse
from tests.studies.random_saes import (
    CASES,
    LARGE,
    SMALL,
    A,
    activations,
    dense_activations,
    dense_reconstruction,
    random_pair,
    random_path,
    stitched,
)

THRESHOLD = 0.6


def paths_between(small, large, positions=6):
    """Return an interpolation, a random insertion, an insertion by cosine, and a random path."""
    compared = compare(small.W_dec.detach(), large.W_dec.detach(), [THRESHOLD])
    cosine_L = compared.right.cosine
    novel = (cosine_L < THRESHOLD).nonzero().squeeze(1)
    assert 10 < len(novel) < LARGE - 10, "both kinds of latents"
    way, _ = interpolate(novel, compared.families[THRESHOLD], SMALL, LARGE, positions)
    order = torch.randperm(LARGE, generator=torch.Generator().manual_seed(0))
    by_cosine = insert_by_value(cosine_L, [0.5, 0.6, 0.7], SMALL)
    return [way, insert_in_order(order, SMALL, LARGE, positions), by_cosine, random_path()]


@CASES
def test_curves_match_dense_reconstructions_at_every_position(architectures, normalize_input, monkeypatch):
    monkeypatch.setattr(stitching, "CHANGES_AT_ONCE", 2000)  # about 20 activations at a time
    small, large = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    paths = paths_between(small, large)
    normalized = small.normalize(x_AD)
    fired_AS, fired_AL = (dense_activations(sae, x_AD) > 0 for sae in (small, large))
    spread_A = (x_AD - x_AD.mean(1, keepdim=True)).square().sum(1)
    for path, curve in zip(paths, stitched(small, large, x_AD, paths).compute_curves(), strict=True):
        expected = []
        for position in range(path.length + 1):
            restored_AD = normalized.restore(dense_reconstruction(path, position, small, large, x_AD))
            expected.append(((x_AD - restored_AD).square().sum(1) / spread_A).mean().item())
        assert curve.nmse == pytest.approx(expected, rel=1e-9)
        active = [
            (fired_AS & (path.removed_at > position)).sum() + (fired_AL & (path.inserted_at <= position)).sum()
            for position in range(path.length + 1)
        ]
        assert curve.l0 == pytest.approx([count.item() / A for count in active], rel=1e-12)
        assert curve.latents == path.latent_count.tolist()


@CASES
def test_an_interpolation_starts_and_ends_at_the_two_saes(architectures, normalize_input):
    saes = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    way = paths_between(*saes)[0]
    curve = stitched(*saes, x_AD, [way]).compute_curves()[0]
    walk = PathReconstructions(way, *saes, x_AD)
    for sae, end in zip(saes, (0, -1), strict=True):
        assert curve.nmse[end] == pytest.approx(nmse(sae, x_AD), rel=1e-9)
        assert curve.l0[end] == pytest.approx((sae.encode(x_AD) > 0).sum().item() / A, rel=1e-12)
        assert curve.latents[end] == sae.dict_size
        assert_close(walk.reconstruct(end % (way.length + 1)), sae(x_AD), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changes", [1, 5000, 2**23])
@pytest.mark.parametrize("batches", [(A,), (1,) * A, (100, 50)])
def test_neither_batches_nor_how_many_are_followed_at_a_time_change_what_is_found(batches, changes, monkeypatch):
    small, large = random_pair(("batchtopk", "jumprelu"))
    x_AD, paths = activations(A), [random_path(), random_path(1, length=9)]
    expected = stitched(small, large, x_AD, paths)
    monkeypatch.setattr(stitching, "CHANGES_AT_ONCE", changes)
    found = stitched(small, large, x_AD, paths, batches)
    assert_close(found.change_L, expected.change_L, rtol=1e-10, atol=1e-12)
    assert torch.equal(found.fired_L, expected.fired_L)
    for curve, other in zip(found.compute_curves(), expected.compute_curves(), strict=True):
        assert curve.nmse == pytest.approx(other.nmse, rel=1e-10)
        assert curve.l0 == other.l0


@pytest.mark.parametrize("normalize_input", [True, False])
def test_a_walk_gives_raw_activations_at_every_position(normalize_input, monkeypatch):
    monkeypatch.setattr(stitching, "BATCH", 40)
    small, large = random_pair(("topk", "batchtopk"), normalize_input)
    x_AD, path = activations(A), random_path()
    walk, normalized = PathReconstructions(path, small, large, x_AD), small.normalize(x_AD)
    for position in (3, 0, path.length):
        expected_AD = normalized.restore(dense_reconstruction(path, position, small, large, x_AD))
        assert_close(walk.reconstruct(position), expected_AD, rtol=1e-10, atol=1e-10)
