"""JumpReLU: a latent is active where it exceeds a threshold of its own, learnt under an L0 penalty
(arXiv:2407.14435)."""

# B activations in a batch, D model width, F latents (dict_size), N kept entries

import torch
from torch import Tensor, nn

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.sparse import Kept


class JumpReLUSAE(SAE):
    """pre = relu(x @ W_enc + b_enc), z = pre * (pre > threshold), loss = mse + sparsity_coefficient * L0.

    The thresholds' gradients are estimated with a rectangle kernel of width `bandwidth` (arXiv:2407.14435, equations 11
    and 12): entries within half a bandwidth of their threshold move it. The parameter is the threshold itself, kept
    at 0 or above; it starts at `initial_threshold` standard deviations of the untrained pre-activations.
    """

    architecture = "jumprelu"
    centers_input = False

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float,
        *,
        bandwidth: float = 0.001,
        initial_threshold: float = 1.5,
        normalize_input: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, dict_size, normalize_input=normalize_input, seed=seed)
        self.sparsity_coefficient = sparsity_coefficient
        self.bandwidth = bandwidth
        self.b_enc = nn.Parameter(torch.zeros(dict_size))
        # the untrained pre-activation of an activation of unit variance is the norm of W_enc's column, on average
        self.threshold = nn.Parameter(initial_threshold * self.W_enc.detach().norm(dim=0))

    @torch.no_grad()
    def center(self, mean_D: Tensor) -> None:
        super().center(mean_D)
        self.b_enc.copy_(-mean_D @ self.W_enc)

    def pre_activations(self, input_BD: Tensor) -> Tensor:
        return torch.relu_(torch.addmm(self.b_enc, input_BD, self.W_enc))

    def keep(self, pre_BF: Tensor) -> Kept:
        """The active entries, and the inactive ones near their threshold, which hold the value 0."""
        lowest_F = (self.threshold - self.bandwidth / 2).clamp_(min=0)
        kept = Kept.from_mask(pre_BF > lowest_F, pre_BF)
        kept.value_N = kept.value_N * (kept.value_N > self.threshold[kept.col_N])
        return kept

    def keep_for_inference(self, pre_BF: Tensor) -> Kept:
        return Kept.from_mask(pre_BF > self.threshold, pre_BF)

    def sparsity_gradients(self, kept: Kept, value_grad_N: Tensor) -> tuple[Tensor, Tensor]:
        batch = kept.shape[0]
        threshold_N = self.threshold[kept.col_N]
        active_N = kept.value_N > 0
        near_N = ~active_N | (kept.value_N - threshold_N < self.bandwidth / 2)  # inactive ones were kept for being near
        per_entry_N = near_N * (threshold_N * value_grad_N + self.sparsity_coefficient / batch) / -self.bandwidth
        self.threshold.grad = kept.column_sums(per_entry_N)
        return value_grad_N * active_N, self.sparsity_coefficient * active_N.to(value_grad_N.dtype).sum() / batch

    def bias_gradients(self, pre_grad_F: Tensor) -> None:
        self.b_enc.grad = pre_grad_F

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        self.threshold.clamp_(min=0)
