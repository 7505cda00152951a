"""ReLU SAEs: every positive latent is active, under an L1 penalty (Bricken et al. 2023, Towards Monosemanticity)."""

# B activations in a batch, F latents (dict_size)

from typing import Any, ClassVar

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.saes.encoder import Product, keep_above
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.sparse import DENSE_FROM, Dense, Entries, LatentEntries, RowSparse
from sae_sweeps.saes.trainable import EntryGradients

GAIN = 3.0  # times the step of a factor on thresholds, because Adam moves biases further between two batches
RELIEF = 5.0  # how fast the coefficient falls as L0 falls below its target, see `L0Target.scale_penalty`


class ReLUSAE(PenalizedSAE):
    """z = relu((x - b_dec) @ W_enc^T + b_enc), loss = mse + sparsity_coefficient * L1 of z, the mean over activations.

    The decoder's bias is subtracted from the input, as in that paper and in SAELens' "standard". b_enc starts
    `initial_threshold` standard deviations of the untrained pre-activations below 0. Starting at 0 would make half of
    the latents active, and more of them dead after the penalty has silenced those.

    With `target_l0` in place of a coefficient, one shift of all biases sets the untrained SAE to a multiple of this L0,
    and a shift after each step brings L0 to the target and keeps it there. The coefficient is that at which the shift
    would change error and penalty by opposite amounts (`L0Target`). It is lower while L0 is below its target, where the
    penalty would keep it: the method of multipliers corrects a multiplier by how far its constraint is missed (Nocedal
    & Wright, Numerical Optimization, chapter 17).

    Shifts are proportional to the norms of W_enc's rows, in units of the mean positive pre-activation. Pre-activations
    above 0 become rarer about exponentially, so a shift by a share of this mean changes L0 by the same share.
    """

    architecture = "relu"
    centers_input = True
    has_bias = True
    # L0 of the untrained SAE over its target; starting above the target leaves fewer dead latents in the end
    starting_l0_ratio: ClassVar[float] = 4.0

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
        self._shift_unit: float | Tensor = 1.0  # set by a training step, used by the update that follows
        # for an activation of unit variance, the norm of W_enc's row is the deviation of the pre-activation
        self._shift_biases(initial_threshold)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Return the coefficient of the penalty; with a target L0 that of the latest batch, ()."""
        multiplier = super().sparsity_coefficient
        return multiplier if self.l0_target is None else multiplier * self.l0_target.scale_penalty(RELIEF)

    @property
    def _norm_F(self) -> Tensor:
        return self.W_enc.detach().norm(dim=1)

    @torch.no_grad()
    def _shift_biases(self, by: float | Tensor) -> None:
        """Subtract a multiple of the norm of W_enc's row from each bias, which makes latents less active."""
        self.get_parameter("b_enc").sub_(by * self._norm_F)

    @torch.no_grad()
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Shift the biases so that L0 on these pre-activations is `starting_l0_ratio` times its target."""
        assert self.l0_target is not None, "the SAE has a target"
        self._shift_biases(self.l0_target.find_starting_level(pre_RF, self._norm_F, self.starting_l0_ratio))

    def keep(self, product: Product) -> Entries:
        """Select the positive entries; every entry where those are many."""
        return keep_positive(product, DENSE_FROM) or Dense(product.to_dense().relu_())

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the positive entries."""
        kept = keep_positive(product)
        assert kept is not None, "there is no upper limit"
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE in which all thresholds are 0."""
        return self._build_inference_sae(threshold=torch.zeros_like(self.W_dec[:, 0]))

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the coefficient and the unit of the shift that follows, if there is a target."""
        if self.l0_target is not None:
            self._observe_shift(entries, value_grad * entries.active)

    def _observe_shift(self, entries: LatentEntries, pre_grad: Tensor) -> None:
        """Update `l0_target` given the error's gradient by the pre-activations, which a shift moves."""
        assert self.l0_target is not None, "the SAE has a target"
        batch, positive = entries.shape[0], entries.pre > 0
        norm = entries.gather(self._norm_F)
        moved = positive * norm
        self._shift_unit = (positive * entries.pre / norm).sum() / positive.sum().clamp(min=1)
        l0 = entries.active.sum() / batch
        self.l0_target.update(l0, -(moved * pre_grad).sum(), l0.to(moved.dtype), moved.sum() / batch)

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients by the positive pre-activations, and the L1 penalty on them."""
        return EntryGradients(*self.add_penalty(entries, value_grad * entries.active))

    def add_penalty(self, entries: LatentEntries, pre_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Add the gradient of the L1 penalty to that of the error, `pre_grad`; return the sum and the penalty."""
        batch, positive = entries.shape[0], entries.pre > 0
        coefficient = self.sparsity_coefficient / batch
        return (pre_grad + coefficient) * positive, coefficient * entries.pre.sum()

    @torch.no_grad()
    def after_update(self) -> None:
        """Restore decoder rows of unit norm, and shift the biases towards the target L0."""
        super().after_update()
        if self.l0_target is not None:
            self._shift_biases(GAIN * self.l0_target.compute_factor().log() * self._shift_unit)


def keep_positive(product: Product, at_most: float = 1.0) -> RowSparse | None:
    """Keep the positive entries; return None if more than the share `at_most` of the first block are positive."""
    return keep_above(product, product.input_BD.new_zeros(product.shape[1]), at_most)
