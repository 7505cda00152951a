"""Families swapped one by one: against the SAEs with the latents exchanged, and planted families."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes import InferenceSAE
from sae_sweeps.studies import swaps
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.swaps import FamilySwaps
from tests.studies.random_saes import CASES, LARGE, SMALL, D, activations, random_sae

THRESHOLD = 0.65  # at which random directions form families of several sizes


def measure(small, large, x_AD, threshold=THRESHOLD, batch=50):
    families = compare(small.W_dec.detach(), large.W_dec.detach(), [threshold]).families[threshold]
    found = FamilySwaps(small, large, families)
    for x_BD in x_AD.split(batch):
        normalized = small.normalize(x_BD)
        kept_S, kept_L = small.find_active(normalized), large.find_active(normalized)
        residual_BD = normalized.x_BD - kept_S.decode(small.W_dec) - small.b_dec
        found.update(residual_BD.detach(), kept_S, kept_L)
    return found


@CASES
def test_a_swap_changes_the_error_as_exchanging_the_latents_does(architectures, normalize_input):
    small, large = (
        random_sae(name, size, seed, normalize_input)
        for name, size, seed in zip(architectures, (SMALL, LARGE), (1, 2), strict=True)
    )
    x_AD = activations(150)
    found = measure(small, large, x_AD)
    assert len(found.small_Q) > 3
    seen_AD = small.normalize(x_AD).x_BD
    z_AS, z_AL = small.encode(x_AD), large.encode(x_AD)
    recon_AD = z_AS @ small.W_dec + small.b_dec
    for at, (out, into) in enumerate(zip(found.small_Q, found.large_Q, strict=True)):
        swapped_AD = recon_AD - z_AS[:, out] @ small.W_dec[out] + z_AL[:, into] @ large.W_dec[into]
        change = (seen_AD - swapped_AD).square().sum(1).mean() - (seen_AD - recon_AD).square().sum(1).mean()
        assert_close(found.change_Q[at], change.detach(), rtol=1e-8, atol=1e-10)
        active_A = (z_AS[:, out] != 0).any(1) | (z_AL[:, into] != 0).any(1)
        assert found.fired_Q[at] == active_A.sum()


def test_the_result_does_not_depend_on_batches_and_memory(monkeypatch):
    small, large = random_sae("topk", SMALL, 1), random_sae("batchtopk", LARGE, 2)
    x_AD = activations(150)
    whole = measure(small, large, x_AD, batch=150)
    monkeypatch.setattr(swaps, "AT_ONCE", 1)
    one_by_one = measure(small, large, x_AD, batch=7)
    assert_close(one_by_one.change_Q, whole.change_Q)
    assert torch.equal(one_by_one.fired_Q, whole.fired_Q)


def along_axes(axes, scale=1.0):
    """Return an SAE with a latent along each axis, active above 0.1, that reconstructs it times `scale`."""
    W_dec = torch.eye(D)[axes]
    options = {"b_dec": torch.zeros(D), "threshold": torch.full((len(axes),), 0.1), "centers_input": False}
    return InferenceSAE("jumprelu", W_enc=torch.eye(D)[axes] * scale, W_dec=W_dec, **options)


def test_planted_families_help_and_hurt_as_built():
    """On axis 0 the large SAE is exact and the small one half as strong; on axis 1 it is the other way round."""
    small, large = along_axes([0, 1, 2]), along_axes([0, 1, 5])
    small.W_enc[0] *= 0.5
    large.W_enc[1] *= 0.5
    x_AD = torch.ones(4, D) * 2
    found = measure(small, large, x_AD, 0.7)
    assert found.small_Q == found.large_Q == [[0], [1]]  # axes 2 and 5 have no partner
    assert found.change_Q.tolist() == pytest.approx([-1.0, 1.0])  # half of 2 is missing: a squared error of 1
    assert found.fired_Q.tolist() == [4, 4]


def test_without_a_family_nothing_is_swapped():
    found = measure(along_axes([0]), along_axes([3]), torch.ones(2, D), 0.7)
    assert found.small_Q == []
    assert found.change_Q.tolist() == []
