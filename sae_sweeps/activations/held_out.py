"""Held-out activations, and the language model's own cross-entropy on them."""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.runtime.errors import first_line

log = logging.getLogger(__name__)

SEQUENCES_TRIED = 4  # sequences on which resuming the forward pass at the hook is tried


@dataclass
class HeldOut:
    """Held-out sequences with activations, and the language model's cross-entropy on them, in nats per token.

    acts_NSD: the activations at the hook, BOS included
    first_position: the first position of a sequence that counts; positions before it hold BOS
    ce, ce_zero, ce_mean: the cross-entropy with the activations unchanged, replaced by zeros, and by their mean
    """

    tokens_NS: Tensor
    acts_NSD: Tensor
    first_position: int
    from_hook: bool  # whether the model resumes at the hook, without the layers below, when activations are replaced
    ce: float = 0.0
    ce_zero: float = 0.0
    ce_mean: float = 0.0

    @property
    def acts_AD(self) -> Tensor:
        """Return the held-out activations (A, D): the positions from `first_position` on, of all sequences."""
        return self.acts_NSD[:, self.first_position :].flatten(0, 1)

    def cross_entropy_with(self, model: LanguageModel, acts_AD: Tensor) -> float:
        """Return the language model's cross-entropy, in nats per token, with `acts_AD` (A, D) as activations."""
        per_sequence = acts_AD.unflatten(0, (len(self.tokens_NS), -1))

        def replace(original: Tensor, first: int) -> Tensor:
            sequences = slice(first, first + len(original))
            return torch.cat([self.acts_NSD[sequences, : self.first_position], per_sequence[sequences]], dim=1)

        return model.cross_entropy(self.tokens_NS, replace, self.first_position, from_hook=self.from_hook)


def measure_held_out(model: LanguageModel, tokens_NS: Tensor, first_position: int) -> HeldOut:
    """Return the activations of held-out sequences, and the cross-entropy of the model alone and under ablation.

    Ablation replaces all activations at the hook by zeros, or by the mean activation.
    Positions before `first_position`, which hold BOS, are neither counted nor replaced.
    """
    data = HeldOut(tokens_NS, model.activations(tokens_NS), first_position, _starts_at_hook(model, tokens_NS))
    acts_AD = data.acts_AD
    data.ce = model.cross_entropy(tokens_NS, first_position=first_position)
    data.ce_zero = data.cross_entropy_with(model, torch.zeros_like(acts_AD))
    data.ce_mean = data.cross_entropy_with(model, acts_AD.mean(0).expand_as(acts_AD))
    return data


def _starts_at_hook(model: LanguageModel, tokens_NS: Tensor) -> bool:
    """Return whether resuming the forward pass at the hook gives the same cross-entropy as the whole model.

    A few sequences are compared, because not every architecture supports this.
    """
    if not model.can_start_at_hook:
        return False
    few_NS = tokens_NS[:SEQUENCES_TRIED]
    acts_NSD = model.activations(few_NS)
    try:
        ce = model.cross_entropy(few_NS, lambda acts, first: acts_NSD[first : first + len(acts)], from_hook=True)
    except Exception as error:
        log.info(
            "resuming the forward pass at the hook failed (%s); each evaluation runs the whole model, which is slower",
            first_line(error),
        )
        return False
    expected = model.cross_entropy(few_NS)
    if not math.isclose(ce, expected, rel_tol=1e-5):
        log.info(
            "resuming the forward pass at the hook gives a cross-entropy of %g, but the whole model gives %g; each "
            "evaluation runs the whole model, which is slower",
            ce,
            expected,
        )
        return False
    return True
