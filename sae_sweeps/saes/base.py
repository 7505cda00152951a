"""Base class of all SAEs: weights, input normalisation, and selection of the active latents."""

# B activations in a batch, D model width, F latents (dict_size)

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.sparse import RowSparse

NORMALIZE_EPSILON = 1e-5  # as in SAELens' "layer_norm", so that a saved SAE gives the same results in SAELens

# how activations are normalised: not at all; to mean 0 and standard deviation 1 over D, as in the papers; to norm
# sqrt(D); or to mean 0 over D, like a residual stream that TransformerLens has centred. The first three names are those
# of SAELens.
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale", "center")


@dataclass
class Normalized:
    """Normalised activations (B, D), with the mean and standard deviation (B, 1) that map reconstructions back."""

    x_BD: Tensor
    mean_B1: Tensor
    std_B1: Tensor

    def restore(self, x_BD: Tensor) -> Tensor:
        """Map reconstructions (B, D) of normalised activations back to the space of the raw activations, (B, D)."""
        return x_BD * self.std_B1 + self.mean_B1


class SAE(nn.Module, ABC):
    """A sparse autoencoder on activations of width D with F latents.

    `forward` maps raw activations (B, D) to reconstructions (B, D), `encode` to latent activations (B, F).

    Shapes: W_enc (F, D) and W_dec (F, D), one row per latent; b_enc (F,), or None for no encoder bias; b_dec (D,).
    """

    architecture: str
    normalization: str  # one of NORMALIZATIONS
    centers_input: bool  # whether b_dec is subtracted from the encoder's input
    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor | None
    b_dec: Tensor

    @property
    def d_in(self) -> int:
        """Return D, the width of the activations."""
        return self.W_dec.shape[1]

    @property
    def dict_size(self) -> int:
        """Return F, the number of latents."""
        return self.W_dec.shape[0]

    def normalize(self, x_BD: Tensor) -> Normalized:
        """Normalise raw activations (B, D) by the method that `self.normalization` names.

        The method "layer_norm" is from arXiv:2412.06410, appendix. With "none", the mean is 0 and the deviation 1. An
        activation without spread (or, rescaled, of norm 0) becomes 0, and its reconstruction is the activation itself.
        """
        zero_B1 = torch.zeros_like(x_BD[..., :1])
        if self.normalization == "none":
            return Normalized(x_BD, zero_B1, zero_B1 + 1)
        if self.normalization == "constant_norm_rescale":
            scale_B1 = x_BD.norm(dim=-1, keepdim=True) / x_BD.shape[-1] ** 0.5
            return Normalized(x_BD / scale_B1.where(scale_B1 > 0, 1.0), zero_B1, scale_B1)
        mean_B1 = x_BD.mean(-1, keepdim=True)
        centered_BD = x_BD - mean_B1
        if self.normalization == "center":
            return Normalized(centered_BD, mean_B1, zero_B1 + 1)
        std_B1 = centered_BD.norm(dim=-1, keepdim=True) / (x_BD.shape[-1] - 1) ** 0.5
        return Normalized(centered_BD / (std_B1 + NORMALIZE_EPSILON), mean_B1, std_B1)

    def encoder_input(self, x_BD: Tensor) -> Tensor:
        """Return the encoder's input (B, D): normalised activations (B, D), minus b_dec if `centers_input` is set."""
        return x_BD - self.b_dec if self.centers_input else x_BD

    def product(self, input_BD: Tensor, precision: str = "float32") -> Product:
        """Return the pre-activations (B, F) of an encoder input (B, D), computed block by block when they are read.

        The `precision` is "float32", or "tf32" or "bfloat16" for approximate blocks. No gradients are recorded.
        """
        b_enc_F = None if self.b_enc is None else self.b_enc.detach()
        return Product(input_BD.detach(), self.W_enc.detach(), b_enc_F, precision=precision)

    @abstractmethod
    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the active latents of each activation as sparse entries of a (B, F) matrix.

        The selection for one activation does not depend on the other activations of the batch.
        """

    @torch.no_grad()
    def find_active(self, normalized: Normalized) -> RowSparse:
        """Return the active latents of normalised activations (B, D) as sparse entries of a (B, F) matrix."""
        return self.keep_for_inference(self.product(self.encoder_input(normalized.x_BD)))

    def reconstruct(self, kept: RowSparse, normalized: Normalized) -> Tensor:
        """Decode active latents to reconstructions (B, D) of the raw activations.

        The mean and standard deviation of the raw activations are taken from `normalized`.
        """
        return normalized.restore(kept.decode(self.W_dec).add_(self.b_dec))

    @torch.no_grad()
    def encode(self, x_BD: Tensor) -> Tensor:
        """Return the latent activations of raw activations (B, D) as a dense matrix (B, F)."""
        return self.find_active(self.normalize(x_BD)).to_dense()

    @torch.no_grad()
    def forward(self, x_BD: Tensor) -> Tensor:
        """Return the reconstructions (B, D) of raw activations (B, D)."""
        normalized = self.normalize(x_BD)
        return self.reconstruct(self.find_active(normalized), normalized)
