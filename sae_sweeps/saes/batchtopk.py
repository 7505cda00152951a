"""BatchTopK: the k x B largest latents of a whole batch are active (arXiv:2412.06410)."""

# B activations in a batch, D model width, F latents (dict_size)

from typing import Any

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import Kept
from sae_sweeps.saes.topk import TopKSAE

GUESS = 0.9  # of the running threshold: a batch's own threshold is hardly ever below


def top_of_batch(pre_BF: Tensor, k: int, guess: float = 0.0) -> Kept:
    """The k x B largest entries of the whole matrix.

    Only entries above `guess` are sorted, if there are enough of them; the result does not depend on it.
    """
    batch, dict_size = pre_BF.shape
    budget = min(k, dict_size) * batch
    flat_BF = pre_BF.reshape(-1)
    candidates_M = (flat_BF > guess).nonzero().squeeze(1)
    if len(candidates_M) >= budget:
        flat_N = candidates_M[flat_BF[candidates_M].topk(budget, sorted=False).indices]
    else:
        flat_N = flat_BF.topk(budget, sorted=False).indices
    flat_N = flat_N.sort().values
    return Kept.from_flat(flat_N, flat_BF[flat_N], (batch, dict_size))


class BatchTopKSAE(TopKSAE):
    """As TopK, but an activation may use more latents than k and another fewer: k is the mean.

    At inference one threshold stands in for the batch: the running mean, over training batches, of the smallest
    positive activation that was kept (arXiv:2412.06410, equation 5).
    """

    architecture = "batchtopk"

    threshold: Tensor
    threshold_weight: Tensor

    def __init__(self, d_in: int, dict_size: int, k: int, *, threshold_momentum: float = 0.9, **options: Any) -> None:
        super().__init__(d_in, dict_size, k, **options)
        self.threshold_momentum = threshold_momentum
        self.register_buffer("threshold", torch.zeros(()))
        # the sum of the weights given so far, which makes the running mean unbiased from the first batch on
        self.register_buffer("threshold_weight", torch.zeros(()))

    def keep(self, pre_BF: Tensor) -> Kept:
        return top_of_batch(pre_BF, self.k, guess=GUESS * self.threshold.item())

    def observe(self, kept: Kept) -> None:
        positive_N = kept.value_N[kept.value_N > 0]
        if len(positive_N) > 0:
            weight = 1 - self.threshold_momentum
            self.threshold_weight.mul_(self.threshold_momentum).add_(weight)
            self.threshold.lerp_(positive_N.min(), weight / self.threshold_weight)

    def keep_for_inference(self, pre_BF: Tensor) -> Kept:
        return Kept.from_mask(pre_BF > self.threshold, pre_BF)
