"""ReLU SAEs: every positive latent is active, under an L1 penalty (Bricken et al. 2023, Towards Monosemanticity)."""

# B activations in a batch, R of them in a sample, D model width, F latents (dict_size), N entries

from typing import ClassVar

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig, SAEConfig
from sae_sweeps.runtime.inputs import check_names
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.selection import keep_above
from sae_sweeps.saes.sparse import Dense, Entries, LatentEntries, RowSparse, dense_from
from sae_sweeps.saes.step import EntryGradients

GAIN = 3.0  # multiple of `L0Target`'s step for thresholds, because Adam moves biases further between two batches
RELIEF = 5.0  # relative fall of the coefficient per relative fall of L0 below the target, see `L0Target.scale_penalty`


class ReLUSAE(PenalizedSAE):
    """z = relu((x - b_dec) @ W_enc^T + b_enc), loss = mse + sparsity_coefficient * L1 of z, the mean over activations.

    The decoder's bias is subtracted from the input, as in Bricken et al. and in SAELens' "standard". b_enc starts
    `initial_threshold` standard deviations of the untrained pre-activations below 0. Starting at 0 would make half of
    the latents active, and more latents would be dead after the penalty has silenced most of that half.

    With `target_l0` in place of a coefficient, one shift of all biases sets the untrained SAE to a multiple of this L0,
    and a shift after each step brings L0 to the target and keeps L0 there. The coefficient is the value at which the
    shift would change error and penalty by opposite amounts (`L0Target`). The coefficient is reduced while L0 is below
    the target, because the full penalty would keep L0 there: the method of multipliers corrects a multiplier by the
    amount by which the constraint is missed (Nocedal & Wright, Numerical Optimization, chapter 17).

    Shifts are proportional to the norms of W_enc's rows, in units of the mean positive pre-activation. Pre-activations
    above 0 become rarer about exponentially, so a shift by a share of this mean changes L0 by the same share.
    """

    architecture = "relu"
    centers_input = True
    has_bias = True
    shift_unit: Tensor
    # L0 of the untrained SAE over the target L0; starting above the target leaves fewer dead latents in the end
    starting_l0_ratio: ClassVar[float] = 4.0

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int | None = None,
        *,
        sparsity_coefficient: float | None = PenaltyConfig.sparsity_coefficient,
        target_l0: float | None = PenaltyConfig.target_l0,
        initial_threshold: float = PenaltyConfig.initial_threshold,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(
            d_in,
            dict_size,
            k,
            sparsity_coefficient=sparsity_coefficient,
            target_l0=target_l0,
            normalize_input=normalize_input,
            seed=seed,
        )
        self._require_options(initial_threshold=initial_threshold)
        self.initial_threshold = initial_threshold
        # mean positive pre-activation over the norm of W_enc's row; set by a training step, used by `after_update`
        self.register_buffer("shift_unit", torch.tensor(1.0), persistent=False)
        # for activations of unit variance, the norm of a row of W_enc is the pre-activation's standard deviation
        self._shift_biases(initial_threshold)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Return the coefficient of the penalty; with a target L0, the estimate after the latest batch, ().

        The estimate is reduced while L0 is below the target.
        """
        multiplier = super().sparsity_coefficient
        return multiplier if self.l0_target is None else multiplier * self.l0_target.scale_penalty(RELIEF)

    @property
    def _norm_F(self) -> Tensor:
        return self.W_enc.detach().norm(dim=1)

    @torch.no_grad()
    def _shift_biases(self, by: float | Tensor) -> None:
        """Subtract from each bias `by` times the norm of the latent's row of W_enc, which makes latents less active."""
        self.get_parameter("b_enc").sub_(by * self._norm_F)

    @torch.no_grad()
    def set_deviation(self, deviation: Tensor) -> None:
        """Set the biases to minus `initial_threshold` deviations of the pre-activations, ()."""
        self.get_parameter("b_enc").copy_((-self.initial_threshold * deviation).expand(self.dict_size))

    @torch.no_grad()
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Shift the biases so that L0 on the pre-activations of R activations is `starting_l0_ratio` * target L0."""
        assert self.l0_target is not None, "the SAE has a target L0"
        self._shift_biases(self.l0_target.find_starting_level(pre_RF, self._norm_F, self.starting_l0_ratio))

    def keep(self, product: Product) -> Entries:
        """Select the positive pre-activations; all entries, `Dense`, if more than `dense_from` of them are positive."""
        at_most = dense_from(product.shape, product.input_BD.device)
        return keep_positive(product, at_most) or Dense(product.to_dense().relu_())

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the positive pre-activations."""
        kept = keep_positive(product)
        assert kept is not None, "keep_positive returns entries if no `at_most` is given"
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights and a threshold of 0 for every latent."""
        return self._build_inference_sae(threshold=torch.zeros_like(self.W_dec[:, 0]))

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the penalty coefficient and the unit of the next bias shift from this batch, if there is a target L0.

        `value_grad` is the gradient of the error by the activations; `pre_grad` is unused.
        """
        if self.l0_target is not None:
            self._observe_shift(entries, value_grad * entries.active)

    def _observe_shift(self, entries: LatentEntries, pre_grad: Tensor) -> None:
        """Update the penalty coefficient and the unit of the next bias shift, from a batch of an SAE with a target L0.

        `pre_grad` is the gradient of the error by the kept pre-activations, which a shift of the biases moves.
        """
        assert self.l0_target is not None, "the SAE has a target L0"
        batch, positive = entries.shape[0], entries.pre > 0
        norm = entries.gather(self._norm_F)
        moved = positive * norm
        self.shift_unit.copy_(entries.total(positive * entries.pre / norm) / positive.sum().clamp(min=1))
        l0 = entries.active.sum() / batch
        self.l0_target.update(l0, -entries.total(moved * pre_grad), l0.to(moved.dtype), entries.total(moved) / batch)

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients of error and L1 penalty by the kept pre-activations, and the penalty.

        `value_grad` is the gradient of the error by the activations; `pre_grad` is unused.
        """
        return EntryGradients(*self.add_penalty(entries, value_grad * entries.active))

    def add_penalty(self, entries: LatentEntries, pre_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Add the gradient of the L1 penalty to `pre_grad`, the gradient of the error by the kept pre-activations.

        Returns: the sum, in the shape of `pre_grad`, and the penalty of the batch, ().
        """
        batch, positive = entries.shape[0], entries.pre > 0
        coefficient = self.sparsity_coefficient / batch
        return (pre_grad + coefficient) * positive, coefficient * entries.total(entries.pre)

    @torch.no_grad()
    def after_update(self) -> None:
        """Shift the biases towards the target L0 if there is one."""
        if self.l0_target is not None:
            self._shift_biases(GAIN * self.l0_target.compute_factor().log() * self.shift_unit)


def keep_positive(product: Product, at_most: float = 1.0) -> RowSparse | None:
    """Return the positive pre-activations (B, F) as sparse entries.

    Returns None if more than the share `at_most` of the first block's entries are positive: dense is then faster.
    """
    return keep_above(product, product.input_BD.new_zeros(product.shape[1]), at_most)
