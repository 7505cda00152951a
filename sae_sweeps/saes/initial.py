"""Initial weights from activations: directions of the data in place of random ones, and the filters that find them."""

# A activations, R of them in a sample, D model width, F latents (dict_size)

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae_sweeps.runtime.seeds import mix_seed

DRAWN = 32_768  # activations to draw from, which also give the covariance
RIDGE = 1e-3  # added to the covariance, in mean variances: normalised activations have no variance in one direction
NOISE = 0.1  # norm of a random row that is added to a direction of norm 1
FITTED = 2**22  # pre-activations on which the encoder's scale is fitted; they bound its memory


class InitialWeights(NamedTuple):
    """Decoder and encoder, each (F, D), and the standard deviation of every latent's pre-activations, ()."""

    W_dec_FD: Tensor
    W_enc_FD: Tensor
    deviation: Tensor


@torch.no_grad()
def draw_weights(
    centered_AD: Tensor, random_FD: Tensor, k: float | None, threshold: float, seed: int
) -> InitialWeights | None:
    """Draw the weights of F latents from activations less their mean, (A, D); None if they are all equal.

    A row of W_dec is the direction of an activation drawn at random. The latent's row of W_enc is the matched filter of
    this direction: C^-1 direction, with the covariance C of the activations, is the linear function of an activation
    that separates the direction best from everything else that varies. With the directions themselves as filters, too
    many latents would be active together, because most activations share a few directions of large variance.

    All latents have pre-activations of the same standard deviation: the one with which the reconstruction by the
    largest of them, k per activation in the mean, has the least error.

    random_FD: random rows of unit norm (F, D), a small part of which is added to W_dec's
    k: number of active latents; None: those above `threshold` standard deviations
    seed: for the draw
    """
    variance = centered_AD.square().mean()
    if not variance > 0:
        return None
    rows_FD = _draw_rows(centered_AD, len(random_FD), seed)
    norm_F1 = rows_FD.norm(dim=1, keepdim=True)
    rows_FD = torch.where(norm_F1 > 1e-6 * variance.sqrt(), rows_FD / norm_F1, random_FD)
    covariance_DD = centered_AD.T @ centered_AD / len(centered_AD)
    covariance_DD.diagonal().add_(RIDGE * variance)
    W_enc_FD = torch.cholesky_solve(rows_FD.T, torch.linalg.cholesky(covariance_DD)).T.contiguous()
    W_enc_FD /= (W_enc_FD * rows_FD).sum(1, keepdim=True).sqrt()  # the variance of w.x is w C w, with w = C^-1 d
    # a text has equal activations, such as those of a word that begins sequences; equal latents would stay equal
    W_dec_FD = normalize(rows_FD + NOISE * random_FD, dim=1)
    scale = _fit_scale(centered_AD[: max(1, FITTED // len(random_FD))], W_dec_FD, W_enc_FD, k, threshold)
    return InitialWeights(W_dec_FD, W_enc_FD * scale, scale)


def _draw_rows(centered_AD: Tensor, count: int, seed: int) -> Tensor:
    """Draw activations without repeating one, (count, D); of more than there are, the others are differences of two."""
    generator, total = torch.Generator().manual_seed(mix_seed(seed, "initial weights")), len(centered_AD)
    first_F = torch.randperm(total, generator=generator).repeat(-(-count // total))[:count]
    rows_FD = centered_AD[first_F.to(centered_AD.device)]
    if count > total > 1:
        apart = torch.randint(1, total, (count - total,), generator=generator)
        rows_FD[total:] -= centered_AD[((first_F[total:] + apart) % total).to(centered_AD.device)]
    return rows_FD


def _fit_scale(x_RD: Tensor, W_dec_FD: Tensor, W_enc_FD: Tensor, k: float | None, threshold: float) -> Tensor:
    """Return the factor on W_enc, (), with which the active latents reconstruct activations best; 1 if none is active.

    Active are the k * R largest of the pre-activations, or those above the threshold.
    """
    pre_RF = x_RD @ W_enc_FD.T
    least: Tensor | float = threshold
    if k is not None:
        count = max(1, min(round(k * len(x_RD)), pre_RF.numel()))
        least = pre_RF.flatten().topk(count, sorted=False).values.min().clamp(min=0)
    recon_RD = (pre_RF * (pre_RF >= least)) @ W_dec_FD
    scale = (recon_RD * x_RD).sum() / recon_RD.square().sum()
    return torch.where(scale > 0, scale, 1.0)  # nan and inf too
