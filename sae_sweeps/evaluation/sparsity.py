"""How many latents are active: on how many activations that many, and where in the sequence."""

# N sequences, S positions, A held-out activations, F latents

from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.evaluation.reconstruction import reconstruct
from sae_sweeps.saes import SAE

BINS = 64  # of the histogram, at most


def describe_sparsity(sae: SAE, data: HeldOut, active_A: Tensor) -> dict[str, Any]:
    """Return what results.json has on the number of active latents. `active_A` (A,): that of each held-out activation

    histogram: `width` and `counts` of bins of one width from 0; bin i has the activations with i * width to
        (i + 1) * width - 1 active latents
    by_position: mean over the text at each position of the sequences, S values; None at positions without any. Empty
        for synthetic activations, which are in no sequence
    special: `positions`, those of the held-out text with BOS or another special token, and `l0`, the mean over them,
        whether or not they count as data; None if there are none
    """
    by_position: list[float | None] = []
    is_text_A = data.is_text_NS[data.is_data_NS]
    position_A = data.is_data_NS.nonzero()[:, 1]
    special_PD = data.special_acts_PD.to(sae.W_dec.device)
    l0 = reconstruct(sae, special_PD).l0 if len(special_PD) > 0 else None
    if data.truth is None:
        by_position = average(active_A.cpu()[is_text_A], position_A[is_text_A], data.tokens_NS.shape[1])
    return {
        "histogram": count_in_bins(active_A),
        "by_position": by_position,
        "special": {"positions": len(special_PD), "l0": l0},
    }


def count_in_bins(active_A: Tensor) -> dict[str, Any]:
    """Return the histogram of numbers of active latents: the width of its bins, and the count of each."""
    width = 1
    while int(active_A.max()) >= width * BINS:
        width *= 2
    return {"width": width, "counts": torch.bincount(active_A // width).tolist()}


def average(value_A: Tensor, place_A: Tensor, places: int) -> list[float | None]:
    """Return the mean of the values at each place; None where there is none."""
    count = torch.bincount(place_A, minlength=places).tolist()
    total = torch.zeros(places, dtype=torch.float64).index_add_(0, place_A, value_A.double()).tolist()
    return [part / number if number else None for part, number in zip(total, count, strict=True)]
