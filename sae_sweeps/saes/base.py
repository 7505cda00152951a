"""What all sparse autoencoders share: parameters, normalisation, inference, and the shape of a training step."""

# B activations in a batch, D model width, F latents (dict_size), N kept entries

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.sparse import Entries, Kept, LatentEntries

NORMALIZE_EPSILON = 1e-5  # as in SAELens' "layer_norm", so that a saved SAE computes the same there


@dataclass
class Normalized:
    """Activations as the SAE sees them, and what maps its reconstructions back."""

    x_BD: Tensor
    mean_B1: Tensor
    std_B1: Tensor

    def restore(self, x_BD: Tensor) -> Tensor:
        return x_BD * self.std_B1 + self.mean_B1


@dataclass
class Step:
    """What one training step computed; the gradients are in the parameters' `.grad`."""

    loss: Tensor  # everything that was differentiated
    mse: Tensor  # mean squared error per element, of normalised activations
    l0: Tensor  # active latents per activation
    aux_loss: Tensor
    fired_F: Tensor  # bool: was active on at least one activation of the batch


class SAE(nn.Module, ABC):
    """A sparse autoencoder on activations of width D with F latents.

    `forward` maps raw activations (B, D) to their reconstructions, `encode` to latent activations (B, F). Training goes
    through `training_step`, which computes loss and gradients by hand on the kept entries (see `sparse.py`).

    Shapes: W_enc (F, D) and W_dec (F, D), a row per latent, those of W_dec of unit norm; b_enc (F,), b_dec (D,).
    """

    architecture: ClassVar[str]
    aux_coefficient: float = 0.0  # weight of the auxiliary loss on dead latents
    centers_input: ClassVar[bool]  # whether b_dec is subtracted from the encoder's input

    def __init__(self, d_in: int, dict_size: int, *, normalize_input: bool = True, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        W_enc_DF = torch.empty(d_in, dict_size)
        nn.init.kaiming_uniform_(W_enc_DF, generator=generator)  # columns of norm sqrt(2 D / F)
        self.W_enc = nn.Parameter(W_enc_DF.T.contiguous())
        self.W_dec = nn.Parameter(nn.functional.normalize(self.W_enc.detach(), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.normalize_input = normalize_input

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def dict_size(self) -> int:
        return self.W_dec.shape[0]

    def normalize(self, x_BD: Tensor) -> Normalized:
        """Each activation minus its mean over D, over its standard deviation (arXiv:2412.06410, appendix)."""
        if not self.normalize_input:
            zero_B1 = torch.zeros_like(x_BD[..., :1])
            return Normalized(x_BD, zero_B1, zero_B1 + 1)
        mean_B1 = x_BD.mean(-1, keepdim=True)
        centered_BD = x_BD - mean_B1
        std_B1 = centered_BD.norm(dim=-1, keepdim=True) / (x_BD.shape[-1] - 1) ** 0.5
        return Normalized(centered_BD / (std_B1 + NORMALIZE_EPSILON), mean_B1, std_B1)

    @torch.no_grad()
    def center(self, mean_D: Tensor) -> None:
        """Start from reconstructing the mean of the (normalised) activations, encoding deviations from it."""
        self.b_dec.copy_(mean_D)

    def encoder_input(self, x_BD: Tensor) -> Tensor:
        return x_BD - self.b_dec if self.centers_input else x_BD

    def product(self, input_BD: Tensor, precision: str = "float32") -> Product:
        return Product(input_BD.detach(), self.W_enc.detach(), precision=precision)

    @abstractmethod
    def keep(self, product: Product) -> Entries:
        """The entries that take part in a training step."""

    @abstractmethod
    def keep_for_inference(self, product: Product) -> Kept:
        """The active latents of each activation when the SAE is used, whatever else is in the batch."""

    def watch_dead(self, product: Product, dead_M: Tensor) -> Callable[[], Entries] | None:
        """Have the entries of an auxiliary loss among the dead latents found on the way; what is returned gives them
        once `keep` is done. None if there is no such loss."""
        return None

    @torch.no_grad()
    def active(self, normalized: Normalized) -> Kept:
        return self.keep_for_inference(self.product(self.encoder_input(normalized.x_BD)))

    def reconstruct(self, kept: Kept, normalized: Normalized) -> Tensor:
        return normalized.restore(kept.decode(self.W_dec).add_(self.b_dec))

    @torch.no_grad()
    def encode(self, x_BD: Tensor) -> Tensor:
        """Latent activations (B, F) of raw activations (B, D)."""
        return self.active(self.normalize(x_BD)).dense()

    @torch.no_grad()
    def forward(self, x_BD: Tensor) -> Tensor:
        """Reconstructions (B, D) of raw activations (B, D)."""
        normalized = self.normalize(x_BD)
        return self.reconstruct(self.active(normalized), normalized)

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        """Loss and gradients on a batch of normalised activations; `dead_F` marks the dead latents.

        The loss is the mean squared error per element plus what the architecture adds (`sparsity_gradients`,
        `watch_dead`). Gradients are set, not accumulated; that of W_dec is without its part along the rows, whose norm
        is fixed (arXiv:2412.06410, appendix). `precision` is that of the encoder's product: float32, or tf32 or
        bfloat16 to choose the latents, whose activations are then computed in float32.
        """
        input_BD = self.encoder_input(x_BD)
        product = self.product(input_BD, precision)
        dead_M = dead_F.nonzero().squeeze(1)
        keep_dead = self.watch_dead(product, dead_M)
        kept = self.keep(product)
        error_BD = kept.decode(self.W_dec).add_(self.b_dec).sub_(x_BD)
        mse = error_BD.square().mean()
        grad_BD = error_BD * (2 / error_BD.numel())
        entries = kept.by_latent()
        value_grad = entries.value_gradients(grad_BD, self.W_dec)
        pre_grad, sparsity_loss = self.sparsity_gradients(entries, value_grad)
        W_dec_grad_FD = entries.weight_gradient(entries.value, grad_BD, out=self._grad_memory("W_dec"))
        W_enc_grad_FD = entries.weight_gradient(pre_grad, input_BD, out=self._grad_memory("W_enc"))
        pre_grad_F = entries.latent_sums(pre_grad)
        # a row's gradient times the row is the sum, over its entries, of activation times gradient
        radial_F = entries.latent_sums(entries.value * value_grad)

        aux_loss = mse.new_zeros(())
        if keep_dead is not None:  # a step on the dead latents alone, whose target is what the others left over
            kept_dead, W_dec_MD = keep_dead(), self.W_dec[dead_M]
            aux_error_BD = kept_dead.decode(W_dec_MD).add_(error_BD)
            aux_loss = self.aux_coefficient * aux_error_BD.square().mean()
            aux_grad_BD = aux_error_BD * (2 * self.aux_coefficient / error_BD.numel())
            dead = kept_dead.by_latent()
            value_grad = dead.value_gradients(aux_grad_BD, W_dec_MD)
            pre_grad = value_grad * dead.active
            W_dec_grad_FD[dead_M] += dead.weight_gradient(dead.value, aux_grad_BD)
            W_enc_grad_FD[dead_M] += dead.weight_gradient(pre_grad, input_BD)
            pre_grad_F[dead_M] += dead.latent_sums(pre_grad)
            radial_F[dead_M] += dead.latent_sums(dead.value * value_grad)

        self.W_dec.grad = W_dec_grad_FD.addcmul_(radial_F[:, None], self.W_dec, value=-1)
        self.W_enc.grad = W_enc_grad_FD
        self.b_dec.grad = grad_BD.sum(0)
        if self.centers_input:
            self.b_dec.grad -= pre_grad_F @ self.W_enc
        self.bias_gradients(pre_grad_F)
        self.observe(kept)
        l0 = kept.active.sum() / x_BD.shape[0]
        return Step(mse + sparsity_loss + aux_loss, mse, l0, aux_loss, kept.fired())

    def _grad_memory(self, name: str) -> Tensor:
        """Where a weight's gradient goes: the memory of the latest one."""
        weight = self.get_parameter(name)
        return torch.empty_like(weight) if weight.grad is None else weight.grad

    def observe(self, kept: Entries) -> None:
        """Learn from a training batch what is not learnt by gradients."""

    def sparsity_gradients(self, entries: LatentEntries, value_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the kept pre-activations given those of their activations, and the sparsity loss."""
        return value_grad * entries.active, value_grad.new_zeros(())

    def bias_gradients(self, pre_grad_F: Tensor) -> None:
        """Set the gradient of the encoder's bias, where there is one."""

    @torch.no_grad()
    def after_update(self) -> None:
        """Restore what the optimizer's step does not keep: decoder rows of unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))
