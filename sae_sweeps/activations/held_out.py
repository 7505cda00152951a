"""Held-out activations, and the language model's own cross-entropy on them."""

# N sequences, S positions, A activations at positions that are data, D model width

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweeps.activations.finite import require_finite
from sae_sweeps.activations.language_model import LanguageModel, ReplaceBatch
from sae_sweeps.activations.planted import Truth
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.predictions import Losses
from sae_sweeps.activations.units import Units
from sae_sweeps.runtime.errors import first_line

log = logging.getLogger(__name__)

SAME_PREDICTIONS = 1e-4  # nats of KL divergence below which predictions are equal but for rounding
SEQUENCES_TRIED = 4  # sequences on which resuming the forward pass at the hook is tried


@dataclass(repr=False)
class HeldOut:
    """Held-out sequences with activations, and the language model's cross-entropy on them, in nats per token.

    acts_NSD: the activations at the hook, at all positions, in the dtype that `LanguageModel.activations` keeps
    is_data_NS: which positions are data (see positions.py); only these are counted and replaced
    left_out: number of positions that hold an excluded token, besides the prepended BOS
    is_special_NS: which positions hold BOS or another special token, whether or not they are data; None: those that
        are no data
    text: the same sequences with positions of text alone as data, without special tokens; None if there are no others
    final_NSD: what the last block returns with the activations unchanged; None if it is computed where it is needed
    units: of what the text is a sample, documents as a rule; None if the documents are not known
    ce_M: the cross-entropy of each prediction that is counted, in nats, (M,), with the activations unchanged
    ce, ce_zero, ce_mean: the cross-entropy with the activations unchanged, replaced by zeros, and by their mean
    truth: the planted features, of synthetic activations, which have no cross-entropies; else None
    """

    tokens_NS: Tensor
    acts_NSD: Tensor
    is_data_NS: Tensor
    left_out: int
    from_hook: bool  # whether the model resumes at the hook, without the layers below, when activations are replaced
    ce: float
    ce_zero: float = 0.0
    ce_mean: float = 0.0
    is_special_NS: Tensor | None = None
    text: "HeldOut | None" = None
    final_NSD: Tensor | None = None
    units: Units | None = None
    ce_M: Tensor | None = None
    truth: Truth | None = None

    def __repr__(self) -> str:
        count, (sequences, _, width) = int(self.is_data_NS.sum()), self.acts_NSD.shape
        if self.truth is not None:
            return f"HeldOut({count} synthetic activations of width {width})"
        return f"HeldOut({count} activations of width {width} in {sequences} sequences, ce={self.ce:.4g})"

    @property
    def is_text_NS(self) -> Tensor:
        """Return which positions are data and hold text, no special token, bool (N, S)."""
        return self.is_data_NS if self.is_special_NS is None else self.is_data_NS & ~self.is_special_NS

    @property
    def special_acts_PD(self) -> Tensor:
        """Return the activations at the P positions of special tokens, data or not, (P, D) in float32."""
        is_special_NS = ~self.is_data_NS if self.is_special_NS is None else self.is_special_NS
        return self.acts_NSD[is_special_NS.to(self.acts_NSD.device)].float()

    @property
    def acts_AD(self) -> Tensor:
        """Return the held-out activations (A, D) in float32: the positions of all sequences that are data."""
        return self.acts_NSD[self.is_data_NS.to(self.acts_NSD.device)].float()

    @property
    def tokens_A(self) -> Tensor:
        """Return the token id of each held-out activation, (A,)."""
        return self.tokens_NS[self.is_data_NS]

    def cross_entropy_with(self, model: LanguageModel, acts_AD: Tensor) -> float:
        """Return the language model's cross-entropy, in nats per token, with `acts_AD` (A, D) as activations."""
        return model.cross_entropy(self.tokens_NS, self._replace_by(acts_AD), self.is_data_NS, from_hook=self.from_hook)

    def compare(self, model: LanguageModel, replacements: Sequence[Tensor]) -> list[Losses]:
        """Return the losses of the language model's predictions with each of several activations (A, D)."""

        def keep(original: Tensor, first: int) -> Tensor:
            return self.acts_NSD[first : first + len(original)].float()

        replaces = [self._replace_by(acts_AD) for acts_AD in replacements]
        original = keep if self.final_NSD is None else self.final_NSD
        return model.compare(self.tokens_NS, original, replaces, self.is_data_NS, from_hook=self.from_hook)

    def _replace_by(self, acts_AD: Tensor) -> ReplaceBatch:
        """Return a function that puts `acts_AD` (A, D) at the positions that are data."""
        per_sequence = acts_AD.to(self.acts_NSD.device).split(self.is_data_NS.sum(1).tolist())

        def replace(original: Tensor, first: int) -> Tensor:
            sequences = slice(first, first + len(original))
            replaced_nSD = self.acts_NSD[sequences].to(torch.float32, copy=True)
            replaced_nSD[self.is_data_NS[sequences].to(replaced_nSD.device)] = torch.cat(per_sequence[sequences])
            return replaced_nSD

        return replace


def measure_held_out(
    model: LanguageModel, tokens_NS: Tensor, positions: Positions, known: HeldOut | None = None
) -> HeldOut:
    """Return the activations of held-out sequences, and the cross-entropy of the model alone and under ablation.

    Ablation replaces all activations at the hook by zeros, or by the mean activation.
    positions: which positions are data; the others are neither counted nor replaced
    known: what is known of the same sequences from another hook: what the model computes by itself is the same
    Raises: ConfigError if an activation or a cross-entropy is not finite.
    """
    acts_NSD, is_data_NS = model.activations(tokens_NS), positions.find(tokens_NS)
    require_finite(model.config, acts_NSD[is_data_NS.to(acts_NSD.device)], "held-out activations")
    from_hook, left_out = starts_at_hook(model, tokens_NS), positions.count_left_out(tokens_NS)
    data = HeldOut(tokens_NS, acts_NSD, is_data_NS, left_out, from_hook, 0.0)
    data.is_special_NS = positions.find_special(tokens_NS)
    _measure_cross_entropies(model, data, known)
    data.final_NSD = _find_final(model, data, known)
    is_text_NS = data.is_text_NS
    if not torch.equal(is_text_NS, is_data_NS) and is_text_NS[:, :-1].any():
        data.text = replace(data, is_data_NS=is_text_NS, units=None)
        _measure_cross_entropies(model, data.text, known and known.text)
    return data


def _measure_cross_entropies(model: LanguageModel, data: HeldOut, known: HeldOut | None) -> None:
    """Set the cross-entropies of the model alone and under ablation. Raises: ConfigError if one is not finite."""
    if known is None:
        (losses,) = model.compare(data.tokens_NS, None, [None], data.is_data_NS)
        data.ce, data.ce_M = losses.cross_entropy, losses.ce_M
    else:
        data.ce, data.ce_M = known.ce, known.ce_M
    require_finite(model.config, torch.tensor(data.ce), "model's cross-entropy with the activations")
    acts_AD = data.acts_AD
    data.ce_zero = data.cross_entropy_with(model, torch.zeros_like(acts_AD))
    data.ce_mean = data.cross_entropy_with(model, acts_AD.mean(0).expand_as(acts_AD))
    ablated = torch.tensor([data.ce_zero, data.ce_mean])
    require_finite(model.config, ablated, "model's cross-entropies with zeros or the mean in place of the activations")


def _find_final(model: LanguageModel, data: HeldOut, known: HeldOut | None) -> Tensor | None:
    """Return what the last block returns, (N, S, D); None if the model's predictions cannot be made of it.

    They are compared on a few sequences, because not every architecture supports this.
    """
    if not data.from_hook:
        return None
    few_NS, acts_NSD = data.tokens_NS[:SEQUENCES_TRIED], data.acts_NSD
    try:
        final_NSD = known.final_NSD if known is not None else None
        if final_NSD is None:
            final_NSD = model.activations(data.tokens_NS, hook=model.last_hook)
        (losses,) = model.compare(
            few_NS,
            final_NSD[: len(few_NS)],
            [lambda acts, first: acts_NSD[first : first + len(acts)].float()],
            from_hook=True,
        )
    except Exception as error:
        log.info("the model cannot start at its last block (%s), which makes evaluations slower", first_line(error))
        return None
    return final_NSD if abs(losses.kl_divergence) < SAME_PREDICTIONS else None


def starts_at_hook(model: LanguageModel, tokens_NS: Tensor) -> bool:
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
