"""Weights of SAEs like published ones: decoder rows of any norm, no bias zero."""

# B activations in a batch, D model width, F latents

import torch
from torch import Tensor
from torch.testing import assert_close

from sae_sweeps.formats.reading import load_sae

D, F, B = 8, 24, 50


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Return W_enc (D, F), W_dec (F, D), b_enc (F,) and b_dec (D,)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    W_dec = normal(F, D) * (0.3 + torch.rand(F, 1, generator=generator))
    return {"W_enc": normal(D, F) / D**0.5, "W_dec": W_dec, "b_enc": 0.1 * normal(F), "b_dec": 0.5 * normal(D)}


def activations() -> Tensor:
    return 2 * torch.randn(B, D, generator=torch.Generator().manual_seed(9)) + 1


def topk(pre_BF: Tensor, k: int) -> Tensor:
    """Return the k largest of each row, without those below zero, and zeros elsewhere."""
    top = pre_BF.topk(k, dim=1)
    return torch.zeros_like(pre_BF).scatter(1, top.indices, top.values.relu())


def above(pre_BF: Tensor, threshold: Tensor | float) -> Tensor:
    return pre_BF.relu() * (pre_BF > threshold)


def assert_computes(spec, acts_BF: Tensor, recon_BD: Tensor, tolerance: float = 1e-5) -> None:
    """Check that the SAE read from these files has these latents and reconstructions of `activations()`."""
    sae, x_BD = load_sae(spec), activations()
    assert (acts_BF > 0).any(), "some latents must be active"
    assert (acts_BF == 0).any(), "some latents must be inactive"
    assert_close(sae.encode(x_BD), acts_BF, rtol=tolerance, atol=tolerance)
    assert_close(sae(x_BD), recon_BD, rtol=tolerance, atol=tolerance)
