"""Stitching: what the latents of a large SAE bring that a small one lacks (arXiv:2502.04878, section 4).

A latent of either SAE is active, and as strongly, as in the SAE that it comes from: by its own threshold, or by being
among the k largest there. So any choice of latents from both has a reconstruction that is the sum of theirs, and each
position on a path from one SAE to the other is as exact as the two ends.
"""

# B activations in a batch, D model width, S latents of the small SAE, L of the large one, N kept entries, P positions

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from sae_sweeps.saes import SAE
from sae_sweeps.saes.base import Normalized
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import Families
from sae_sweeps.studies.paths import SAEPath

BATCH = 2048  # activations that are encoded at a time
CHANGES_AT_ONCE = 2**23  # numbers that the changes of reconstructions along a path take at a time


@dataclass
class Curve:
    """Along a path (P + 1,): latents, NMSE as `evaluate` defines it, active latents per activation."""

    latents: list[int]
    nmse: list[float]
    l0: list[float]


class Stitching:
    """A pass over activations, batch by batch (`update`), that measures a large SAE's latents in a small one.

    Raises: ValueError if the two do not see activations alike: of one width, normalised in one way.
    """

    def __init__(self, small: SAE, large: SAE, paths: Sequence[SAEPath]) -> None:
        if (small.d_in, small.normalization) != (large.d_in, large.normalization):
            raise ValueError("the two SAEs do not see activations alike")
        self.small, self.large, self._paths = small, large, paths
        device = large.W_dec.device
        self._norm_L = large.W_dec.detach().double().square().sum(1)
        self._change_L = torch.zeros(large.dict_size, dtype=torch.float64, device=device)
        self.fired_L = torch.zeros(large.dict_size, dtype=torch.int64, device=device)
        self.fired_S = torch.zeros(small.dict_size, dtype=torch.int64, device=device)
        self._squares = torch.zeros((), dtype=torch.float64, device=device)
        self._ratios = [torch.zeros(path.length + 1, dtype=torch.float64, device=device) for path in paths]
        self.seen = 0

    @torch.no_grad()
    def update(self, x_BD: Tensor) -> None:
        """Take a batch of raw activations into account."""
        small, large = self.small, self.large
        normalized = small.normalize(x_BD)
        kept_S, kept_L = small.active(normalized), large.active(normalized)
        residual_BD = normalized.x_BD - kept_S.decode(small.W_dec).add_(small.b_dec)
        self._squares += residual_BD.square().sum(dtype=torch.float64)
        overlap_N = kept_L.sampled_product(residual_BD, large.W_dec).double()  # of the residual with the directions
        value_N = kept_L.value.double()
        change_N = value_N * (value_N * kept_L.per_latent(self._norm_L) - 2 * overlap_N)
        self._change_L += torch.bincount(kept_L.col_N, weights=change_N, minlength=large.dict_size)
        self.fired_L += torch.bincount(kept_L.col_N[kept_L.active], minlength=large.dict_size)
        self.fired_S += torch.bincount(kept_S.col_N[kept_S.active], minlength=small.dict_size)
        self.seen += len(x_BD)

        # what the reconstruction should be to be mapped back to exactly x: the normalisation's epsilon is not undone
        target_BD = (x_BD - normalized.mean_B1) / normalized.std_B1
        start_BD = target_BD - (normalized.x_BD - residual_BD)
        spread_B = (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1).double()
        weight_B = normalized.std_B1.squeeze(1).double().square() / spread_B
        for path, ratio_P in zip(self._paths, self._ratios, strict=True):
            moves = _PathChanges(path, small, kept_S, large, kept_L)
            at_once = max(1, CHANGES_AT_ONCE // (max(1, path.length) * x_BD.shape[1]))
            for first in range(0, len(x_BD), at_once):
                rows = slice(first, first + at_once)
                ratio_P += moves.squares(start_BD[rows], first) @ weight_B[rows]

    @property
    def mse(self) -> float:
        """Of the small SAE: mean over activations of |x - x_hat|^2, in normalised space."""
        return self._squares.item() / self.seen

    @property
    def change_L(self) -> Tensor:
        """The change in `mse` from putting each latent of the large SAE alone into the small one, (L,), float64.

        mean(-2 z <r, d> + z^2 |d|^2), with r the small SAE's residual, z the latent's activation and d its decoder
        direction: exact, since the reconstruction changes by z d.
        """
        return self._change_L / self.seen

    def compute_curves(self) -> list[Curve]:
        """One for each path."""
        curves = []
        for path, ratio_P in zip(self._paths, self._ratios, strict=True):
            l0 = path.count_active(self.fired_S, self.fired_L) / self.seen
            curves.append(Curve(path.latent_count.tolist(), (ratio_P / self.seen).tolist(), l0.tolist()))
        return curves


class _PathChanges:
    """What the moves of a path change in the reconstructions of a batch: the kept entries, position by position."""

    def __init__(self, path: SAEPath, small: SAE, kept_S: RowSparse, large: SAE, kept_L: RowSparse) -> None:
        self._path = path
        self._bias_D = large.b_dec.detach() - small.b_dec.detach()
        self._sides = [(kept_L, path.inserted_at, large.W_dec.detach())]
        if (path.removed_at <= path.length).any():
            self._sides.append((kept_S.scaled(-torch.ones_like(kept_S.value)), path.removed_at, small.W_dec.detach()))

    def squares(self, error_BD: Tensor, first: int) -> Tensor:
        """|error|^2 at each position of the path (P + 1, B), of the rows from `first` on whose error at its beginning
        is given."""
        length, batch = self._path.length, len(error_BD)
        found_PB = error_BD.new_empty(length + 1, batch, dtype=torch.float64)
        changes = [_decode_changes(kept, at_F, W_dec, first, batch, length) for kept, at_F, W_dec in self._sides]
        error_BD = error_BD.clone()
        found_PB[0] = error_BD.square().sum(1)
        for position in range(1, length + 1):
            for change_PBD in changes:
                error_BD -= change_PBD[position - 1]
            if position == self._path.bias_switched_at:
                error_BD -= self._bias_D
            found_PB[position] = error_BD.square().sum(1)
        return found_PB


def _decode_changes(kept: RowSparse, at_F: Tensor, W_dec_FD: Tensor, first: int, batch: int, length: int) -> Tensor:
    """The decodings of the entries of rows `first` to `first + batch` that come at each position, (P, B, D)."""
    part = kept.rows(first, batch)
    at_N = part.per_latent(at_F)
    taking_part = at_N <= length
    place_N = ((at_N - 1) * batch + part.row_N)[taking_part]
    place_N, order_N = place_N.to(torch.int32).sort(stable=True)
    col_N, value_N = part.col_N[taking_part][order_N], part.value[taking_part][order_N]
    moved = RowSparse.from_sorted(place_N, col_N, value_N, (length * batch, len(W_dec_FD)))
    return moved.decode(W_dec_FD).view(length, batch, W_dec_FD.shape[1])


class PathReconstructions:
    """The reconstructions of some activations at any position of a path, as the language model takes them."""

    @torch.no_grad()
    def __init__(self, path: SAEPath, small: SAE, large: SAE, x_AD: Tensor) -> None:
        self._path, self._small, self._large = path, small, large
        self._parts: list[tuple[Normalized, RowSparse, RowSparse]] = []
        for x_BD in x_AD.split(BATCH):
            normalized = small.normalize(x_BD)
            self._parts.append((normalized, small.active(normalized), large.active(normalized)))

    @torch.no_grad()
    def reconstruct(self, position: int) -> Tensor:
        """(A, D)"""
        small, large = self._small, self._large
        return torch.cat(
            [
                normalized.restore(self._path.decode(position, small, kept_S, large, kept_L))
                for normalized, kept_S, kept_L in self._parts
            ]
        )


def count_families(families: Families) -> list[dict[str, int]]:
    """How many families there are of so many latents of the small SAE and so many of the large one, a row for each kind
    of family, those of few first. A latent that is like none is a family of one."""
    count = int(max(families.left.max(), families.right.max())) + 1
    small, large = (np.bincount(side, minlength=count) for side in (families.left, families.right))
    kinds, counts = np.unique(np.stack([small, large], axis=1), axis=0, return_counts=True)
    rows = [
        {"small": int(in_small), "large": int(in_large), "count": int(of_this_kind)}
        for (in_small, in_large), of_this_kind in zip(kinds, counts, strict=True)
        if in_small + in_large > 0
    ]
    return sorted(rows, key=lambda row: (row["small"] + row["large"], row["small"]))


@dataclass
class Prediction:
    """How well the largest cosine with the small SAE tells whether a latent of the large one lowers its error.

    A latent whose cosine is at most a threshold is taken for novel, rightly if it lowers the error. auroc and
    best_threshold (that with the largest difference between the two rates, Youden's J) are None if all latents change
    the error in one direction.
    """

    latents: int  # that were active at all
    lowering: int  # the error, of these
    auroc: float | None
    best_threshold: float | None
    thresholds: list[float]
    true_positive_rate: list[float]
    false_positive_rate: list[float]


def measure_prediction(cosine_L: Tensor, change_L: Tensor, fired_L: Tensor) -> Prediction:
    """Of the latents that were active; of the others nothing is known (arXiv:2502.04878, figure 4)."""
    alive_L = fired_L > 0
    cosine, lowers = cosine_L[alive_L].double().cpu().numpy(), (change_L[alive_L] < 0).cpu().numpy()
    alive, lowering = len(lowers), int(lowers.sum())
    if lowering in (0, alive):
        return Prediction(alive, lowering, None, None, [], [], [])
    false_rate, true_rate, threshold = roc_curve(lowers, -cosine)
    best = 1 + (true_rate - false_rate)[1:].argmax()  # the first is no latent's cosine: below all of them
    return Prediction(
        latents=alive,
        lowering=lowering,
        auroc=float(roc_auc_score(lowers, -cosine)),
        best_threshold=float(-threshold[best]),
        thresholds=(-threshold[1:]).tolist(),
        true_positive_rate=true_rate[1:].tolist(),
        false_positive_rate=false_rate[1:].tolist(),
    )


def compute_rates(
    cosine_L: Tensor, change_L: Tensor, fired_L: Tensor, threshold: float
) -> tuple[float | None, float | None]:
    """The shares below a threshold of the active latents that lower the error, and of those that do not."""
    alive_L, below_L, lowers_L = fired_L > 0, cosine_L < threshold, change_L < 0

    def share(of_L: Tensor) -> float | None:
        return below_L[of_L].double().mean().item() if of_L.any() else None

    return share(alive_L & lowers_L), share(alive_L & ~lowers_L)
