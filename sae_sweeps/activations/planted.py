"""A planted dictionary: directions, how often and how strongly each is active, and activations that are drawn from it.

An activation is x = bias + sum over the active features of value * direction + noise. A feature is active if a standard
normal variable of its own is above a threshold (a Gaussian copula) and its parent, if it has one, is active.
"""

# A activations, B of them drawn at a time, D width, G planted features, L levels of the hierarchy, N active features
# of all activations, R shared factors of a level

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from sae_sweeps.config.synthetic import SyntheticConfig
from sae_sweeps.runtime.files import save_tensors, write_atomically, write_json
from sae_sweeps.runtime.seeds import mix_seed

BLOCK = 2**22  # normal variables of a block of activations, which is drawn with one seed
BLOCK_ROWS = 4096  # activations of a block at most
FRAME_STEPS = 100  # of the search for directions that are as far apart as they go
BISECTIONS = 100  # halvings of the range of a logarithm: more than float64 has bits


@dataclass(frozen=True)
class Drawn:
    """Activations with the planted features that are active in them.

    acts_AD: the activations
    row_N, feature_N, value_N: activation, feature and value of each active feature, by activation
    """

    acts_AD: Tensor
    row_N: Tensor
    feature_N: Tensor
    value_N: Tensor

    @property
    def l0(self) -> float:
        """Return the mean number of active features per activation."""
        return len(self.row_N) / len(self.acts_AD)


@dataclass(frozen=True)
class Truth:
    """What was planted in held-out activations.

    W_GD: the directions of the features, of unit norm
    row_N, feature_N: activation and feature, of each active feature, by activation
    """

    W_GD: Tensor
    row_N: Tensor
    feature_N: Tensor


class PlantedDictionary:
    """The directions and the statistics of the features that activations are made of.

    Features are numbered by how often they are active, and by level: those at the top of the hierarchy come first.

    W_GD: directions of unit norm
    probability_G: how often each feature is active, in float64; they add up to `active`
    given_parent_G: how often each is active when its parent is, in float64; equal to `probability_G` at the top
    magnitude_G: mean value of each active feature
    parent_G: the feature's parent, int64; -1 at the top
    bias_D: is added to all activations
    loading_GR: how far each feature's firing depends on each shared factor of its level
    """

    def __init__(self, settings: SyntheticConfig, device: torch.device) -> None:
        """Draw the dictionary from the settings, which `find_problems` has passed. The draws are made on the CPU."""
        self.settings = settings
        count, dim = settings.features, settings.dim
        self.parent_G = find_parents(settings.levels).to(device)
        probability_G, given_parent_G = find_probabilities(settings)
        self.probability_G, self.given_parent_G = (torch.from_numpy(each) for each in (probability_G, given_parent_G))
        self.W_GD = draw_directions(settings).to(device)
        self.magnitude_G = settings.magnitude * make_powers(count, settings.magnitude_exponent).float().to(device)
        bias_D = torch.nn.functional.normalize(_draw_normal((1, dim), settings.seed, "bias"))[0]
        self.bias_D = settings.bias * bias_D.to(device)
        shape = (count, settings.correlation_rank if settings.correlation else 1)
        loading_GR = torch.nn.functional.normalize(_draw_normal(shape, settings.seed, "correlation"))
        self.loading_GR = settings.correlation**0.5 * loading_GR.to(device)
        self._threshold_G = torch.from_numpy(-ndtri(given_parent_G)).float().to(device)

    @property
    def device(self) -> torch.device:
        """Return the device on which activations are drawn."""
        return self.W_GD.device

    @property
    def block_rows(self) -> int:
        """Return the number of activations that are drawn together, with one seed."""
        return max(1, min(BLOCK_ROWS, BLOCK // len(self.W_GD)))

    def draw(self, seed: int, what: str, first: int, count: int) -> Drawn:
        """Return `count` activations from number `first` of an endless sequence, which `seed` and `what` decide.

        The numbers are the same however the sequence is cut into calls; those of another type of device differ.
        """
        parts, done = [], 0
        for block in range(first // self.block_rows, -(-(first + count) // self.block_rows)):
            start = block * self.block_rows
            rows = slice(max(first - start, 0), min(first + count - start, self.block_rows))
            value_BG, noise_BD = self._draw_block(seed, f"synthetic {what} {block}")
            row_N, feature_N = value_BG[rows].nonzero(as_tuple=True)
            value_N = value_BG[rows][row_N, feature_N]
            acts_BD = self.combine(row_N, feature_N, value_N, rows.stop - rows.start) + noise_BD[rows]
            parts.append((acts_BD, row_N + done, feature_N, value_N))
            done += len(acts_BD)
        return Drawn(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def combine(self, row_N: Tensor, feature_N: Tensor, value_N: Tensor, count: int) -> Tensor:
        """Return the activations (count, D) of active features, without noise. `row_N` ascends."""
        start_A = torch.searchsorted(row_N, torch.arange(count, device=row_N.device))
        sums_AD = torch.nn.functional.embedding_bag(
            feature_N, self.W_GD, start_A, mode="sum", per_sample_weights=value_N
        )
        return sums_AD + self.bias_D

    def _draw_block(self, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Return the values of all features, 0 where they are not active, (B, G), and the noise (B, D)."""
        generator = torch.Generator(self.device).manual_seed(mix_seed(seed, purpose))
        normal = functools.partial(torch.randn, generator=generator, device=self.device)
        rows, settings = self.block_rows, self.settings
        cause_BG = self._draw_causes(normal(rows, len(self.W_GD)), generator)
        fires_BG = cause_BG > self._threshold_G
        for level in list(_split_levels(settings.levels))[1:]:
            fires_BG[:, level] &= fires_BG[:, self.parent_G[level]]
        value_N = (1 + settings.magnitude_spread * normal(int(fires_BG.sum()))).abs()
        value_BG = torch.zeros_like(cause_BG)
        value_BG[fires_BG] = value_N.clamp(min=torch.finfo(torch.float32).tiny)  # an active feature has a value
        noise_BD = normal(rows, settings.dim) * (settings.noise / settings.dim**0.5)
        return value_BG.mul_(self.magnitude_G), noise_BD

    def _draw_causes(self, own_BG: Tensor, generator: torch.Generator) -> Tensor:
        """Return the standard normal variables (B, G) that decide what fires: own ones, and shared factors of a level.

        Features of different levels share nothing, so that a feature's cause does not depend on its parent's.
        """
        correlation = self.settings.correlation
        if not correlation:
            return own_BG
        own_BG.mul_((1 - correlation) ** 0.5)
        for level in _split_levels(self.settings.levels):
            shape = (len(own_BG), self.loading_GR.shape[1])
            shared_BR = torch.randn(shape, generator=generator, device=self.device)
            own_BG[:, level].addmm_(shared_BR, self.loading_GR[level].T)
        return own_BG

    def save(self, stem: Path) -> None:
        """Write the dictionary to STEM.safetensors and its settings to STEM.json, unless both are there."""
        tensors, settings = (stem.with_suffix(suffix) for suffix in (".safetensors", ".json"))
        if tensors.is_file() and settings.is_file():
            return
        content = {
            "directions": self.W_GD,
            "probabilities": self.probability_G.float(),
            "probabilities_given_parent": self.given_parent_G.float(),
            "magnitudes": self.magnitude_G,
            "parents": self.parent_G,
            "bias": self.bias_D,
            "loadings": self.loading_GR,
        }
        with write_atomically(tensors) as temporary:
            save_tensors(content, temporary)
        write_json(settings, vars(self.settings))


def _draw_normal(shape: tuple[int, int], seed: int, what: str) -> Tensor:
    generator = torch.Generator().manual_seed(mix_seed(seed, f"planted {what}"))
    return torch.randn(shape, generator=generator)


def _split_levels(sizes: list[int]) -> Iterator[slice]:
    """Yield the features of each level, from the top."""
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def find_parents(sizes: list[int]) -> Tensor:
    """Return the parent of each feature, int64 (G,), -1 at the top: the features of a level share out their children.

    sizes: number of features on each level, from the top
    """
    parents, levels = [torch.full((sizes[0],), -1)], list(_split_levels(sizes))
    for above, level in itertools.pairwise(levels):
        parents.append(above.start + torch.arange(level.stop - level.start) % (above.stop - above.start))
    return torch.cat(parents)


def make_powers(count: int, exponent: float) -> Tensor:
    """Return rank^-exponent for the ranks 1, 2, ..., count, in float64."""
    return torch.arange(1, count + 1, dtype=torch.float64) ** -exponent


def find_probabilities(settings: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each feature is active, and how often when its parent is, (G,) each in float64.

    The probability of rank r is c * r^-exponent, but at most 1, or for a child `child_probability` times that of its
    parent. c is the number, found by bisection, for which they add up to `active`.
    """
    levels, parent_G = list(_split_levels(settings.levels)), find_parents(settings.levels).numpy()
    log_G = -settings.exponent * np.log(np.arange(1, settings.features + 1))

    def find(log_scale: float) -> np.ndarray:
        found_G = np.exp(np.minimum(log_scale + log_G, 0.0))
        for level in levels[1:]:
            found_G[level] = np.minimum(found_G[level], settings.child_probability * found_G[parent_G[level]])
        return found_G

    # with the first scale they add up to less, with the second each is as large as it can be
    low, high = math.log(settings.active / settings.features) - 1, -float(log_G[-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if find(middle).sum() < settings.active else (low, middle)
    probability_G = find(high)
    above_G = np.where(parent_G < 0, 1.0, probability_G[parent_G])
    given_G = np.divide(probability_G, above_G, out=np.zeros_like(above_G), where=above_G > 0)
    return probability_G, given_G


def draw_directions(settings: SyntheticConfig) -> Tensor:
    """Return the planted directions (G, D), of unit norm.

    random: uniform on the sphere. orthogonal: an orthonormal basis for up to D features; for more a tight frame, whose
    mean squared cosine is the lowest possible, (G - D) / (D (G - 1)) (Welch's bound). It is found by alternating
    projections (Tropp, Dhillon, Heath & Strohmer, IEEE Transactions on Information Theory 51, 2005).
    """
    W_GD = torch.nn.functional.normalize(_draw_normal((settings.features, settings.dim), settings.seed, "directions"))
    if settings.directions == "random":
        return W_GD
    if settings.features <= settings.dim:
        return torch.linalg.qr(W_GD.double().T).Q.T.float().contiguous()
    for _ in range(FRAME_STEPS):
        value_D, vector_DD = torch.linalg.eigh((W_GD.T @ W_GD).double())
        whitening_DD = vector_DD * value_D.clamp(min=1e-12) ** -0.5 @ vector_DD.T
        W_GD = torch.nn.functional.normalize(W_GD @ whitening_DD.float())
    return W_GD
