"""Joined SAEs: latent by latent against their own SAEs, and a planted chain that reconstructs exactly."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.joining import join
from tests.studies.random_saes import D, activations, random_sae
from tests.studies.test_swaps import along_axes


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "relu", "gated"])
@pytest.mark.parametrize("normalize_input", [True, False])
def test_every_latent_keeps_the_activations_of_its_own_sae(architecture, normalize_input):
    sizes = ((20, 1), (50, 2), (90, 3))
    chain = [random_sae(architecture, *size, normalize_input).float().for_inference() for size in sizes]
    x_AD = activations(60).float()
    steps = join(chain, 0.6)
    assert [step.sae.dict_size for step in steps] == sorted({step.sae.dict_size for step in steps})
    last, activations_of = steps[-1], [sae.encode(x_AD) for sae in chain]
    z_AJ = last.sae.encode(x_AD)
    for at, (part, latent) in enumerate(zip(last.part_J.tolist(), last.latent_J.tolist(), strict=True)):
        assert_close(z_AJ[:, at], activations_of[part][:, latent], rtol=1e-4, atol=1e-4)
        assert torch.equal(last.sae.W_dec[at], chain[part].W_dec[latent])
    assert torch.equal(last.sae.b_dec, chain[0].b_dec)
    for (before, after), sae in zip(itertools.pairwise(steps), chain[1:], strict=True):
        cosine_F = compare(before.sae.W_dec, sae.W_dec).right.cosine
        added = after.latent_J[before.sae.dict_size :]
        assert torch.equal(added, (cosine_F < 0.6).nonzero().squeeze(1))
        assert torch.equal(after.cosine_J[before.sae.dict_size :], cosine_F[added])
        assert torch.equal(after.latent_J[: before.sae.dict_size], before.latent_J)


def test_a_planted_chain_reconstructs_exactly():
    """Each SAE of the chain has two axes of the one before, and axes that are new: together all of them."""
    chain = [along_axes(list(range(first, last))) for first, last in ((0, 6), (4, 11), (9, D))]
    x_AD = activations(50).float().abs() + 0.2
    steps = join(chain, 0.7)
    assert [step.sae.dict_size for step in steps] == [6, 11, D]
    assert_close(steps[-1].sae(x_AD), x_AD)
    assert steps[-1].part_J.tolist() == [0] * 6 + [1] * 5 + [2] * (D - 11)
    assert torch.isnan(steps[-1].cosine_J[:6]).all()
    assert (steps[-1].cosine_J[6:] == 0).all()


def test_what_cannot_be_joined_is_refused():
    topk = random_sae("topk", 20, 1).float().for_inference()
    batchtopk, raw = (random_sae("batchtopk", 40, 2, on).float().for_inference() for on in (True, False))
    gated = random_sae("gated", 40, 2).float().for_inference()
    for other, reason in ((topk, "no thresholds"), (raw, "normalise"), (gated, "gated")):
        with pytest.raises(ConfigError, match=reason):
            join([batchtopk, other], 0.7)
