"""What SAEBench's core metrics of one SAE are made of, summed over batches of text.

The definitions are those of sae-bench 0.6.0 (evals/core/main.py), also where they are unusual: docs/saebench.md lists
them. Sums are in float64, where sae-bench has float32.
"""

# n sequences of a batch, S positions, M positions of the batch that count, D model width, F latents, N kept entries

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweeps.evaluation.ratios import NO_SPREAD, compute_spread, divide
from sae_sweeps.saes import InferenceSAE

SMALL_NORM = 1e-4  # an activation of a smaller norm counts as one of norm 1 in the ratio of norms

Metrics = dict[str, float | None]


class TextSums:
    """Sums of one SAE over batches of activations, for the metrics of reconstruction, shrinkage and sparsity."""

    def __init__(self, sae: InferenceSAE) -> None:
        """Begin with 0 for an SAE, on its device."""
        self._sae = sae
        device = sae.W_dec.device
        self._active_F = torch.zeros(sae.dict_size, dtype=torch.int64, device=device)
        self._sequences_F = torch.zeros_like(self._active_F)
        self._l0 = self._l1 = 0.0
        self._positions = 0  # whose latents are summed
        self._reconstructed = _Reconstructed()

    def encode(self, acts_nSD: Tensor, counts_nS: Tensor) -> Tensor:
        """Return the reconstructions (n, S, D) of activations, and add the latents at the positions that count."""
        normalized = self._sae.normalize(acts_nSD.flatten(0, 1))
        kept = self._sae.find_active(normalized)
        row_N = kept.row_N.long()
        counted_N = counts_nS.flatten()[row_N]
        value_N, col_N = kept.value[counted_N], kept.col_N[counted_N].long()
        self._l0 += (value_N != 0).sum().item()
        self._l1 += value_N.double().sum().item()
        self._positions += int(counts_nS.sum())
        positive_N = value_N > 0
        fired_N = col_N[positive_N]
        self._active_F += torch.bincount(fired_N, minlength=len(self._active_F))
        sequence_N = row_N[counted_N][positive_N] // acts_nSD.shape[1]
        once = torch.unique(sequence_N * len(self._active_F) + fired_N) % len(self._active_F)
        self._sequences_F += torch.bincount(once, minlength=len(self._active_F))
        return self._sae.reconstruct(kept, normalized).view_as(acts_nSD)

    def add_batch(self, x_MD: Tensor, recon_MD: Tensor) -> None:
        """Add a batch of activations and their reconstructions, at the positions that count."""
        self._reconstructed.add(x_MD, recon_MD)

    def compute_metrics(self) -> Metrics:
        """Return SAEBench's metrics of the text by name, and `nmse` and `fvu`, as `evaluate` defines them."""
        found = {"l0": divide(self._l0, self._positions), "l1": divide(self._l1, self._positions)}
        return self._reconstructed.compute_metrics() | found

    def compute_latents(self) -> dict[str, list[float]]:
        """Return `feature_density` and `consistent_activation_heuristic` of each latent; NaN if it is never active."""
        active_F = self._active_F.double()
        return {
            "feature_density": (active_F / self._positions).tolist(),
            "consistent_activation_heuristic": (active_F / self._sequences_F).tolist(),
        }


@dataclass
class _Reconstructed:
    """Sums over activations, and values of single batches, for the metrics of reconstruction and shrinkage."""

    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # over activations
    biases: list[float] = field(default_factory=list)  # per batch: mean |x_hat|^2 / mean x * x_hat
    squares: list[float] = field(default_factory=list)  # per batch: mean |x|^2
    errors: list[float] = field(default_factory=list)  # per batch: mean |x - x_hat|^2
    with_spread: int = 0
    total_D: Tensor | None = None  # sum of x, in float64

    def add(self, x_MD: Tensor, recon_MD: Tensor) -> None:
        """Add a batch."""
        error_M = (x_MD - recon_MD).square().sum(1).double()
        norm_M, recon_norm_M = x_MD.norm(dim=1).double(), recon_MD.norm(dim=1).double()
        product_M = (x_MD * recon_MD).sum(1).double()
        # the mean of this batch, so that the metric depends on how the text is cut into batches
        legacy_M = (x_MD - x_MD.mean(0)).square().sum(1).double()
        spread_M, has_spread_M = compute_spread(x_MD)
        square_M = x_MD.double().square().sum(1)
        self._sum("l2_norm_in", norm_M)
        self._sum("l2_norm_out", recon_norm_M)
        self._sum("l2_ratio", recon_norm_M / torch.where(norm_M < SMALL_NORM, 1.0, norm_M))
        self._sum("mse", error_M / len(x_MD))  # divided by the activations of the batch, and so twice by their number
        self._sum("explained_variance_legacy", 1 - error_M / legacy_M)
        self._sum("cossim", product_M / (norm_M * recon_norm_M))
        self._sum("error", error_M)
        self._sum("square", square_M)
        self._sum("nmse", (error_M / spread_M)[has_spread_M])
        self.with_spread += int(has_spread_M.sum())
        self.biases.append((recon_norm_M.square().mean() / product_M.mean()).item())
        self.squares.append(square_M.mean().item())
        self.errors.append(error_M.mean().item())
        total_D = x_MD.double().sum(0)
        self.total_D = total_D if self.total_D is None else self.total_D + total_D
        self.count += len(x_MD)

    def compute_metrics(self) -> Metrics:
        """Return the metrics; None where there is nothing to divide by."""
        if self.total_D is None:
            return {}
        names = ("l2_norm_in", "l2_norm_out", "l2_ratio", "mse", "explained_variance_legacy", "cossim")
        means = {name: _finite(self.sums[name] / self.count) for name in names}
        batches = len(self.squares)
        # the mean square of an entry, squared, is subtracted in place of the squared mean
        mean_square = sum(self.squares) / batches
        variance = mean_square - (mean_square / len(self.total_D)) ** 2
        share = divide(sum(self.errors) / batches, variance)
        spread = self.sums["square"] - self.total_D.square().sum().item() / self.count
        return {
            **means,
            "relative_reconstruction_bias": _finite(sum(self.biases) / batches),
            "explained_variance": None if share is None else 1 - share,
            "nmse": divide(self.sums["nmse"], self.with_spread),
            "fvu": divide(self.sums["error"], spread, NO_SPREAD * self.sums["square"]),
        }

    def _sum(self, name: str, value_M: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value_M.sum().item()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
