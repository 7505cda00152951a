"""Histograms of the activation magnitudes of each latent, found in one pass over a text."""

# F latents, N activations, C bins

import torch
from torch import Tensor

BINS_LOG2 = 5  # 32 bins


class MagnitudeHistograms:
    """A histogram per latent of the magnitudes of its activations: bins of one width from 0.

    The width is a power of two. When a magnitude is beyond the last bin, the width doubles, and two bins become one, so
    that the counts are exact, and at least half of the bins are in use, whatever comes first.

    count (F, C): number of activations in each bin, a lower edge belonging to its bin
    """

    def __init__(self, latents: int, device: torch.device) -> None:
        self.count = torch.zeros(latents, 2**BINS_LOG2, dtype=torch.int32, device=device)
        self._exponent = torch.full((latents,), -126, dtype=torch.int32, device=device)  # of 2, beyond the last bin

    @property
    def width(self) -> Tensor:
        """Return the width of each latent's bins, (F,)."""
        return torch.ldexp(torch.ones_like(self._exponent, dtype=torch.float32), self._exponent - BINS_LOG2)

    def update(self, latent_N: Tensor, value_N: Tensor) -> None:
        """Add activations: the latent of each, and its value, other than 0."""
        latents, bins = self.count.shape
        magnitude_N = value_N.abs().float()
        largest_F = magnitude_N.new_zeros(latents).scatter_reduce_(0, latent_N, magnitude_N, "amax")
        exponent_F = torch.where(largest_F > 0, torch.frexp(largest_F).exponent, self._exponent)
        exponent_F = torch.maximum(self._exponent, exponent_F)
        grown = (exponent_F > self._exponent).nonzero().squeeze(1)
        doublings_G1 = (exponent_F - self._exponent)[grown].clamp(max=BINS_LOG2).unsqueeze(1)
        index_GC = torch.arange(bins, device=grown.device) >> doublings_G1
        self.count[grown] = torch.zeros_like(self.count[grown]).scatter_add_(1, index_GC, self.count[grown])
        self._exponent = exponent_F
        bin_N = (magnitude_N / self.width[latent_N]).long()
        self.count += torch.bincount(latent_N * bins + bin_N, minlength=latents * bins).view(latents, bins)
