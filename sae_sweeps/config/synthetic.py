"""The settings of synthetic activations: sparse sums of planted directions, which need no language model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sae_sweeps.runtime.inputs import check_names

SYNTHETIC = "synthetic"  # the dataset.format, and what such points have as model and hook
DIRECTIONS = ("random", "orthogonal")
MOST_NUMBERS = 2**30  # numbers in the planted directions, 4 GiB
# largest values of settings: beyond them numbers in float32 overflow, or only take memory
MOST = {
    "dim": 2**16,
    "correlation_rank": 1024,
    "magnitude": 1e6,
    "magnitude_spread": 10.0,
    "magnitude_exponent": 4.0,
    "bias": 1e6,
    "noise": 1e6,
}
LEAST_MAGNITUDE = 1e-6


class Problem(NamedTuple):
    """A value that cannot work: the setting with its full name, what is wrong, and what to do."""

    setting: str
    problem: str
    fix: str


@check_names
@dataclass(kw_only=True)
class SyntheticConfig:
    """Activations from a planted dictionary, without a language model or text; only for dataset=synthetic."""

    dim: int = 64  # width of an activation
    features: int = 128  # planted features; more than `dim` are in superposition
    active: float = 4.0  # mean number of features that are active in an activation: the L0 of the planted dictionary
    exponent: float = 0.5  # firing probabilities fall as rank^-exponent, from the most frequent feature; 0: all equal
    magnitude: float = 1.0  # mean value of an active feature
    magnitude_spread: float = 0.25  # standard deviation of an active feature's value, as a share of its mean
    magnitude_exponent: float = 0.0  # mean values fall as rank^-magnitude_exponent, in the order of the frequencies
    directions: str = "random"  # random, or orthogonal: at right angles up to `dim` features, else as far as they go
    # share of what decides a feature's firing that it has in common with others, from 0 (independent) to below 1. Pairs
    # of features then fire together more often than by chance, or less often
    correlation: float = 0.0
    correlation_rank: int = 8  # number of independent causes that correlated features share
    depth: int = 0  # levels of children below the features at the top; a child fires only if its parent does. 0: none
    branching: int = 4  # children of a feature that has children, about
    child_probability: float = 0.5  # how often, at most, a child fires when its parent does
    bias: float = 0.0  # norm of a vector that is added to every activation
    noise: float = 0.05  # norm (root mean square) of Gaussian noise that is added to each activation; 0: none
    seed: int = 0  # random seed for the planted dictionary and the held-out activations; dataset.seed: for training

    @property
    def levels(self) -> list[int]:
        """Return the number of features on each level of the hierarchy, from the top; one level without a hierarchy."""
        tree, sizes = 1, [1]
        while len(sizes) <= self.depth and tree < self.features:
            sizes.append(sizes[-1] * self.branching)
            tree += sizes[-1]
        trees, left, found = -(-self.features // tree), self.features, []
        for size in sizes:
            found.append(min(trees * size, left))
            left -= found[-1]
        return [size for size in found if size]

    @property
    def most_active(self) -> float:
        """Return the mean number of active features that is possible: all features, or fewer with a hierarchy."""
        return sum(size * self.child_probability**level for level, size in enumerate(self.levels))

    def find_problems(self) -> list[Problem]:
        """Return a problem for every value that cannot work; an empty list if all can."""
        found = [*self._find_ranges(), *self._find_choices()]
        if found:
            return found
        if self.dim * self.features > MOST_NUMBERS:
            gib = 4 * self.dim * self.features / 2**30
            problem = f"{self.features:,} directions of width {self.dim:,} take {gib:,.0f} GiB, more than 4 GiB"
            found.append(Problem("features", problem, f"synthetic.features={MOST_NUMBERS // self.dim}, or a lower dim"))
        elif self.active > self.most_active:
            most = math.floor(self.most_active * 1000) / 1000
            problem = f"must be at most {most:g}: no more can be active of {self.features} features"
            if len(self.levels) > 1:
                share = f"synthetic.child_probability={self.child_probability:g}"
                problem += f" in {len(self.levels)} levels with {share}"
            found.append(Problem("active", problem, f"synthetic.active={most:g}, or more features"))
        return found

    def _find_ranges(self) -> list[Problem]:
        least: dict[str, float] = dict.fromkeys(("dim", "features", "branching", "correlation_rank"), 1)
        least |= dict.fromkeys(
            ("depth", "seed", "exponent", "magnitude_spread", "magnitude_exponent", "bias", "noise"), 0
        )
        least |= {"magnitude": LEAST_MAGNITUDE}
        found = []
        for name, low in least.items():
            value, high = getattr(self, name), MOST.get(name, math.inf)
            if not (low <= value <= high and value < math.inf):  # true for nan as well
                problem = f"must be at least {low:g}" if high == math.inf else f"must be from {low:g} to {high:g}"
                found.append(Problem(name, problem, f"synthetic.{name}={getattr(DEFAULTS, name):g}"))
        if not 0 < self.active < math.inf:
            found.append(Problem("active", "must be greater than 0", f"synthetic.active={DEFAULTS.active:g}"))
        return found

    def _find_choices(self) -> list[Problem]:
        found = []
        if self.directions not in DIRECTIONS:
            found.append(
                Problem("directions", f"must be one of {', '.join(DIRECTIONS)}", "synthetic.directions=random")
            )
        if not 0 <= self.correlation < 1:
            found.append(Problem("correlation", "must be at least 0 and below 1", "synthetic.correlation=0.5"))
        if not 0 < self.child_probability <= 1:
            found.append(
                Problem("child_probability", "must be above 0 and at most 1", "synthetic.child_probability=0.5")
            )
        return found


DEFAULTS = SyntheticConfig()


def is_synthetic(values: Mapping[str, Any]) -> bool:
    """Return whether a nested configuration, as JSON has it, is of synthetic activations."""
    return bool(values["dataset"].get("format") == SYNTHETIC)
