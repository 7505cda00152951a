"""Held-out activations, and the language model's own cross-entropy on them."""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.runtime.errors import first_line

log = logging.getLogger(__name__)

SEQUENCES_TRIED = 4  # when checking whether the model can start at the hook


@dataclass
class HeldOut:
    """Held-out sequences, their activations, and the language model's cross-entropy on them, in nats per token: `ce`
    with the activations unchanged, `ce_zero` and `ce_mean` with them replaced by zeros and by their mean."""

    tokens_NS: Tensor
    acts_NSD: Tensor
    first_position: int
    from_hook: bool  # whether only the layers above the hook are run when activations are replaced
    ce: float = 0.0
    ce_zero: float = 0.0
    ce_mean: float = 0.0

    @property
    def acts_AD(self) -> Tensor:
        """Return the activations (A, D) from `first_position` on, all sequences joined."""
        return self.acts_NSD[:, self.first_position :].flatten(0, 1)

    def cross_entropy_with(self, model: LanguageModel, acts_AD: Tensor) -> float:
        """Return the cross-entropy, in nats per token, with `acts_AD` in place of the activations."""
        per_sequence = acts_AD.unflatten(0, (len(self.tokens_NS), -1))

        def replace(original: Tensor, first: int) -> Tensor:
            sequences = slice(first, first + len(original))
            return torch.cat([self.acts_NSD[sequences, : self.first_position], per_sequence[sequences]], dim=1)

        return model.cross_entropy(self.tokens_NS, replace, self.first_position, from_hook=self.from_hook)


def measure_held_out(model: LanguageModel, tokens_NS: Tensor, first_position: int) -> HeldOut:
    """Measure the language model alone. Positions before `first_position` (BOS) are neither counted nor replaced."""
    data = HeldOut(tokens_NS, model.activations(tokens_NS), first_position, _starts_at_hook(model, tokens_NS))
    acts_AD = data.acts_AD
    data.ce = model.cross_entropy(tokens_NS, first_position=first_position)
    data.ce_zero = data.cross_entropy_with(model, torch.zeros_like(acts_AD))
    data.ce_mean = data.cross_entropy_with(model, acts_AD.mean(0).expand_as(acts_AD))
    return data


def _starts_at_hook(model: LanguageModel, tokens_NS: Tensor) -> bool:
    """Return whether running only the layers above the hook gives the same cross-entropy.

    It is tried on a few sequences, because not every architecture supports it.
    """
    if not model.can_start_at_hook:
        return False
    few_NS = tokens_NS[:SEQUENCES_TRIED]
    acts_NSD = model.activations(few_NS)
    try:
        ce = model.cross_entropy(few_NS, lambda acts, first: acts_NSD[first : first + len(acts)], from_hook=True)
    except Exception as error:
        log.info("each evaluation runs the whole model (%s)", first_line(error))
        return False
    expected = model.cross_entropy(few_NS)
    if not math.isclose(ce, expected, rel_tol=1e-5):
        log.info(
            "each evaluation runs the whole model (its upper layers alone give a cross-entropy of %g, not %g)",
            ce,
            expected,
        )
        return False
    return True
