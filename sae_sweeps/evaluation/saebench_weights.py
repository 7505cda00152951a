"""SAEBench's core metrics that are made of an SAE's weights, and those that summarise its latents."""

# F latents, D model width, T latents in a tile

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sae_sweeps.saes import InferenceSAE

TILE_ENTRIES = 2**25  # cosines in memory at a time


def measure_weights(sae: InferenceSAE) -> dict[str, list[float]]:
    """Return SAEBench's metrics of each latent's weights, by name; NaN where a vector is zero.

    encoder_bias: as SAELens has it; of a gated SAE, that of its magnitudes
    encoder_norm: norm of the encoder's vector
    encoder_decoder_cosine_sim: cosine of the encoder's and the decoder's vector
    max_encoder_cosine_sim, max_decoder_cosine_sim: the largest cosine with another latent's vector
    """
    W_enc_FD, W_dec_FD = sae.W_enc.detach(), sae.W_dec.detach()
    product_F = (W_enc_FD * W_dec_FD).sum(1)
    norm_F = W_enc_FD.norm(dim=1)
    found_F = {
        "encoder_bias": _find_bias(sae),
        "encoder_norm": norm_F,
        "encoder_decoder_cosine_sim": product_F / (norm_F * W_dec_FD.norm(dim=1)),
        "max_encoder_cosine_sim": find_largest_cosines(W_enc_FD),
        "max_decoder_cosine_sim": find_largest_cosines(W_dec_FD),
    }
    return {name: value_F.tolist() for name, value_F in found_F.items()}


def _find_bias(sae: InferenceSAE) -> Tensor:
    b_enc_F = torch.zeros_like(sae.W_dec[:, 0]) if sae.b_enc is None else sae.b_enc.detach()
    return b_enc_F if sae.gain is None or sae.shift is None else sae.shift + sae.gain * b_enc_F


def find_largest_cosines(W_FD: Tensor) -> Tensor:
    """Return the largest cosine of each row with another one, (F,), of which a tile is computed at a time.

    -inf if there is no other row. The cosine with a row of zeros is 0.
    """
    unit_FD = functional.normalize(W_FD, dim=1)
    found = []
    for first in range(0, len(unit_FD), tile := max(1, TILE_ENTRIES // len(unit_FD))):
        cosine_TF = unit_FD[first : first + tile] @ unit_FD.T
        cosine_TF.diagonal(first).fill_(-torch.inf)
        found.append(cosine_TF.amax(1))
    return torch.cat(found)


def summarise_latents(latents: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return SAEBench's `misc_metrics` of the latents' metrics: means, and shares of frequent latents."""
    density_F = torch.tensor(latents["feature_density"], dtype=torch.float64)
    total = density_F.sum().item()
    found = {"frac_alive": (density_F > 0).double().mean().item()}
    for percent in (1, 10):
        is_frequent_F = density_F > percent / 100
        found[f"freq_over_{percent}_percent"] = is_frequent_F.double().mean().item()
        share = density_F[is_frequent_F].sum().item() / total if total > 0 else 0.0
        found[f"normalized_freq_over_{percent}_percent"] = share
    for side in ("encoder", "decoder"):
        largest = latents[f"max_{side}_cosine_sim"]
        found[f"average_max_{side}_cosine_sim"] = math.fsum(largest) / len(largest)
    return found
