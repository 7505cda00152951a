"""Decoder rows of norm 1: an SAE with other rows is rescaled where its latents are selected each by itself."""

import pytest
import torch
from torch.testing import assert_close

from tests.tasks.foreign import D, foreign


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "gated"])
@pytest.mark.parametrize("centers_input", [True, False])
def test_the_same_latents_reconstruct_the_same(architecture, centers_input):
    sae = foreign(architecture)
    sae.centers_input = centers_input
    sae.W_dec[3] = 0  # a row without a direction stays as it is
    rescaled = sae.with_unit_rows()
    assert rescaled is not None
    x_BD = 2 * torch.randn(200, D) + 1
    norm_F = sae.W_dec.norm(dim=1)
    assert_close(rescaled(x_BD), sae(x_BD), rtol=1e-5, atol=1e-5)
    assert_close(rescaled.encode(x_BD), sae.encode(x_BD) * torch.where(norm_F > 0, norm_F, 1), rtol=1e-5, atol=1e-5)
    assert torch.equal(rescaled.encode(x_BD) > 0, sae.encode(x_BD) > 0)
    assert rescaled.W_dec.norm(dim=1).max() == pytest.approx(1, abs=1e-5)
    assert not sae.has_unit_rows()


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_where_the_norms_decide_which_latents_are_active_nothing_is_rescaled(architecture):
    assert foreign(architecture).with_unit_rows() is None
