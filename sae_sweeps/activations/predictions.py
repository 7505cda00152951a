"""Losses of a language model's predictions: cross-entropy, and KL divergence from other predictions."""

# M predictions, V vocabulary

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Losses:
    """Means over predictions, in nats.

    cross_entropy: of the next token
    kl_divergence: sum over V of p log(p / q), of the reference's probabilities p from these, q
    ce_M: the cross-entropy of each prediction, (M,), on the CPU
    """

    cross_entropy: float
    kl_divergence: float
    ce_M: Tensor | None = field(default=None, repr=False, compare=False)


def to_log_probabilities(logits_MV: Tensor) -> Tensor:
    """Return the logarithms of the probabilities, (M, V)."""
    return functional.log_softmax(logits_MV, dim=1)


class LossSum:
    """Sums of the losses over batches of predictions."""

    def __init__(self, at_once: int) -> None:
        """Begin with 0. `at_once`: predictions whose (M, V) matrices fit in memory at a time"""
        self._at_once = at_once
        self._cross_entropy = self._kl_divergence = 0.0
        self._each: list[Tensor] = []  # cross-entropy of each prediction

    def add(self, logits_MV: Tensor, target_M: Tensor, reference_MV: Tensor | None) -> None:
        """Add a batch. `reference_MV`: log probabilities to compare with; None: no KL divergence"""
        for first in range(0, len(target_M), self._at_once):
            part = slice(first, first + self._at_once)
            log_q_MV = to_log_probabilities(logits_MV[part])
            self._cross_entropy += functional.nll_loss(log_q_MV, target_M[part], reduction="sum").item()
            self._each.append(-log_q_MV.gather(1, target_M[part, None]).squeeze(1).cpu())
            if reference_MV is not None:
                self._kl_divergence += sum_kl_divergence(reference_MV[part], log_q_MV)

    def average(self, count: int) -> Losses:
        """Return the means over `count` predictions."""
        each_M = torch.cat(self._each) if self._each else None
        return Losses(self._cross_entropy / count, self._kl_divergence / count, each_M)


def sum_kl_divergence(log_p_MV: Tensor, log_q_MV: Tensor) -> float:
    """Return the sum over M of KL(p || q). Overwrites `log_q_MV`."""
    # a token that neither has is -inf in both, and nan here
    ratio_MV = torch.sub(log_p_MV, log_q_MV, out=log_q_MV).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    return ratio_MV.mul_(log_p_MV.exp()).sum(1).double().sum().item()
