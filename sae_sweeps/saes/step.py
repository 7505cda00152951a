"""What a training step consists of: its variants, the results of its parts, and the auxiliary loss on dead latents."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents, R rows decoded (B, or B for each
# prefix of a Matryoshka SAE)

from dataclasses import dataclass, field

from torch import Tensor

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
class WeightGradients:
    """Gradients of a training step, summed over the batch."""

    W_dec_FD: Tensor  # includes the part along W_dec's rows, which `_set_gradients` removes
    W_enc_FD: Tensor
    pre_F: Tensor  # sum of the gradients by each latent's pre-activations
    radial_F: Tensor  # dot product of decoder row and gradient: the sum of activation times gradient by the activation


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

    def add_to(self, sums: WeightGradients, input_BD: Tensor) -> None:
        """Add the gradients by the dead latents' weights to `sums`. `input_BD`: the encoder's input"""
        columns, dead_M = self.dead.to_columns(), self.dead_M
        value_grad = columns.value_gradients(self.grad_BD, self.W_dec_MD)
        pre_grad = value_grad * columns.active
        sums.W_dec_FD[dead_M] += columns.weight_gradient(columns.value, self.grad_BD)
        sums.W_enc_FD[dead_M] += columns.weight_gradient(pre_grad, input_BD)
        sums.pre_F[dead_M] += columns.latent_sums(pre_grad)
        sums.radial_F[dead_M] += columns.latent_sums(columns.value * value_grad)
