"""JumpReLU: a latent is active where it exceeds a threshold of its own, learnt under an L0 penalty
(arXiv:2407.14435), whose coefficient is given, or found on the way to a given L0."""

# B activations in a batch, D model width, F latents (dict_size)

from typing import Any

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import JumpReLUConfig
from sae_sweeps.saes.encoder import Product, above
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.sparse import DENSE_FROM, Dense, Entries, LatentEntries, RowSparse


class JumpReLUSAE(PenalizedSAE):
    """pre = relu(x @ W_enc^T + b_enc), z = pre * (pre > threshold), loss = mse + sparsity_coefficient * L0.

    The thresholds' gradients are estimated with a rectangle kernel of width `bandwidth` (arXiv:2407.14435, equations 11
    and 12): entries within half a bandwidth of their threshold move it. The parameter is the threshold itself, kept
    at 0 or above; it starts at `initial_threshold` standard deviations of the untrained pre-activations.

    With `target_l0` in place of a coefficient, one factor on all thresholds gives the untrained SAE this L0, and one
    after each step keeps it there; the coefficient is what the batches say it is worth (`L0Target`).
    """

    architecture = "jumprelu"
    centers_input = False
    has_bias = True

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = None,
        *,
        bandwidth: float = JumpReLUConfig.bandwidth,
        initial_threshold: float = JumpReLUConfig.initial_threshold,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, sparsity_coefficient, **options)
        self.bandwidth = bandwidth
        # the untrained pre-activation of an activation of unit variance is the norm of W_enc's row, on average
        self.threshold = nn.Parameter(initial_threshold * self.W_enc.detach().norm(dim=1))

    @torch.no_grad()
    def keep(self, product: Product) -> Entries:
        """The active entries, and the inactive ones near their threshold; every entry where those are many."""
        entries: Entries | None = above(product, self.threshold - self.bandwidth / 2, at_most=DENSE_FROM)
        if entries is None:
            entries = Dense(product.whole().relu_())
        entries.value = entries.pre * (entries.pre > entries.gather(self.threshold))
        return entries

    def keep_for_inference(self, product: Product) -> RowSparse:
        kept = above(product, self.threshold)
        assert kept is not None, "never too many"
        return kept

    def for_inference(self) -> InferenceSAE:
        return self._build_inference_sae(threshold=self.threshold)

    @torch.no_grad()
    def meet_target(self, pre_RF: Tensor) -> None:
        assert self.l0_target is not None, "made with target_l0"
        self.threshold.mul_(self.l0_target.first_level(pre_RF, self.threshold).clamp(min=1e-3))

    def sparsity_gradients(
        self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        batch, active = entries.shape[0], entries.active
        threshold = entries.gather(self.threshold)
        near = ((entries.pre - threshold).abs() < self.bandwidth / 2) & (entries.pre > 0)
        if self.l0_target is not None:
            by_factor = near * threshold / self.bandwidth  # derivatives by a factor on all thresholds
            error_rise = -(by_factor * threshold * value_grad).sum()
            self.l0_target.observe(active.sum() / batch, error_rise, by_factor.sum() / batch)
        coefficient = self.sparsity_coefficient / batch
        self.threshold.grad = entries.latent_sums(near * (threshold * value_grad + coefficient) / -self.bandwidth)
        return value_grad * active, coefficient * active.sum().to(value_grad.dtype)

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        if self.l0_target is not None:
            self.threshold.mul_(self.l0_target.factor())
        self.threshold.clamp_(min=0)
