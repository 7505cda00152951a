"""What a training step consists of: its variants, the results of its parts, and the auxiliary loss on dead latents."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents, R rows decoded (B, or B for each
# prefix of a Matryoshka SAE)

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.sparse import Entries, LatentEntries


@dataclass(frozen=True)
class Variant:
    """How a training step is taken. The defaults are the settings' defaults; `training=paper` chooses the others."""

    has_unit_rows: bool = True  # W_dec's rows have unit norm during the step; False: a norm near 1
    counts_batch: bool = False  # a latent that is active on the batch is not dead, whatever `dead_F` marks
    has_residual_gradient: bool = False  # differentiate the auxiliary loss by the residual as well


@dataclass
class Step:
    """Results of one training step; the gradients are in the parameters' `.grad`."""

    loss: Tensor  # the sum of all terms that were differentiated
    mse: Tensor  # mean squared error per element, of normalised activations
    l0: Tensor  # mean number of active latents per activation
    aux_loss: Tensor  # auxiliary loss on the dead latents, times `aux_coefficient`
    fired_F: Tensor  # bool: active on at least one activation of the batch


@dataclass
class Fit:
    """The reconstruction loss of a batch, with the loss's gradients by the decoded rows (R, D)."""

    loss: Tensor
    mse: Tensor  # mean squared error per element of the reconstruction from all kept entries
    error_BD: Tensor  # this reconstruction minus the activations
    entries: LatentEntries  # the kept entries, each in the decoded row to which it contributes
    grad_RD: Tensor  # gradient of the loss by each decoded row; the sum of the first B rows is the gradient of b_dec
    pre_grad: Tensor | None = None  # gradient by the entries' pre-activations, if the gate reconstructs as well

    def add_gradient(self, grad_BD: Tensor) -> None:
        """Add a gradient by the reconstruction from all kept entries, to which every decoded row contributes."""
        self.grad_RD.view(-1, *grad_BD.shape).add_(grad_BD)


@dataclass
class EntryGradients:
    """Gradients of a batch's reconstruction and sparsity loss by the kept pre-activations, and the sparsity loss."""

    pre: Tensor  # gradient by the pre-activation of each kept entry
    sparsity_loss: Tensor
    # gradients of parameters that only this architecture has, by parameter name
    parameters: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class AuxiliaryFit:
    """The auxiliary loss of a batch: the dead latents alone reconstruct the residual of the kept latents."""

    dead: Entries  # the entries of the dead latents that reconstruct the residual, (B, M)
    dead_M: Tensor  # indices of the dead latents
    W_dec_MD: Tensor
    loss: Tensor  # times the coefficient
    grad_BD: Tensor  # gradient of the loss by the reconstruction from dead latents, and by the one from kept latents

    @classmethod
    def from_entries(
        cls, dead: Entries, dead_M: Tensor, W_dec_MD: Tensor, error_BD: Tensor, coefficient: float
    ) -> "AuxiliaryFit":
        """Compute the loss of entries `dead`. The residual is -`error_BD`."""
        aux_error_BD = dead.decode(W_dec_MD).add_(error_BD)
        loss = coefficient * aux_error_BD.square().mean()
        return cls(dead, dead_M, W_dec_MD, loss, aux_error_BD * (2 * coefficient / aux_error_BD.numel()))

    def gradients(self, input_BD: Tensor) -> "AuxiliaryGradients":
        """Return the gradients by the dead latents' weights. `input_BD`: the encoder's input"""
        columns = self.dead.to_columns()
        value_grad = columns.value_gradients(self.grad_BD, self.W_dec_MD)
        pre_grad = value_grad * columns.active
        return AuxiliaryGradients(
            self.dead_M,
            columns.weight_gradient(columns.value, self.grad_BD),
            columns.weight_gradient(pre_grad, input_BD),
            columns.latent_sums(pre_grad),
            columns.latent_sums(columns.value * value_grad),
        )


@dataclass
class AuxiliaryGradients:
    """Gradients of the auxiliary loss by the weights of the dead latents `dead_M`, summed over the batch."""

    dead_M: Tensor
    W_dec_MD: Tensor
    W_enc_MD: Tensor
    pre_M: Tensor  # sum of the gradients by each latent's pre-activations
    radial_M: Tensor  # dot product of decoder row and gradient: the sum of activation times gradient by the activation


@dataclass
class StepGradients:
    """What the gradients of a step consist of: those of vectors, and the entries that add up to those of matrices.

    The gradient of W_dec is entries.value^T @ fit.grad_RD and that of W_enc is pre^T @ input_BD, plus `auxiliary`. The
    part of W_dec's gradient along its rows has still to be taken away, because the norm of a row is fixed.
    """

    step: Step
    fit: Fit
    entries: LatentEntries
    pre: Tensor  # gradient by the pre-activation of each entry
    value_grad: Tensor  # gradient by the activation of each entry
    input_BD: Tensor
    auxiliary: AuxiliaryGradients | None
    vectors: dict[str, Tensor]  # the gradients of all parameters but W_enc and W_dec, by name

    def sum_radial(self) -> Tensor:
        """Return the dot product of each decoder row with its gradient, (F,)."""
        radial_F = self.entries.latent_sums(self.entries.value * self.value_grad)
        if self.auxiliary is not None:
            radial_F[self.auxiliary.dead_M] += self.auxiliary.radial_M
        return radial_F

    def sum_weights(self, W_dec_out: Tensor | None = None, W_enc_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the gradients of W_dec and W_enc, (F, D) each, in the given memory if there is any."""
        W_dec_FD = self.fit.entries.weight_gradient(self.entries.value, self.fit.grad_RD, out=W_dec_out)
        W_enc_FD = self.entries.weight_gradient(self.pre, self.input_BD, out=W_enc_out)
        if self.auxiliary is not None:
            W_dec_FD[self.auxiliary.dead_M] += self.auxiliary.W_dec_MD
            W_enc_FD[self.auxiliary.dead_M] += self.auxiliary.W_enc_MD
        return W_dec_FD, W_enc_FD

    def set_on(self, sae: SAE, *, has_unit_rows: bool) -> None:
        """Set the `.grad` of every parameter of the SAE.

        The gradient of W_dec is projected orthogonally to the rows, because the norm of a row is fixed
        (arXiv:2412.06410, appendix). has_unit_rows: whether the norm is 1
        """
        radial_F = self.sum_radial()
        if not has_unit_rows:
            radial_F = radial_F / sae.W_dec.square().sum(1)
        W_dec_FD, W_enc_FD = self.sum_weights(*(_take_memory(weight) for weight in (sae.W_dec, sae.W_enc)))
        sae.W_dec.grad = W_dec_FD.addcmul_(radial_F[:, None], sae.W_dec, value=-1)
        sae.W_enc.grad = W_enc_FD
        for name, gradient in self.vectors.items():
            sae.get_parameter(name).grad = gradient


def _take_memory(weight: Tensor) -> Tensor | None:
    """Return memory for the gradient of a parameter: the gradient of the previous step, or a new tensor.

    Returns None on a GPU, where new memory costs nothing; the previous gradient's is then free to be reused.
    """
    if weight.is_cuda:
        weight.grad = None
        return None
    return torch.empty_like(weight) if weight.grad is None else weight.grad
