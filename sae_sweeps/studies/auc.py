"""The area under the ROC curve (AUC) of scores, with DeLong's 95 % interval: of one classifier, and of a difference.

The AUC is the share of pairs of a positive and a negative example in which the positive one has the higher score; equal
scores count half. Its variance is that of the placements of DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988. The
interval of one AUC is computed for its logit, so that it stays within 0 and 1 (Pepe, 2003, section 5.2.3).
"""

# P positive and N negative examples, M of both

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from sae_sweeps.evaluation.bootstrap import TAIL, Interval

Array: TypeAlias = np.ndarray[Any, Any]

REACH = -float(ndtri(TAIL))  # standard deviations between a value and the ends of its interval


@dataclass(frozen=True)
class Placements:
    """Where the scores of examples lie among those of the other class.

    positive_P: of each positive example, the share of negative ones with a lower score
    negative_N: of each negative example, the share of positive ones with a higher score
    """

    positive_P: Array
    negative_N: Array

    @property
    def auc(self) -> float:
        """Return the area under the ROC curve."""
        return float(self.positive_P.mean())

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the mean of the placements: of an AUC, or of a difference of two."""
        both = (self.positive_P, self.negative_N)
        return math.sqrt(sum(float(one.var(ddof=1)) / len(one) for one in both))

    def __sub__(self, other: "Placements") -> "Placements":
        return Placements(self.positive_P - other.positive_P, self.negative_N - other.negative_N)


def place(score_M: Array, is_positive_M: Array) -> Placements:
    """Return the placements of the scores (M,) of examples, of which some are positive, bool (M,)."""
    positive_P, negative_N = score_M[is_positive_M], score_M[~is_positive_M]
    rank_M = rankdata(score_M)
    lower_P = rank_M[is_positive_M] - rankdata(positive_P)
    lower_N = rank_M[~is_positive_M] - rankdata(negative_N)
    return Placements(lower_P / len(negative_N), 1 - lower_N / len(positive_P))


def find_interval(placements: Placements) -> Interval:
    """Return an AUC with its interval. It has no width where all pairs of examples are alike: 0, 1, or 0.5."""
    auc, deviation = placements.auc, placements.deviation
    if not 0 < auc < 1:
        return Interval(auc, auc, auc)
    reach = REACH * deviation / (auc * (1 - auc))
    low, high = expit(logit(auc) + np.array([-reach, reach]))
    return Interval(auc, float(low), float(high))


def find_difference(first: Placements, second: Placements) -> Interval:
    """Return the AUC of `first` less that of `second`, on the same examples, with its interval (paired)."""
    difference = first - second
    value, reach = difference.auc, REACH * difference.deviation
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))
