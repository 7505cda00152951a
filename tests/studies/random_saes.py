"""Random SAEs, paths between them, and their measurements from dense activations."""

import numpy as np
import pytest
import torch

from sae_sweeps.saes import TRAINABLE, BatchTopKSAE, GatedSAE, JumpReLUSAE, ReLUSAE
from sae_sweeps.studies.directions import Families
from sae_sweeps.studies.paths import SAEPath
from sae_sweeps.studies.stitching import Stitching

D, SMALL, LARGE = 16, 37, 90
ARCHITECTURES = ["batchtopk", "topk", "jumprelu", "relu", "gated"]
ACTIVE = 5  # latents per activation, about
A = 150  # activations
PAIRS = [(small, large) for small in ARCHITECTURES for large in ARCHITECTURES]
CASES = pytest.mark.parametrize(
    ("architectures", "normalize_input"), [(pair, on) for pair in PAIRS for on in (True, False)]
)


def activations(count, seed=0):
    """Return random activations (count, D) of different norms and with a mean."""
    generator = torch.Generator().manual_seed(seed)
    x_AD = torch.randn(count, D, generator=generator, dtype=torch.float64)
    return x_AD * (0.5 + 3 * torch.rand(count, 1, generator=generator, dtype=torch.float64)) + torch.linspace(-1, 2, D)


def seen_by(sae, x_AD):
    """Return activations as an SAE normalises them."""
    if sae.normalization == "none":
        return x_AD
    return (x_AD - x_AD.mean(1, keepdim=True)) / (x_AD.std(1, keepdim=True) + 1e-5)


@torch.no_grad()
def random_sae(architecture, size, seed, normalize_input=True):
    """Return an SAE with random float64 weights, decoder rows of any norm, and about ACTIVE latents per activation."""
    generator = torch.Generator().manual_seed(seed)
    options = {"normalize_input": normalize_input, "seed": seed}
    if architecture == "jumprelu":
        sae = JumpReLUSAE(D, size, sparsity_coefficient=0.1, **options).double()
        sae.b_enc.copy_(0.5 * torch.randn(size, generator=generator))
    else:
        sae = TRAINABLE[architecture](D, size, ACTIVE, **options).double()
    sae.b_dec.copy_(0.3 * torch.randn(D, generator=generator))
    sae.W_dec.mul_(0.5 + torch.rand(size, 1, generator=generator))
    seen_AD = seen_by(sae, activations(500, seed=99))
    if architecture == "jumprelu":
        pre_AF = seen_AD @ sae.W_enc.T + sae.b_enc
        sae.threshold.copy_(pre_AF.quantile(1 - ACTIVE / size, dim=0).clamp(min=0))
    elif isinstance(sae, ReLUSAE):
        pre_AF = (seen_AD - sae.b_dec) @ sae.W_enc.T
        sae.b_enc.copy_(-pre_AF.quantile(1 - ACTIVE / size, dim=0))
        if isinstance(sae, GatedSAE):
            sae.r_mag.copy_(0.5 * torch.randn(size, generator=generator))
            sae.b_mag.copy_(0.1 * torch.rand(size, generator=generator))
    elif architecture == "batchtopk":
        pre_AF = (seen_AD - sae.b_dec) @ sae.W_enc.T
        sae.threshold.copy_(pre_AF.flatten().quantile(1 - ACTIVE / size))
    return sae


@torch.no_grad()
def dense_activations(sae, x_AD):
    """Return latent activations (A, F) by each architecture's definition."""
    seen_AD = seen_by(sae, x_AD)
    if isinstance(sae, JumpReLUSAE):
        pre_AF = torch.relu(seen_AD @ sae.W_enc.T + sae.b_enc)
        return pre_AF * (pre_AF > sae.threshold)
    product_AF = (seen_AD - sae.b_dec) @ sae.W_enc.T
    if isinstance(sae, GatedSAE):
        return (product_AF + sae.b_enc > 0) * torch.relu(sae.r_mag.exp() * product_AF + sae.b_mag)
    if isinstance(sae, ReLUSAE):
        return torch.relu(product_AF + sae.b_enc)
    pre_AF = torch.relu(product_AF)
    if isinstance(sae, BatchTopKSAE):
        return pre_AF * (pre_AF > sae.threshold)
    return pre_AF * (pre_AF >= pre_AF.topk(sae.k, dim=1).values[:, -1:])


@torch.no_grad()
def dense_reconstruction(path, position, small, large, x_AD):
    """Return the reconstruction (A, D) at a position, in normalised space, from dense activations of both SAEs."""
    z_AS = dense_activations(small, x_AD) * (path.removed_at > position)
    z_AL = dense_activations(large, x_AD) * (path.inserted_at <= position)
    return z_AS @ small.W_dec + z_AL @ large.W_dec + (large if position >= path.bias_switched_at else small).b_dec


def families_of(groups, small=SMALL, large=LARGE):
    """Return the families given as (latents of the small SAE, latents of the large SAE); other latents are alone."""
    left, right = np.full(small, -1), np.full(large, -1)
    for label, (in_small, in_large) in enumerate(groups):
        left[list(in_small)], right[list(in_large)] = label, label
    alone = len(groups) + np.arange(small + large)
    left, right = np.where(left < 0, alone[:small], left), np.where(right < 0, alone[small:], right)
    _, labels = np.unique(np.concatenate([left, right]), return_inverse=True)
    return Families(labels[:small].astype(np.int32), labels[small:].astype(np.int32))


def random_path(seed=0, length=6):
    """Return a path with every latent inserted or removed at a random position, or never."""
    generator = torch.Generator().manual_seed(seed)
    inserted_at, removed_at = (torch.randint(1, length + 2, (size,), generator=generator) for size in (LARGE, SMALL))
    return SAEPath(inserted_at, removed_at, length, 4)


def random_pair(architectures, normalize_input=True):
    small, large = architectures
    return random_sae(small, SMALL, 1, normalize_input), random_sae(large, LARGE, 2, normalize_input)


def stitched(small, large, x_AD, paths=(), batches=(64, 1, 85)):
    """Return the measurements of one pass over the activations, in batches of several sizes."""
    found = Stitching(small, large, paths)
    for x_BD in x_AD.split(batches):
        found.update(x_BD)
    assert found.seen == len(x_AD)
    return found
