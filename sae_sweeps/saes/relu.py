"""ReLU: every positive latent is active, under an L1 penalty (Bricken et al. 2023, Towards Monosemanticity)."""

# B activations in a batch, F latents (dict_size)

from typing import Any, ClassVar

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.saes.encoder import Product, above
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.sparse import DENSE_FROM, Dense, Entries, LatentEntries, RowSparse

GAIN = 3.0  # over the step of a factor on thresholds: Adam moves biases further between two batches
RELIEF = 5.0  # shares of the coefficient that are taken off for a share of the target that L0 is short of


class ReLUSAE(PenalizedSAE):
    """z = relu((x - b_dec) @ W_enc^T + b_enc), loss = mse + sparsity_coefficient * L1 of z, the mean over activations.

    The decoder's bias is subtracted from the input, as there and in SAELens' "standard". b_enc starts at minus
    `initial_threshold` standard deviations of the untrained pre-activations: where it starts at 0 (`initial_threshold`
    of 0), half of the latents are active at first, and more of them are dead once the penalty has silenced those.

    With `target_l0` in place of a coefficient, one shift of all biases gives the untrained SAE some times this L0, and
    one after each step brings it there and keeps it. The coefficient is that at which the shift would change error and
    penalty by opposite amounts (`L0Target`), and less while L0 is below its target, where the penalty would hold it (so
    the method of multipliers corrects a multiplier by how far its constraint is missed; Nocedal & Wright, Numerical
    Optimization, chapter 17).

    Shifts are in units of the mean positive pre-activation, by the norm of W_enc's row each. Pre-activations above 0
    become rarer about exponentially, so that a share of this mean takes the same share of L0.
    """

    architecture = "relu"
    centers_input = True
    has_bias = True
    first_times: ClassVar[float] = 4.0  # the target is L0 at first: with more, fewer latents are dead in the end

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = None,
        *,
        initial_threshold: float = PenaltyConfig.initial_threshold,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, sparsity_coefficient, **options)
        self._unit: float | Tensor = 1.0  # of shifts, from a training step to its update
        # the untrained pre-activation of an activation of unit variance is the norm of W_enc's row, on average
        self._shift_biases(initial_threshold)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        multiplier = super().sparsity_coefficient
        return multiplier if self.l0_target is None else multiplier * self.l0_target.relief(RELIEF)

    @property
    def _norm_F(self) -> Tensor:
        return self.W_enc.detach().norm(dim=1)

    @torch.no_grad()
    def _shift_biases(self, by: float | Tensor) -> None:
        """Make latents less active, by multiples of the rows' norms."""
        self.get_parameter("b_enc").sub_(by * self._norm_F)

    @torch.no_grad()
    def meet_target(self, pre_RF: Tensor) -> None:
        assert self.l0_target is not None, "made with target_l0"
        self._shift_biases(self.l0_target.first_level(pre_RF, self._norm_F, self.first_times))

    def keep(self, product: Product) -> Entries:
        return positive(product, DENSE_FROM) or Dense(product.whole().relu_())

    def keep_for_inference(self, product: Product) -> RowSparse:
        kept = positive(product)
        assert kept is not None, "never too many"
        return kept

    def for_inference(self) -> InferenceSAE:
        return self._build_inference_sae(threshold=torch.zeros_like(self.W_dec[:, 0]))

    def sparsity_gradients(
        self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.with_penalty(entries, value_grad * entries.active)

    def with_penalty(self, entries: LatentEntries, pre_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the positive pre-activations given those of the error, and the L1 penalty on them."""
        batch, positive = entries.shape[0], entries.pre > 0
        if self.l0_target is not None:
            norm = entries.gather(self._norm_F)
            moved = positive * norm
            self._unit = (positive * entries.pre / norm).sum() / positive.sum().clamp(min=1)
            l0 = entries.active.sum() / batch
            self.l0_target.observe(l0, -(moved * pre_grad).sum(), l0.to(moved.dtype), moved.sum() / batch)
        coefficient = self.sparsity_coefficient / batch
        return (pre_grad + coefficient) * positive, coefficient * entries.pre.sum()

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        if self.l0_target is not None:
            self._shift_biases(GAIN * self.l0_target.factor().log() * self._unit)


def positive(product: Product, at_most: float = 1.0) -> RowSparse | None:
    """The entries above zero; None if more than the share `at_most` of the first block are."""
    return above(product, product.input_BD.new_zeros(product.shape[1]), at_most)
