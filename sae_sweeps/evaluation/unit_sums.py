"""Sums over each document (or other unit) of held-out text, of which NMSE and CE degradation are ratios.

Points of a sweep are measured on the same documents, so the difference of two points is known more surely than each of
them: a hard document is hard for both. The sums are what is needed to draw documents again (bootstrap.py).
"""

# A held-out activations, M counted predictions, U units

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the report reads sums, and starts sooner without torch
    from torch import Tensor

    from sae_sweeps.activations.held_out import HeldOut
    from sae_sweeps.activations.predictions import Losses
    from sae_sweeps.evaluation.equal_l0 import EqualL0

Array = npt.NDArray[np.float64]


class Ratio(NamedTuple):
    """A metric as a ratio of sums over units: (part - less) / whole. `less`: None for nothing"""

    part: str
    less: str | None
    whole: str


RATIOS = {  # by metric; both metrics at k are after those of the SAE as it is
    "nmse": Ratio("error", None, "activations"),
    "ce_degradation": Ratio("ce", "ce_model", "predictions"),
    "nmse_at_k": Ratio("error_at_k", None, "activations"),
    "ce_degradation_at_k": Ratio("ce_at_k", "ce_model", "predictions"),
}


@dataclass(frozen=True)
class UnitSums:
    """Sums over the units of held-out text.

    unit: "document" or "sequence"; "activation block" for synthetic activations
    fingerprint: of the text; only points with the same one can be compared unit by unit
    sums: (U,) by name. activations: number with a spread; error: of |x - x_hat|^2 / |x - mean_D(x)|^2; predictions:
        number counted; ce, ce_model: of their cross-entropy, in nats, with and without reconstructions; error_at_k,
        ce_at_k: at an L0 of k, if the SAE has it
    """

    unit: str
    fingerprint: str
    sums: Mapping[str, Array]

    @property
    def count(self) -> int:
        """Return the number of units, U."""
        return len(self.sums["activations"])

    def get_ratio(self, metric: str) -> tuple[Array, Array] | None:
        """Return part and whole of a metric for each unit, (U,) each; None if the metric has no value."""
        part, less, whole = RATIOS[metric]
        if part not in self.sums or not self.sums[whole].sum() > 0:
            return None
        return self.sums[part] - (0 if less is None else self.sums[less]), self.sums[whole]


def sum_by_unit(data: "HeldOut", found: "EqualL0", losses: "Sequence[Losses]") -> UnitSums | None:
    """Return the sums of an SAE over the units of held-out text; None if these, or the single losses, are not known.

    losses: of the predictions with the SAE as it is, then at an L0 of k if that differs; empty for synthetic
        activations, which nothing predicts
    """
    if data.units is None or (data.ce_M is None and data.truth is None) or any(one.ce_M is None for one in losses):
        return None
    unit_A = data.units.unit_NS[data.is_data_NS]
    unit_M = data.units.unit_NS[:, :-1][data.is_data_NS[:, :-1]]

    count = data.units.count

    def add(unit: "Tensor", value: "Tensor") -> Array:
        return np.bincount(unit.numpy(), value.cpu().double().numpy(), count).astype(np.float64)

    sums = {
        "activations": add(unit_A, found.own.has_spread_A),
        "error": add(unit_A, found.own.ratio_A),
    }
    if data.ce_M is not None:
        sums["predictions"] = np.bincount(unit_M.numpy(), minlength=count).astype(np.float64)
        sums["ce_model"] = add(unit_M, data.ce_M)
    for one, name in zip(losses, ("ce", "ce_at_k"), strict=False):
        if one.ce_M is not None:
            sums[name] = add(unit_M, one.ce_M)
    if found.at_k is not None:
        sums["error_at_k"] = add(unit_A, found.at_k.ratio_A)
        if "ce" in sums:
            sums.setdefault("ce_at_k", sums["ce"])  # of TopK
    return UnitSums(data.units.name, data.units.fingerprint, sums)
