"""How well an SAE recovers the features that were planted in synthetic activations.

Every planted feature is assigned one latent, and no latent to two features, so that the sum of the absolute cosines of
their directions is as large as possible (the Hungarian method), as for the MCC of arXiv:2505.20254 and of SAELens.
"""

# A held-out activations, B of them in a batch, D width, F latents, G planted features, N features active in an
# activation, of all activations, P pairs of a feature and a latent

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from sae_sweeps.activations.planted import Truth
from sae_sweeps.saes import SAE

MOST_PAIRS = 2**30  # cosines for which latents are assigned, in 8 GiB of memory
BLOCK = 2**22  # entries of a dense matrix at a time

Metrics = dict[str, float | None]


class Assignment(NamedTuple):
    """The one-to-one assignment of latents to planted features.

    feature_P, latent_P: numbers of the feature and the latent of each of min(F, G) pairs; none beyond `MOST_PAIRS`
    cosine_P: absolute cosine of their directions
    best_G: largest absolute cosine of each feature with any latent
    """

    feature_P: Tensor
    latent_P: Tensor
    cosine_P: Tensor
    best_G: Tensor


@torch.no_grad()
def measure_recovery(sae: SAE, acts_AD: Tensor, truth: Truth) -> Metrics:
    """Return how well an SAE recovers planted features, on the activations in which they were planted.

    mcc: mean correlation coefficient: mean of the absolute cosine over the min(F, G) pairs of a planted feature and its
        latent; over all features if there are at least as many latents (arXiv:2505.20254)
    mmcs: mean over all features of the largest absolute cosine with any latent, which may be that of several features
        (mean max cosine similarity of Sharkey, Braun & Millidge, 2022)
    feature_f1, feature_precision, feature_recall: of the firing of the feature's latent as a prediction of the
        feature's, mean over the features that are active in at least one activation. A feature without a latent, or
        with one that never fires at the right time, counts as 0
    features_seen: number of features that are active in at least one activation
    planted_l0: mean number of active features per activation
    Beyond `MOST_PAIRS` cosines all that depends on the assignment is None.
    """
    pairs = assign_latents(sae.W_dec.detach(), truth.W_GD)
    fires_G = torch.bincount(truth.feature_N, minlength=len(truth.W_GD))
    found: Metrics = dict.fromkeys(("mcc", "mmcs", "feature_f1", "feature_precision", "feature_recall"))
    found["mmcs"] = pairs.best_G.double().mean().item()
    if len(pairs.cosine_P):
        found["mcc"] = pairs.cosine_P.double().mean().item()
        found |= _average(*_count(sae, acts_AD, truth, pairs), fires_G)
    return {**found, "features_seen": int((fires_G > 0).sum()), "planted_l0": len(truth.row_N) / len(acts_AD)}


def assign_latents(W_FD: Tensor, W_GD: Tensor) -> Assignment:
    """Match latents with the decoder directions (F, D), of any norm, to features with the directions (G, D)."""
    W_FD, W_GD = normalize(W_FD.float(), dim=1), W_GD.to(W_FD.device).float()
    best_G = torch.empty(len(W_GD), device=W_FD.device)
    fits = len(W_GD) * len(W_FD) <= MOST_PAIRS
    cosine_GF = np.empty((len(W_GD), len(W_FD)) if fits else (0, 0))
    rows = max(1, BLOCK // len(W_FD))
    for first in range(0, len(W_GD), rows):
        block_BF = (W_GD[first : first + rows] @ W_FD.T).abs()
        best_G[first : first + rows] = block_BF.amax(1)
        if fits:
            cosine_GF[first : first + rows] = block_BF.cpu().numpy()
    feature_P, latent_P = linear_sum_assignment(cosine_GF, maximize=True)
    cosine_P = torch.from_numpy(cosine_GF[feature_P, latent_P])
    return Assignment(torch.from_numpy(feature_P), torch.from_numpy(latent_P), cosine_P, best_G)


def _count(sae: SAE, acts_AD: Tensor, truth: Truth, pairs: Assignment) -> tuple[Tensor, Tensor]:
    """Return how often the latent of each feature fires, and how often together with the feature, (G,) each."""
    count, device = len(truth.W_GD), acts_AD.device
    feature_F = torch.full((sae.dict_size,), -1, device=device)  # the feature of each latent
    feature_F[pairs.latent_P.to(device)] = pairs.feature_P.to(device)
    predicted_G, right_G = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
    rows = max(1, min(2048, BLOCK // count))
    for first in range(0, len(acts_AD), rows):
        x_BD = acts_AD[first : first + rows]
        kept = sae.find_active(sae.normalize(x_BD))
        feature_N = feature_F[kept.col_N.long()[kept.active]]
        is_assigned_N = feature_N >= 0
        predicts_BG = torch.zeros(len(x_BD), count, dtype=torch.bool, device=device)
        predicts_BG[kept.row_N.long()[kept.active][is_assigned_N], feature_N[is_assigned_N]] = True
        low, high = (int(torch.searchsorted(truth.row_N, bound)) for bound in (first, first + len(x_BD)))
        row_N, planted_N = truth.row_N[low:high] - first, truth.feature_N[low:high]
        predicted_G += predicts_BG.sum(0)
        right_G += torch.bincount(planted_N[predicts_BG[row_N, planted_N]], minlength=count)
    return predicted_G, right_G


def _average(predicted_G: Tensor, right_G: Tensor, fires_G: Tensor) -> Metrics:
    """Return the means over the features that fire, None if none does.

    predicted_G, right_G, fires_G: how often the latent of a feature fires, together with the feature, and the feature
    """
    seen = fires_G > 0
    if not seen.any():
        return {}
    predicted, right, fires = (each[seen].double() for each in (predicted_G, right_G, fires_G))
    return {
        "feature_f1": (2 * right / (predicted + fires)).mean().item(),
        "feature_precision": (right / predicted.clamp(min=1)).mean().item(),
        "feature_recall": (right / fires).mean().item(),
    }
