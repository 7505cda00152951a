"""Changes of the MSE by stitching, checked against SAEs with each latent really inserted."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes import JumpReLUSAE, TopKSAE
from sae_sweeps.studies.stitching import Stitching
from tests.studies.random_saes import (
    ACTIVE,
    ARCHITECTURES,
    CASES,
    LARGE,
    SMALL,
    A,
    activations,
    dense_activations,
    dense_reconstruction,
    random_pair,
    random_path,
    random_sae,
    seen_by,
    stitched,
)


def mean_square(error_AD):
    return error_AD.square().sum(1).mean().item()


@torch.no_grad()
def squares_with_each_latent(small, large, x_AD):
    """Return the small SAE's mean |x - x_hat|^2 in normalised space with each latent of the large SAE inserted."""
    seen_AD, z_AL = seen_by(small, x_AD), dense_activations(large, x_AD)
    start_AD = dense_activations(small, x_AD) @ small.W_dec + small.b_dec
    return [
        mean_square(seen_AD - (start_AD + z_AL[:, latent, None] * direction_D))
        for latent, direction_D in enumerate(large.W_dec)
    ]


@torch.no_grad()
def with_latent(small, large, latent):
    """Return the small SAE with one more latent."""
    extended = JumpReLUSAE(
        small.d_in, small.dict_size + 1, sparsity_coefficient=0.1, normalize_input=small.normalization != "none"
    ).double()
    for name in ("W_enc", "W_dec", "b_enc", "threshold"):
        one = large.get_parameter(name)[latent : latent + 1]
        extended.get_parameter(name).copy_(torch.cat([small.get_parameter(name), one]))
    extended.b_dec.copy_(small.b_dec)
    return extended


def square_of_forward(sae, x_AD):
    """Return the mean |x - x_hat|^2 in normalised space, from the SAE's output for raw activations."""
    normalized = sae.normalize(x_AD)
    return mean_square(normalized.x_BD - (sae(x_AD) - normalized.mean_B1) / normalized.std_B1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_random_saes_encode_as_the_dense_reference(architecture):
    x_AD = activations(400)
    for size in (SMALL, LARGE):
        sae = random_sae(architecture, size, size)
        z_AF = dense_activations(sae, x_AD)
        assert_close(sae.encode(x_AD), z_AF, rtol=1e-12, atol=1e-12)
        assert (z_AF > 0).sum(1).double().mean().item() == pytest.approx(ACTIVE, abs=1)


@CASES
def test_mse_changes_match_inserting_each_latent(architectures, normalize_input):
    small, large = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    found = stitched(small, large, x_AD)
    before = mean_square(seen_by(small, x_AD) - dense_reconstruction(random_path(), 0, small, large, x_AD))
    changes = [after - before for after in squares_with_each_latent(small, large, x_AD)]
    assert found.mse == pytest.approx(before, rel=1e-12)
    assert found.change_L.tolist() == pytest.approx(changes, rel=1e-6)
    assert min(changes) < 0 < max(changes)
    for sae, fired_F in ((small, found.fired_S), (large, found.fired_L)):
        assert torch.equal(fired_F, (dense_activations(sae, x_AD) > 0).sum(0))


@pytest.mark.parametrize("normalize_input", [True, False])
def test_mse_changes_match_an_sae_with_one_more_latent(normalize_input):
    small, large = random_pair(("jumprelu", "jumprelu"), normalize_input)
    x_AD = activations(A)
    found = stitched(small, large, x_AD)
    before = square_of_forward(small, x_AD)
    changes = [square_of_forward(with_latent(small, large, latent), x_AD) - before for latent in range(LARGE)]
    assert found.change_L.tolist() == pytest.approx(changes, rel=1e-6)


def test_latents_that_are_never_active_change_nothing():
    small, large = random_pair(("jumprelu", "jumprelu"))
    with torch.no_grad():
        large.threshold[::2] = 1e6
    found = stitched(small, large, activations(A))
    assert (found.fired_L[::2] == 0).all()
    assert (found.change_L[::2] == 0).all()
    assert (found.change_L[1::2] != 0).any()


def test_zeros_kept_by_topk_are_not_active():
    small, large = random_pair(("topk", "topk"))
    small.k, large.k = SMALL - 4, LARGE - 10
    x_AD, path = activations(A), random_path()
    found = stitched(small, large, x_AD, [path])
    assert found.change_L.tolist() == pytest.approx(
        [after - found.mse for after in squares_with_each_latent(small, large, x_AD)], rel=1e-6
    )
    assert torch.equal(found.fired_L, (dense_activations(large, x_AD) > 0).sum(0))
    assert found.compute_curves()[0].l0[0] == pytest.approx((dense_activations(small, x_AD) > 0).sum().item() / A)


def test_float32_saes_give_the_same_measurements():
    """The sums over activations are in float64 even so."""
    small, large = random_pair(("jumprelu", "jumprelu"))
    x_AD, path = activations(A), random_path()
    exact = stitched(small, large, x_AD, [path])
    found = stitched(small.float(), large.float(), x_AD.float(), [path])
    assert found.change_L.dtype == torch.float64
    assert_close(found.change_L, exact.change_L, rtol=1e-4, atol=1e-5)
    assert found.compute_curves()[0].nmse == pytest.approx(exact.compute_curves()[0].nmse, rel=1e-5)


def test_saes_of_other_width_or_normalization_are_refused():
    with pytest.raises(ValueError, match="the two SAEs must have the same d_in and the same normalization"):
        Stitching(TopKSAE(8, 20, 3), TopKSAE(8, 40, 3, normalize_input=False), [])
    with pytest.raises(ValueError, match="the two SAEs must have the same d_in and the same normalization"):
        Stitching(TopKSAE(8, 20, 3), TopKSAE(9, 40, 3), [])


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("value", [0.0, 0.25, -70.0])
def test_activations_without_spread_are_left_out_of_nmse_and_counted(normalization, value):
    x_AD = activations(A).float()
    small, large = (random_sae("topk", size, seed).float() for size, seed in ((SMALL, 1), (LARGE, 2)))
    small.normalization = large.normalization = normalization
    flat_AD = torch.full((3, x_AD.shape[1]), value)
    with_flat, without, alone = ([random_path(0)] for _ in range(3))
    measured = [Stitching(small, large, paths) for paths in (with_flat, without, alone)]
    for stitching, x in zip(measured, (torch.cat([flat_AD, x_AD]), x_AD, flat_AD), strict=True):
        stitching.update(x)
    assert [(one.seen, one.with_spread) for one in measured] == [(A + 3, A), (A, A), (3, 0)]
    (found,), (expected,), (none,) = (one.compute_curves() for one in measured)
    assert found.nmse == pytest.approx(expected.nmse, rel=1e-6)
    assert set(none.nmse) == {None}
    assert all(one.change_L.isfinite().all() for one in measured)
