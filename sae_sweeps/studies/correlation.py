"""Correlation of the activations of two SAEs' latents in the same text, also of SAEs at different hooks."""

# A held-out activations, B of them in a batch, F latents of an SAE, L on the left, R on the right

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from sae_sweeps.activations.source import Source
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes import SAE
from sae_sweeps.studies.matching import Match

BLOCK = 1024  # latents on the left whose correlations with all on the right are computed at a time


@dataclass(frozen=True)
class Correlated:
    """The latent of the other SAE whose activation correlates most with that of each latent.

    value: Pearson's correlation; 0 for a latent that is never, or always equally, active
    index: number of the other latent
    """

    value: np.ndarray
    index: np.ndarray


@torch.no_grad()
def collect_activations(
    source: Source, saes: Mapping[str, Sequence[SAE]], tokens: int, on_progress: OnProgress | None = None
) -> dict[str, list[csr_array]]:
    """Return the activations of the latents of SAEs at each hook, sparse (A, F), of the same held-out text.

    saes: hook -> SAEs. One pass of the language model reads all hooks
    tokens: activations to read, about; on_progress: called with (done, total) sequences
    """
    parts: dict[str, list[list[csr_array]]] = {hook: [[] for _ in group] for hook, group in saes.items()}
    for _, acts in source.held_out_text_at([*saes], tokens, on_progress):
        for hook, group in saes.items():
            for sae, batches in zip(group, parts[hook], strict=True):
                kept = sae.find_active(sae.normalize(acts[hook]))
                value_N, col_N = (each[kept.active].cpu().numpy() for each in (kept.value, kept.col_N))
                row_N = kept.row_N[kept.active].cpu().numpy()
                batches.append(csr_array((value_N, (row_N, col_N)), (len(acts[hook]), sae.dict_size)))
    return {hook: [vstack(batches, format="csr") for batches in group] for hook, group in parts.items()}


def correlate(left_AL: csr_array, right_AR: csr_array) -> tuple[Correlated, Correlated]:
    """Return the most correlated right latent of each left one, (L,), and the other way round, (R,)."""
    left, right = _standardise(left_AL), _standardise(right_AR)
    count = left_AL.shape[0]
    best_L, index_L = np.zeros(left_AL.shape[1]), np.zeros(left_AL.shape[1], dtype=np.int64)
    best_R, index_R = np.full(right_AR.shape[1], -np.inf), np.zeros(right_AR.shape[1], dtype=np.int64)
    transposed = left.scaled.T.tocsr()
    for first in range(0, left_AL.shape[1], BLOCK):
        block = slice(first, first + BLOCK)
        correlation_BR = (transposed[block] @ right.scaled).toarray() / count - np.outer(left.mean[block], right.mean)
        best_L[block], index_L[block] = correlation_BR.max(1), correlation_BR.argmax(1)
        column_R = correlation_BR.max(0)
        index_R = np.where(column_R > best_R, first + correlation_BR.argmax(0), index_R)
        best_R = np.maximum(column_R, best_R)
    return Correlated(best_L, index_L), Correlated(best_R, index_R)


def correlate_by_chance(left_AL: csr_array, right_AR: csr_array, seed: int) -> float:
    """Return the mean of the largest correlations of right latents if the activations of the left are shuffled."""
    order_A = np.random.default_rng(mix_seed(seed, "correlation")).permutation(left_AL.shape[0])
    return float(correlate(left_AL[order_A], right_AR)[1].value.mean())


def summarise_correlations(
    nearest: Match, correlated: tuple[Correlated, Correlated], chance: float
) -> dict[str, float | None]:
    """Return the columns of a table of pairs: means of the largest correlations, and how often cosines agree.

    same_partner_share: share of right latents whose nearest left latent, by cosine, is also the most correlated one
    chance: what `correlate_by_chance` returned
    """
    left, right = correlated
    return {
        "right_correlation_mean": float(right.value.mean()),
        "left_correlation_mean": float(left.value.mean()),
        "correlation_mean_chance": chance,
        "same_partner_share": float((right.index == nearest.right.index.cpu().numpy()).mean()),
    }


@dataclass(frozen=True)
class _Standard:
    """Activations over their standard deviation, and their mean over it; both 0 where it is 0."""

    scaled: csr_array
    mean: np.ndarray


def _standardise(acts_AF: csr_array) -> _Standard:
    acts_AF = acts_AF.astype(np.float64)
    mean_F = np.asarray(acts_AF.mean(0))
    square_F = np.asarray(acts_AF.multiply(acts_AF).mean(0))
    variance_F = square_F - mean_F**2
    is_constant_F = variance_F <= 1e-12 * square_F
    inverse_F = np.where(is_constant_F, 0.0, 1 / np.sqrt(np.where(is_constant_F, 1.0, variance_F)))
    return _Standard(acts_AF.multiply(inverse_F[None, :]).tocsr(), mean_F * inverse_F)
