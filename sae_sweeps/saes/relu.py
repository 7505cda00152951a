"""ReLU: every positive latent is active, under an L1 penalty (Bricken et al. 2023, Towards Monosemanticity)."""

# B activations in a batch, F latents (dict_size)

from typing import Any

import torch
from torch import Tensor

from sae_sweeps.saes.encoder import Product, above
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.sparse import DENSE_FROM, Entries, Kept, LatentEntries, Whole
from sae_sweeps.saes.trainable import Step

# the share of L0 that is taken to go as biases fall by a standard deviation of the pre-activations; how much it is
# depends on where these lie, which no kernel looks at here
ELASTICITY = 1.0


class ReLUSAE(PenalizedSAE):
    """z = relu((x - b_dec) @ W_enc^T + b_enc), loss = mse + sparsity_coefficient * L1 of z, the mean over activations.

    The decoder's bias is subtracted from the input, as there and in SAELens' "standard". b_enc starts at minus
    `initial_threshold` standard deviations of the untrained pre-activations: where it starts at 0 (`initial_threshold`
    of 0), half of the latents are active at first, and more of them are dead once the penalty has silenced those.

    With `target_l0` in place of a coefficient, one shift of all biases after each step, in such standard deviations (as
    the first batch has them: activations may be large or small), keeps L0 there; the coefficient is that at which the
    shift would change error and penalty by opposite amounts (`L0Target`).
    """

    architecture = "relu"
    centers_input = True
    has_bias = True

    input_scale: Tensor

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = None,
        *,
        initial_threshold: float = 1.5,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, sparsity_coefficient, **options)
        self.register_buffer("input_scale", torch.ones(()))  # of the elements of the encoder's input
        self.initial_threshold = initial_threshold
        self._shift_biases(initial_threshold)

    @property
    def _deviation_F(self) -> Tensor:
        """The standard deviations of pre-activations, as untrained ones would have them."""
        return self.W_enc.detach().norm(dim=1) * self.input_scale

    @torch.no_grad()
    def _shift_biases(self, by: float | Tensor) -> None:
        """Make latents less active, by standard deviations."""
        self.get_parameter("b_enc").sub_(by * self._deviation_F)

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        if self.l0_target is not None and self.l0_target.batches == 0:
            self._shift_biases(-self.initial_threshold)
            self.input_scale.copy_(self.encoder_input(x_BD).square().mean().sqrt())
            self._shift_biases(self.initial_threshold)
        return super().training_step(x_BD, dead_F, precision)

    def keep(self, product: Product) -> Entries:
        return positive(product, DENSE_FROM) or Whole(product.whole().relu_())

    def keep_for_inference(self, product: Product) -> Kept:
        kept = positive(product)
        assert kept is not None, "never too many"
        return kept

    def for_inference(self) -> InferenceSAE:
        return self._as_trained(threshold=torch.zeros_like(self.W_dec[:, 0]))

    def sparsity_gradients(
        self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.with_penalty(entries, value_grad * entries.active)

    def with_penalty(self, entries: LatentEntries, pre_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the positive pre-activations given those of the error, and the L1 penalty on them."""
        batch, positive = entries.shape[0], entries.pre > 0
        if self.l0_target is not None:
            moved = positive * entries.per_latent(self._deviation_F)
            l0 = entries.active.sum() / batch
            self.l0_target.observe(l0, -(moved * pre_grad).sum(), ELASTICITY * l0.to(moved.dtype), moved.sum() / batch)
        coefficient = self.sparsity_coefficient / batch
        return (pre_grad + coefficient) * positive, coefficient * entries.pre.sum()

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        if self.l0_target is not None:
            self._shift_biases(self.l0_target.factor().log())


def positive(product: Product, at_most: float = 1.0) -> Kept | None:
    """The entries above zero; None if more than the share `at_most` of the first block are."""
    return above(product, product.input_BD.new_zeros(product.shape[1]), at_most)
