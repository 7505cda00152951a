"""Base class of all SAEs: weights, input normalisation, and selection of the active latents."""

# B activations in a batch, D model width, F latents (dict_size)

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import to_activations
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.sparse import RowSparse

Activations: TypeAlias = Tensor | np.ndarray  # what a caller may give; see `to_activations`

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

    `forward` maps raw activations (B, D) to reconstructions (B, D), `encode` to latent activations (B, F), and `decode`
    these to reconstructions. They take tensors and numpy arrays, with any leading dimensions, which the result has as
    well: (..., D). Raises: ConfigError if the shape or the kind of numbers is wrong, or a number is not finite.

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

    def product(self, input_BD: Tensor, precision: str = "float32", room: Room | None = None) -> Product:
        """Return the pre-activations (B, F) of an encoder input (B, D), computed block by block when they are read.

        The `precision` is "float32", or "tf32" or "bfloat16" for approximate blocks. No gradients are recorded.
        Selections keep to the sizes of a `room`.
        """
        b_enc_F = None if self.b_enc is None else self.b_enc.detach()
        return Product(input_BD.detach(), self.W_enc.detach(), b_enc_F, precision=precision, room=room)

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
    def encode(self, acts: Activations) -> Tensor:
        """Return the latent activations of raw activations (B, D) as a dense matrix (B, F)."""
        x_BD, leading = self._take("acts", acts, self.d_in)
        if len(x_BD) == 0:
            return x_BD.new_zeros(*leading, self.dict_size)
        return self.find_active(self.normalize(x_BD)).to_dense().view(*leading, self.dict_size)

    @torch.no_grad()
    def decode(self, latents: Activations, acts: Activations | None = None) -> Tensor:
        """Return the reconstructions (B, D) from latent activations (B, F), those of `encode` or changed ones.

        acts: the raw activations (B, D) that the latent activations are of. An SAE that normalises its input takes the
            mean and the deviation of each from them; with normalization="none" they can be left out
        """
        z_BF, leading = self._take("latents", latents, self.dict_size, "dict_size of the SAE")
        if acts is None and self.normalization != "none":
            problem = f"must be given, because this SAE normalises activations ({self.normalization})"
            raise ConfigError("acts", None, problem, "sae.decode(latents, acts) with the activations that were encoded")
        x_BD = z_BF.new_zeros(len(z_BF), self.d_in)
        if acts is not None:
            x_BD, like = self._take("acts", acts, self.d_in)
            if like != leading:
                problem = f"must be as many activations as `latents` has, {tuple(leading)}"
                raise ConfigError("acts", (*like, self.d_in), problem, "give the activations that were encoded")
        return self.normalize(x_BD).restore(z_BF @ self.W_dec + self.b_dec).view(*leading, self.d_in)

    @torch.no_grad()
    def forward(self, acts: Activations) -> Tensor:
        """Return the reconstructions (B, D) of raw activations (B, D)."""
        x_BD, leading = self._take("acts", acts, self.d_in)
        if len(x_BD) == 0:
            return x_BD.view(*leading, self.d_in)
        normalized = self.normalize(x_BD)
        return self.reconstruct(self.find_active(normalized), normalized).view(*leading, self.d_in)

    def _take(
        self, name: str, given: Activations, width: int, width_of: str = "d_in of the SAE"
    ) -> tuple[Tensor, torch.Size]:
        """Return numbers that a caller gives as a matrix on the SAE's device, and their leading dimensions."""
        weights = self.W_dec
        x = to_activations(name, given, width, width_of, is_matrix=False, dtype=weights.dtype, device=weights.device)
        return x.reshape(-1, width), x.shape[:-1]

    def describe_sparsity(self) -> str:
        """Return what sets the number of active latents, for `repr`, such as "k=32"; empty if it is in the weights."""
        k = getattr(self, "k", None)
        return "" if k is None else f"k={k}"

    def __repr__(self) -> str:
        is_named = self.architecture in type(self).__name__.lower()
        facts = ["" if is_named else self.architecture, f"d_in={self.d_in}", f"dict_size={self.dict_size}"]
        return f"{type(self).__name__}({', '.join(filter(None, [*facts, self.describe_sparsity()]))})"
