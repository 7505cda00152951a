"""One meta-SAE over the decoder directions of SAEs of several sizes: which meta-latents the sizes share.

The meta-SAE is that of arXiv:2502.04878, section 5, of all latents together, which `Stack` numbers.
"""

# A decomposed directions of all SAEs, F latents of all of them, S SAEs, M meta-latents, B activations, D model width

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.meta_overlap import find_nearest_other
from sae_sweeps.studies.meta_sae import MetaSAE, compute_explained_variance

Shares = list[list[float | None]]


@dataclass(frozen=True)
class Stack:
    """The latents of several SAEs under one numbering: first all of the first SAE, then all of the next one.

    names: of the SAEs; sizes: number of latents of each
    """

    names: list[str]
    sizes: list[int]

    @property
    def starts(self) -> list[int]:
        """Return the number in the stack of each SAE's first latent."""
        return [0, *itertools.accumulate(self.sizes)][:-1]

    def find_sae(self, latents_A: Tensor) -> Tensor:
        """Return which SAE each latent of the stack is from, as its place in `names`, (A,)."""
        ends_S = torch.tensor([*itertools.accumulate(self.sizes)], device=latents_A.device)
        return torch.bucketize(latents_A, ends_S, right=True)


def count_uses(weights: RowSparse, sae_A: Tensor, saes: int) -> Tensor:
    """Return how many latents of each SAE use each meta-latent, (S, M).

    weights: of M meta-latents in A latents, (A, M); sae_A (A,): the place of each latent's SAE, below `saes`
    """
    count = weights.shape[1]
    entry_N = sae_A[weights.row_N.long()] * count + weights.col_N
    return torch.bincount(entry_N, minlength=saes * count).view(saes, count)


def compute_shares(uses_SM: Tensor) -> Shares:
    """Return [i][j], the share of the meta-latents used by SAE i that SAE j uses too; None if SAE i uses none."""
    used_SM = (uses_SM > 0).double()
    both_SS = (used_SM @ used_SM.T).tolist()
    return [[divide(both, row[at]) for both in row] for at, row in enumerate(both_SS)]


@torch.no_grad()
def describe_saes(stack: Stack, meta: MetaSAE, control: MetaSAE, is_active_F: Tensor) -> list[dict[str, Any]]:
    """Return a description of the part that each SAE has in a meta-SAE over all of them. A share of nothing is None.

    meta.latents_A: numbers in `stack`, in ascending order; control: the meta-SAE of shuffled directions
    is_active_F (F,): which latents of the stack are active in the text

    Cosines are those of decomposed directions: the mean, over the SAE's latents, of the largest one.
    """
    count, sae_A = len(stack.names), stack.find_sae(meta.latents_A)
    uses_SM = count_uses(meta.weights, sae_A, count)
    only_SM = (uses_SM > 0) & ((uses_SM > 0).sum(0) == 1)
    in_each = torch.bincount(sae_A, minlength=count).tolist()
    directions = meta.directions_AD.split(in_each)
    parts = meta.weights.crow_Bp1.diff().long().split(in_each)
    explained, shuffled = (_explain_each(one, in_each) for one in (meta, control))
    nearest = _find_nearest_means(directions)
    return [
        {
            "point": name,
            "dict_size": stack.sizes[at],
            "decomposed": in_each[at],
            "never_active": int((~one_F).sum()),
            "explained_variance": explained[at],
            "explained_variance_shuffled": shuffled[at],
            "l0": divide(int(parts[at].sum()), in_each[at]),
            "meta_latents_per_latent": torch.bincount(parts[at]).tolist(),  # index: number of meta-latents
            "meta_latents": int((uses_SM[at] > 0).sum()),
            "meta_latents_only_here": int(only_SM[at].sum()),
            "nearest_meta_latent_mean": _find_nearest_mean(directions[at], meta.sae.W_dec.detach()),
            "nearest_other_latent_mean": nearest[at][at],
            "nearest_latent_mean_of": {
                str(stack.sizes[other]): mean for other, mean in enumerate(nearest[at]) if other != at
            },
        }
        for at, (name, one_F) in enumerate(zip(stack.names, is_active_F.split(stack.sizes), strict=True))
    ]


def _explain_each(meta: MetaSAE, in_each: list[int]) -> list[float | None]:
    """Return the explained variance of the directions of each SAE, the first `in_each[0]` and so on, by themselves."""
    pairs = zip(meta.directions_AD.split(in_each), meta.reconstructed_AD.split(in_each), strict=True)
    return [compute_explained_variance(*pair) for pair in pairs]


def _find_nearest_means(directions: Sequence[Tensor]) -> Shares:
    """Return [i][j], the mean over the directions of SAE i of the largest cosine with one of SAE j; [i][i] with another
    one of its own."""
    found: Shares = [[None] * len(directions) for _ in directions]
    for i, left_ND in enumerate(directions):
        if len(left_ND) > 1:
            found[i][i] = _mean(find_nearest_other(left_ND))
        for j in range(i + 1, len(directions)):
            compared = compare(left_ND, directions[j])
            found[i][j], found[j][i] = _mean(compared.left.cosine), _mean(compared.right.cosine)
    return found


def _find_nearest_mean(directions_ND: Tensor, others_MD: Tensor) -> float | None:
    return _mean(compare(directions_ND, others_MD).left.cosine)


def _mean(values_N: Tensor) -> float | None:
    """Return the mean of cosines; None if there is none, because there were no directions to compare with."""
    mean = values_N.mean().item() if len(values_N) else math.nan
    return mean if math.isfinite(mean) else None
