"""Stitching: what the latents of a large SAE add to a small one (arXiv:2502.04878, section 4).

Every latent keeps the activations of the SAE that it comes from: those above the threshold, or among the k largest.
So any choice of latents from both SAEs reconstructs an activation by the sum of activation x decoder direction over
these latents, plus a decoder bias. A path from one SAE to the other starts and ends with exactly these two SAEs.
"""

# A activations, B of them in a batch, D model width, S latents of the small SAE, L of the large one, F of either
# N kept entries of a (B, F) matrix, P positions of a path after the first

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from sae_sweeps.evaluation.ratios import compute_spread, divide
from sae_sweeps.saes import SAE
from sae_sweeps.saes.base import Normalized
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.directions import Families
from sae_sweeps.studies.paths import SAEPath
from sae_sweeps.studies.swaps import FamilySwaps

BATCH = 2048  # activations encoded at a time
CHANGES_AT_ONCE = 2**23  # numbers in memory at a time for how reconstructions change along a path


@dataclass
class Curve:
    """Number of latents, NMSE (as `evaluate` defines it) and L0 at each position of a path between SAEs, (P + 1,).

    Without any activation that has a spread, each NMSE is None.
    """

    latents: list[int]
    nmse: list[float | None]
    l0: list[float]


class Stitching:
    """Measures how latents of a large SAE change the error of a small SAE; `update` adds batches of activations.

    paths: sequences of SAEs between the two, along which NMSE and L0 are measured
    swaps: families of similar latents, each of which is swapped by itself; None: none is
    fired_S (S,), fired_L (L,): number of activations so far on which each latent was active
    seen: number of activations so far
    with_spread: number of those that have a spread over their entries; NMSE leaves out the others

    Raises: ValueError if the two SAEs differ in d_in or in normalization.
    """

    def __init__(self, small: SAE, large: SAE, paths: Sequence[SAEPath], swaps: FamilySwaps | None = None) -> None:
        if (small.d_in, small.normalization) != (large.d_in, large.normalization):
            raise ValueError("the two SAEs must have the same d_in and the same normalization")
        self.small, self.large, self._paths, self.swaps = small, large, paths, swaps
        device = large.W_dec.device
        self._squared_norm_L = large.W_dec.detach().double().square().sum(1)
        self._change_sum_L = torch.zeros(large.dict_size, dtype=torch.float64, device=device)
        self.fired_L = torch.zeros(large.dict_size, dtype=torch.int64, device=device)
        self.fired_S = torch.zeros(small.dict_size, dtype=torch.int64, device=device)
        self._squared_error_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._nmse_sums = [torch.zeros(path.length + 1, dtype=torch.float64, device=device) for path in paths]
        self.seen = self.with_spread = 0

    @torch.no_grad()
    def update(self, x_BD: Tensor) -> None:
        """Add a batch of raw activations (B, D) to the measurements."""
        small, large = self.small, self.large
        normalized = small.normalize(x_BD)
        kept_S, kept_L = small.find_active(normalized), large.find_active(normalized)
        residual_BD = normalized.x_BD - kept_S.decode(small.W_dec).add_(small.b_dec)
        self._squared_error_sum += residual_BD.square().sum(dtype=torch.float64)
        if self.swaps is not None:
            self.swaps.update(residual_BD, kept_S, kept_L)
        projection_N = kept_L.sample_product(residual_BD, large.W_dec).double()  # <r, d_j> per kept entry
        value_N = kept_L.value.double()
        change_N = value_N * (value_N * kept_L.gather(self._squared_norm_L) - 2 * projection_N)
        self._change_sum_L += torch.bincount(kept_L.col_N, weights=change_N, minlength=large.dict_size)
        self.fired_L += torch.bincount(kept_L.col_N[kept_L.active], minlength=large.dict_size)
        self.fired_S += torch.bincount(kept_S.col_N[kept_S.active], minlength=small.dict_size)
        self.seen += len(x_BD)

        spread_B, has_spread_B = compute_spread(x_BD)
        self.with_spread += int(has_spread_B.sum())
        # `restore` maps this target to exactly x; not so normalized.x_BD, as `normalize` divides by std plus an epsilon
        target_BD = (x_BD - normalized.mean_B1) / normalized.std_B1
        error_BD = (target_BD - (normalized.x_BD - residual_BD)).where(has_spread_B[:, None], 0.0)
        weight_B = normalized.std_B1.squeeze(1).double().square() / spread_B  # from a squared error to NMSE
        weight_B = weight_B.where(has_spread_B, 0.0)
        for path, nmse_sum_P in zip(self._paths, self._nmse_sums, strict=True):
            changes = _PathChanges(path, small, kept_S, large, kept_L)
            at_once = max(1, CHANGES_AT_ONCE // (max(1, path.length) * x_BD.shape[1]))
            for first in range(0, len(x_BD), at_once):
                rows = slice(first, first + at_once)
                nmse_sum_P += changes.compute_squared_errors(error_BD[rows], first) @ weight_B[rows]

    @property
    def mse(self) -> float:
        """Return the mean of |x - x_hat|^2 over the activations x, x_hat from the small SAE, in normalised space."""
        return self._squared_error_sum.item() / self.seen

    @property
    def change_L(self) -> Tensor:
        """Return the change in `mse` when each latent of the large SAE alone is inserted, (L,) float64.

        The change is mean(-2 z_j <r, d_j> + z_j^2 |d_j|^2), with r the small SAE's residual x - x_hat, and z_j and d_j
        the activation and decoder direction of latent j. This is exact, as the reconstruction changes by z_j d_j.
        """
        return self._change_sum_L / self.seen

    def compute_curves(self) -> list[Curve]:
        """Return the number of latents, NMSE and L0 at each position of each path, in the order of `paths`."""
        curves = []
        for path, nmse_sum_P in zip(self._paths, self._nmse_sums, strict=True):
            l0 = path.count_active(self.fired_S, self.fired_L) / self.seen
            nmse = [divide(total, self.with_spread) for total in nmse_sum_P.tolist()]
            curves.append(Curve(path.latent_count.tolist(), nmse, l0.tolist()))
        return curves


class _PathChanges:
    """Changes of a batch's reconstructions from position to position of a path between two SAEs."""

    def __init__(self, path: SAEPath, small: SAE, kept_S: RowSparse, large: SAE, kept_L: RowSparse) -> None:
        self._path = path
        self._bias_change_D = large.b_dec.detach() - small.b_dec.detach()
        self._sides = [(kept_L, path.inserted_at, large.W_dec.detach())]
        if (path.removed_at <= path.length).any():
            self._sides.append((kept_S.scale(-torch.ones_like(kept_S.value)), path.removed_at, small.W_dec.detach()))

    def compute_squared_errors(self, error_BD: Tensor, first: int) -> Tensor:
        """Return the squared error |x - x_hat|^2 of some rows at each position of the path, (P + 1, B).

        error_BD: x - x_hat at position 0, of B rows of the batch that start at row `first`
        """
        length, batch = self._path.length, len(error_BD)
        squared_PB = error_BD.new_empty(length + 1, batch, dtype=torch.float64)
        changes = [_decode_changes(kept, at_F, W_dec, first, batch, length) for kept, at_F, W_dec in self._sides]
        error_BD = error_BD.clone()
        squared_PB[0] = error_BD.square().sum(1)
        for position in range(1, length + 1):
            for change_PBD in changes:
                error_BD -= change_PBD[position - 1]
            if position == self._path.bias_switched_at:
                error_BD -= self._bias_change_D
            squared_PB[position] = error_BD.square().sum(1)
        return squared_PB


def _decode_changes(kept: RowSparse, at_F: Tensor, W_dec_FD: Tensor, first: int, batch: int, length: int) -> Tensor:
    """Decode the latents that are inserted or removed at each position from 1 to `length`, (P, B, D).

    kept: latent activations, of which the `batch` rows from row `first` on are decoded
    at_F: the position at which each latent is inserted or removed; a position beyond `length` means never
    """
    part = kept.slice_rows(first, batch)
    at_N = part.gather(at_F)
    changes_N = at_N <= length
    row_N = ((at_N - 1) * batch + part.row_N)[changes_N]  # rows of a (P x B, F) matrix, ordered by position
    row_N, order_N = row_N.to(torch.int32).sort(stable=True)
    col_N, value_N = part.col_N[changes_N][order_N], part.value[changes_N][order_N]
    by_position = RowSparse.from_sorted(row_N, col_N, value_N, (length * batch, len(W_dec_FD)))
    return by_position.decode(W_dec_FD).view(length, batch, W_dec_FD.shape[1])


class PathReconstructions:
    """Reconstructions of raw activations (A, D) at any position of a path. The activations are encoded only once."""

    @torch.no_grad()
    def __init__(self, path: SAEPath, small: SAE, large: SAE, x_AD: Tensor) -> None:
        self._path, self._small, self._large = path, small, large
        self._encoded: list[tuple[Normalized, RowSparse, RowSparse]] = []
        for x_BD in x_AD.split(BATCH):
            normalized = small.normalize(x_BD)
            self._encoded.append((normalized, small.find_active(normalized), large.find_active(normalized)))

    @torch.no_grad()
    def reconstruct(self, position: int) -> Tensor:
        """Return the reconstructions at a position of the path, (A, D), without normalisation."""
        small, large = self._small, self._large
        return torch.cat(
            [
                normalized.restore(self._path.decode(position, small, kept_S, large, kept_L))
                for normalized, kept_S, kept_L in self._encoded
            ]
        )


def count_families(families: Families) -> list[dict[str, int]]:
    """Count the families of similar latents by size: the number of latents in the small and in the large SAE.

    Returns a row (small, large, count) per pair of numbers, families with the fewest latents first. A latent without
    a similar one counts as a family.
    """
    labels = int(max(families.left.max(), families.right.max())) + 1
    small, large = (np.bincount(side, minlength=labels) for side in (families.left, families.right))
    sizes, counts = np.unique(np.stack([small, large], axis=1), axis=0, return_counts=True)
    rows = [
        {"small": int(in_small), "large": int(in_large), "count": int(count)}
        for (in_small, in_large), count in zip(sizes, counts, strict=True)
        if in_small + in_large > 0
    ]
    return sorted(rows, key=lambda row: (row["small"] + row["large"], row["small"]))


@dataclass
class Prediction:
    """How well the largest cosine with the small SAE's latents predicts which latents of the large SAE lower the MSE.

    The MSE is the small SAE's, with one latent inserted. The prediction is "lowers the MSE" if the cosine is at most a
    threshold.

    latents: number of latents that were active at least once; other latents are not counted
    lowering: number of these latents that lower the MSE
    auroc: the area under the ROC curve
    best_threshold: the threshold with the largest true positive rate minus false positive rate (Youden's J)
    thresholds, true_positive_rate, false_positive_rate: the ROC curve

    If all latents lower the MSE or none does, the ROC curve is empty, and auroc and best_threshold are None.
    """

    latents: int
    lowering: int
    auroc: float | None
    best_threshold: float | None
    thresholds: list[float]
    true_positive_rate: list[float]
    false_positive_rate: list[float]


def measure_prediction(cosine_L: Tensor, change_L: Tensor, fired_L: Tensor) -> Prediction:
    """Measure how well decoder cosines predict which latents lower the MSE (arXiv:2502.04878, figure 4).

    cosine_L (L,): the largest decoder cosine of each latent of the large SAE with a latent of the small SAE
    change_L (L,): the change in the small SAE's MSE when that latent alone is inserted
    fired_L (L,): number of activations on which each latent is active; latents that are never active are left out
    """
    alive_L = fired_L > 0
    cosine, lowers = cosine_L[alive_L].double().cpu().numpy(), (change_L[alive_L] < 0).cpu().numpy()
    alive, lowering = len(lowers), int(lowers.sum())
    if lowering in (0, alive):
        return Prediction(alive, lowering, None, None, [], [], [])
    false_rate, true_rate, threshold = roc_curve(lowers, -cosine)
    best = 1 + (true_rate - false_rate)[1:].argmax()  # the first threshold of roc_curve is infinite
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
    """Return the true and the false positive rate of predicting that latents below a cosine threshold lower the MSE.

    The true positive rate is the share of latents with a cosine below the threshold among the active latents that lower
    the MSE, the false positive rate among the active latents that do not; None if there are no such latents.
    cosine_L, change_L, fired_L (L,): as for `measure_prediction`
    """
    alive_L, below_L, lowers_L = fired_L > 0, cosine_L < threshold, change_L < 0

    def compute_share(chosen_L: Tensor) -> float | None:
        return divide(below_L[chosen_L].sum().item(), chosen_L.sum().item())

    return compute_share(alive_L & lowers_L), compute_share(alive_L & ~lowers_L)
