"""What all sparse autoencoders share: parameters, normalisation, inference, and the shape of a training step."""

# B activations in a batch, D model width, F latents (dict_size), N kept entries

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sae_sweeps.saes.sparse import Kept

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

    Shapes: W_enc (D, F), b_enc (F,), W_dec (F, D) with rows of unit norm, b_dec (D,).
    """

    architecture: ClassVar[str]
    centers_input: ClassVar[bool]  # whether b_dec is subtracted from the encoder's input

    def __init__(self, d_in: int, dict_size: int, *, normalize_input: bool = True, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        W_enc_DF = torch.empty(d_in, dict_size)
        nn.init.kaiming_uniform_(W_enc_DF, generator=generator)  # columns of norm sqrt(2 D / F)
        self.W_enc = nn.Parameter(W_enc_DF)
        self.W_dec = nn.Parameter(nn.functional.normalize(W_enc_DF.T, dim=1).contiguous())
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
        std_B1 = centered_BD.std(-1, keepdim=True)
        return Normalized(centered_BD / (std_B1 + NORMALIZE_EPSILON), mean_B1, std_B1)

    @torch.no_grad()
    def center(self, mean_D: Tensor) -> None:
        """Start from reconstructing the mean of the (normalised) activations, encoding deviations from it."""
        self.b_dec.copy_(mean_D)

    def encoder_input(self, x_BD: Tensor) -> Tensor:
        return x_BD - self.b_dec if self.centers_input else x_BD

    def pre_activations(self, input_BD: Tensor) -> Tensor:
        return torch.relu_(input_BD @ self.W_enc)

    @abstractmethod
    def keep(self, pre_BF: Tensor) -> Kept:
        """The entries that take part in a training step."""

    @abstractmethod
    def keep_for_inference(self, pre_BF: Tensor) -> Kept:
        """The active latents of each activation when the SAE is used, whatever else is in the batch."""

    @torch.no_grad()
    def active(self, normalized: Normalized) -> Kept:
        return self.keep_for_inference(self.pre_activations(self.encoder_input(normalized.x_BD)))

    def reconstruct(self, kept: Kept, normalized: Normalized) -> Tensor:
        return normalized.restore(kept.decode(self.W_dec) + self.b_dec)

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
    def training_step(self, x_BD: Tensor, dead_F: Tensor) -> Step:
        """Loss and gradients on a batch of normalised activations; `dead_F` marks the dead latents.

        The loss is the mean squared error per element plus what the architecture adds (`sparsity_gradients`,
        `auxiliary`). Gradients are set, not accumulated.
        """
        input_BD = self.encoder_input(x_BD)
        pre_BF = self.pre_activations(input_BD)
        kept = self.keep(pre_BF)
        error_BD = kept.decode(self.W_dec) + self.b_dec - x_BD
        mse = error_BD.square().mean()

        grad_BD = error_BD * (2 / error_BD.numel())
        self.W_dec.grad = kept.transposed_product(kept.value_N, grad_BD)
        self.b_dec.grad = grad_BD.sum(0)
        pre_grad_N, sparsity_loss = self.sparsity_gradients(kept, kept.value_gradients(grad_BD, self.W_dec))
        W_enc_grad_FD = kept.transposed_product(pre_grad_N, input_BD)
        pre_grad_F = kept.column_sums(pre_grad_N)

        aux_loss = mse.new_zeros(())
        aux = self.auxiliary(pre_BF, dead_F, -error_BD)
        if aux is not None:
            aux_loss, aux_kept, aux_grad_BD = aux
            aux_pre_grad_N = aux_kept.value_gradients(aux_grad_BD, self.W_dec) * (aux_kept.value_N > 0)
            self.W_dec.grad += aux_kept.transposed_product(aux_kept.value_N, aux_grad_BD)
            W_enc_grad_FD += aux_kept.transposed_product(aux_pre_grad_N, input_BD)
            pre_grad_F += aux_kept.column_sums(aux_pre_grad_N)

        self.W_enc.grad = W_enc_grad_FD.T.contiguous()
        if self.centers_input:
            self.b_dec.grad -= self.W_enc @ pre_grad_F
        self.bias_gradients(pre_grad_F)
        self.observe(kept)
        active_N = kept.value_N > 0
        fired_F = torch.zeros_like(dead_F).index_fill_(0, kept.col_N[active_N], True)
        l0 = active_N.sum() / x_BD.shape[0]
        return Step(mse + sparsity_loss + aux_loss, mse, l0, aux_loss, fired_F)

    def observe(self, kept: Kept) -> None:
        """Learn from a training batch what is not learnt by gradients."""

    def sparsity_gradients(self, kept: Kept, value_grad_N: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the kept pre-activations given those of their values, and the sparsity loss."""
        return value_grad_N * (kept.value_N > 0), value_grad_N.new_zeros(())

    def auxiliary(self, pre_BF: Tensor, dead_F: Tensor, residual_BD: Tensor) -> tuple[Tensor, Kept, Tensor] | None:
        """The auxiliary loss, the entries it uses and its gradient with respect to their decoding; or None."""
        return None

    def bias_gradients(self, pre_grad_F: Tensor) -> None:
        """Set the gradient of the encoder's bias, where there is one."""

    @torch.no_grad()
    def remove_radial_gradient(self) -> None:
        """Take out of each decoder row's gradient the part along the row: the norm is fixed, only direction learns."""
        assert self.W_dec.grad is not None, "called between training_step and the optimizer's step"
        along_F1 = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
        self.W_dec.grad -= along_F1 * self.W_dec

    @torch.no_grad()
    def after_update(self) -> None:
        """Restore what the optimizer's step does not keep: decoder rows of unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))
