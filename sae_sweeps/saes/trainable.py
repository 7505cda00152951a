"""What all SAEs that are trained here share: their beginning, and the shape of a training step."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents, N kept entries, R rows decoded (B, or
# a multiple of it)

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import SAEConfig
from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.sparse import Entries, LatentEntries


@dataclass
class Step:
    """What one training step computed; the gradients are in the parameters' `.grad`."""

    loss: Tensor  # everything that was differentiated
    mse: Tensor  # mean squared error per element, of normalised activations
    l0: Tensor  # active latents per activation
    aux_loss: Tensor
    fired_F: Tensor  # bool: was active on at least one activation of the batch


@dataclass
class Fit:
    """How well a batch is reconstructed, and where the gradients of the decoding come from."""

    loss: Tensor
    error_BD: Tensor  # of the reconstruction from all that is kept
    entries: LatentEntries  # the kept ones, in the rows that are decoded
    grad_RD: Tensor  # the loss's gradient towards what each row adds; of the first B rows, towards b_dec as well
    pre_grad: Tensor | None = None  # of the entries' pre-activations, where these reconstruct as well


class TrainableSAE(SAE):
    """An SAE whose loss and gradients `training_step` computes by hand on the kept entries (see `sparse.py`).

    The rows of W_dec have unit norm.
    """

    inference_class: ClassVar[type[InferenceSAE]] = InferenceSAE  # a subclass where its selection rule is another
    aux_coefficient: float = 0.0  # weight of the auxiliary loss on dead latents
    has_bias: ClassVar[bool]  # whether there is a b_enc

    def __init__(
        self, d_in: int, dict_size: int, *, normalize_input: bool = SAEConfig.normalize_input, seed: int = 0
    ) -> None:
        """`normalize_input`: each activation minus its mean over D, over its standard deviation."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        W_enc_DF = torch.empty(d_in, dict_size)
        nn.init.kaiming_uniform_(W_enc_DF, generator=generator)  # columns of norm sqrt(2 D / F)
        self.W_enc = nn.Parameter(W_enc_DF.T.contiguous())
        self.W_dec = nn.Parameter(nn.functional.normalize(self.W_enc.detach(), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_parameter("b_enc", nn.Parameter(torch.zeros(dict_size)) if self.has_bias else None)
        self.normalization = "layer_norm" if normalize_input else "none"

    @torch.no_grad()
    def center(self, mean_D: Tensor) -> None:
        """Start from reconstructing the mean of the (normalised) activations, encoding deviations from it."""
        self.b_dec.copy_(mean_D)
        if self.b_enc is not None and not self.centers_input:
            self.b_enc.copy_(-self.W_enc @ mean_D)

    @abstractmethod
    def for_inference(self) -> InferenceSAE:
        """Return what is saved: an InferenceSAE with these weights and the architecture's selection rule."""

    def _build_inference_sae(self, **selection: Any) -> InferenceSAE:
        """Build the InferenceSAE of these weights and this selection rule: `k`, or `threshold` and the like."""
        return self.inference_class(
            self.architecture,
            W_enc=self.W_enc,
            W_dec=self.W_dec,
            b_enc=self.b_enc,
            b_dec=self.b_dec,
            centers_input=self.centers_input,
            normalization=self.normalization,
            **selection,
        )

    @abstractmethod
    def keep(self, product: Product) -> Entries:
        """The entries that take part in a training step."""

    def watch_dead(self, product: Product, dead_M: Tensor) -> Callable[[], Entries] | None:
        """Have the entries of an auxiliary loss among the dead latents found on the way; what is returned gives them
        once `keep` is done. None if there is no such loss."""
        return None

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        """Loss and gradients on a batch of normalised activations; `dead_F` marks the dead latents.

        The loss is that of the reconstruction (`fit`) plus what the architecture adds (`sparsity_gradients`,
        `watch_dead`). Gradients are set, not accumulated; that of W_dec is without its part along the rows, whose norm
        is fixed (arXiv:2412.06410, appendix). `precision` is that of the encoder's product: float32, or tf32 or
        bfloat16 to choose the latents, whose activations are then computed in float32.
        """
        input_BD = self.encoder_input(x_BD)
        product = self.product(input_BD, precision)
        dead_M = dead_F.nonzero().squeeze(1)
        keep_dead = self.watch_dead(product, dead_M)
        kept = self.keep(product)
        entries = kept.to_columns()
        fit = self.fit(kept, entries, x_BD)
        value_grad = fit.entries.value_gradients(fit.grad_RD, self.W_dec)
        pre_grad, sparsity_loss = self.sparsity_gradients(entries, value_grad, fit.pre_grad)
        W_dec_grad_FD = fit.entries.weight_gradient(entries.value, fit.grad_RD, out=self._grad_memory("W_dec"))
        W_enc_grad_FD = entries.weight_gradient(pre_grad, input_BD, out=self._grad_memory("W_enc"))
        pre_grad_F = entries.latent_sums(pre_grad)
        # a row's gradient times the row is the sum, over its entries, of activation times gradient
        radial_F = entries.latent_sums(entries.value * value_grad)

        aux_loss = fit.loss.new_zeros(())
        if keep_dead is not None:  # a step on the dead latents alone, whose target is what the others left over
            kept_dead, W_dec_MD = keep_dead(), self.W_dec[dead_M]
            aux_error_BD = kept_dead.decode(W_dec_MD).add_(fit.error_BD)
            aux_loss = self.aux_coefficient * aux_error_BD.square().mean()
            aux_grad_BD = aux_error_BD * (2 * self.aux_coefficient / aux_error_BD.numel())
            dead = kept_dead.to_columns()
            value_grad = dead.value_gradients(aux_grad_BD, W_dec_MD)
            pre_grad = value_grad * dead.active
            W_dec_grad_FD[dead_M] += dead.weight_gradient(dead.value, aux_grad_BD)
            W_enc_grad_FD[dead_M] += dead.weight_gradient(pre_grad, input_BD)
            pre_grad_F[dead_M] += dead.latent_sums(pre_grad)
            radial_F[dead_M] += dead.latent_sums(dead.value * value_grad)

        self.W_dec.grad = W_dec_grad_FD.addcmul_(radial_F[:, None], self.W_dec, value=-1)
        self.W_enc.grad = W_enc_grad_FD
        self.b_dec.grad = fit.grad_RD[: len(x_BD)].sum(0)
        if self.centers_input:
            self.b_dec.grad -= pre_grad_F @ self.W_enc
        if self.b_enc is not None:
            self.b_enc.grad = pre_grad_F
        self.observe(kept)
        l0 = kept.active.sum() / x_BD.shape[0]
        mse = fit.error_BD.square().mean()
        return Step(fit.loss + sparsity_loss + aux_loss, mse, l0, aux_loss, kept.find_fired())

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        """The mean squared error per element; `entries` are the kept ones latent by latent."""
        error_BD = kept.decode(self.W_dec).add_(self.b_dec).sub_(x_BD)
        return Fit(error_BD.square().mean(), error_BD, entries, error_BD * (2 / error_BD.numel()))

    def _grad_memory(self, name: str) -> Tensor:
        """Where a weight's gradient goes: the memory of the latest one."""
        weight = self.get_parameter(name)
        return torch.empty_like(weight) if weight.grad is None else weight.grad

    def observe(self, kept: Entries) -> None:
        """Learn from a training batch what is not learnt by gradients."""

    def sparsity_gradients(
        self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the kept pre-activations given those of their activations, and what the fit says of their own if
        they reconstruct as well; and the sparsity loss."""
        return value_grad * entries.active, value_grad.new_zeros(())

    @torch.no_grad()
    def after_update(self) -> None:
        """Restore what the optimizer's step does not keep: decoder rows of unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))
