"""Latents of two SAEs matched by decoder cosine: each with its nearest, and all of them one to one."""

# L latents on the left, R on the right, P pairs one to one, D model width

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.studies.directions import Matches, compare
from sae_sweeps.studies.meta_overlap import draw_directions

MOST_PAIRS = 2**30  # cosines for which an assignment is computed, in 8 GiB of memory


@dataclass(frozen=True)
class Match:
    """How well the latents of two SAEs match.

    left, right: the nearest latent of the other SAE for each latent, and the cosine with it
    paired_P: cosines of the min(L, R) pairs of the one-to-one assignment with the largest sum of cosines; None if there
        are more than `MOST_PAIRS` cosines
    random: the mean of `paired_P` for random directions in place of the right ones; None as for `paired_P`
    """

    left: Matches
    right: Matches
    paired_P: Tensor | None
    random: float | None

    def summarise(self, threshold: float) -> dict[str, float | None]:
        """Return the row of a table: means of the cosines, and shares of cosines of at least `threshold`."""
        paired = self.paired_P
        return {
            "paired_mean": None if paired is None else _find_mean(paired),
            "paired_mean_random": self.random,
            "paired_share": None if paired is None else _find_share(paired, threshold),
            "right_nearest_mean": _find_mean(self.right.cosine),
            "right_share": _find_share(self.right.cosine, threshold),
            "left_nearest_mean": _find_mean(self.left.cosine),
            "left_share": _find_share(self.left.cosine, threshold),
        }


def match(left_LD: Tensor, right_RD: Tensor, seed: int = 0) -> Match:
    """Match the decoder directions of two SAEs, of any norm.

    seed: of the random directions that the one-to-one matching is compared with
    Raises: ValueError if the directions differ in width.
    """
    nearest = compare(left_LD, right_RD)
    random_RD = draw_directions(len(right_RD), right_RD, seed)
    paired_P, random_P = (pair_one_to_one(left_LD, other) for other in (right_RD, random_RD))
    return Match(nearest.left, nearest.right, paired_P, None if random_P is None else _find_mean(random_P))


@torch.no_grad()
def pair_one_to_one(left_LD: Tensor, right_RD: Tensor) -> Tensor | None:
    """Return the cosines of the min(L, R) pairs of the one-to-one assignment with the largest sum of cosines, (P,).

    Each latent is in one pair at most (the Hungarian method). Returns None for more than `MOST_PAIRS` cosines.
    """
    if len(left_LD) * len(right_RD) > MOST_PAIRS:
        return None
    left_LD, right_RD = (torch.nn.functional.normalize(side, dim=1) for side in (left_LD, right_RD))
    distance_LR = np.empty((len(left_LD), len(right_RD)))
    for first in range(0, len(left_LD), 1024):
        distance_LR[first : first + 1024] = -(left_LD[first : first + 1024] @ right_RD.T).cpu().numpy()
    return torch.from_numpy(-distance_LR[linear_sum_assignment(distance_LR)])


def _find_mean(values: Tensor) -> float | None:
    return divide(values.double().sum().item(), len(values))


def _find_share(values: Tensor, threshold: float) -> float | None:
    return divide(int((values >= threshold).sum()), len(values))
