"""The table of SAE architectures, and the settings of each: one dataclass per set of settings.

The table stands apart from the classes in `sae_sweeps.saes`, so that a command line is checked without importing torch.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from omegaconf import MISSING

PREFIXES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # arXiv:2503.17547, section 4.3: 2048, 6144, 14336, 30720 of 65536


class SettingProblem(NamedTuple):
    """A value that cannot work, and what to do about it."""

    setting: str  # without "sae."
    problem: str
    fix: str


@dataclass(kw_only=True)
class SAEConfig:
    """Settings that every architecture has."""

    architecture: str = MISSING
    normalize_input: bool = True  # each activation minus its mean over d, over its standard deviation

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield every value that is out of range for a dictionary of `dict_size` latents, or that contradicts another.

        `k` is only used to suggest a fix.
        """
        yield from ()


@dataclass(kw_only=True)
class TopKConfig(SAEConfig):
    """Settings of TopK."""

    aux_coefficient: float = 1 / 32  # weight of the auxiliary loss on dead latents
    aux_latents: int = 512  # dead latents that reconstruct the residual, per activation

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield the values that are out of range."""
        if not 0 < self.aux_latents < math.inf:
            yield SettingProblem("aux_latents", "must be greater than 0", "give sae.aux_latents a positive number")
        if not 0 <= self.aux_coefficient < math.inf:
            yield SettingProblem("aux_coefficient", "must be at least 0", "sae.aux_coefficient=0 for none")


@dataclass(kw_only=True)
class BatchTopKConfig(TopKConfig):
    """Settings of BatchTopK."""

    threshold_momentum: float = 0.9  # of the inference threshold's running mean over training batches

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield the values that are out of range."""
        yield from super().find_problems(dict_size, k)
        if not 0 <= self.threshold_momentum < 1:
            yield SettingProblem("threshold_momentum", "must be in [0, 1)", "sae.threshold_momentum=0.99")


@dataclass(kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Settings of Matryoshka BatchTopK."""

    aux_coefficient: float = 1.0  # the loss that it is added to is a sum over the prefixes
    prefixes: list[float] = field(default_factory=lambda: list(PREFIXES))  # shares of dict_size

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield the values that are out of range."""
        yield from super().find_problems(dict_size, k)
        shares, fix = [0.0, *self.prefixes], "'sae.prefixes=[0.0625,0.25,1]'"
        if shares[-1] != 1 or not _increases(shares):
            yield SettingProblem("prefixes", "must be increasing fractions of dict_size, the last one 1", fix)
        elif not _increases([round(share * dict_size) for share in shares]):
            problem = f"must each add a latent, but two round to the same number of latents with dict_size={dict_size}"
            yield SettingProblem("prefixes", problem, fix)


@dataclass(kw_only=True)
class PenaltyConfig(SAEConfig):
    """Settings of an architecture that a penalty makes sparse, such as ReLU."""

    sparsity_coefficient: float | None = None  # of the penalty: L1, or L0 for JumpReLU
    target_l0: float | None = None  # null, and no coefficient here or (JumpReLU) listed by the model for k: k
    initial_threshold: float = 1.5  # in standard deviations of the untrained pre-activations

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield the values that are out of range, and a target L0 beside a coefficient."""
        if not 0 <= self.initial_threshold < math.inf:
            yield SettingProblem("initial_threshold", "must be at least 0", "sae.initial_threshold=1.5")
        if self.sparsity_coefficient is not None:
            if not 0 <= self.sparsity_coefficient < math.inf:
                yield SettingProblem("sparsity_coefficient", "must be at least 0", "sae.sparsity_coefficient=0.001")
            if self.target_l0 is not None:
                problem = f"cannot be combined with sae.sparsity_coefficient={self.sparsity_coefficient:g}"
                yield SettingProblem("target_l0", problem, "leave one of them out")
        elif self.target_l0 is not None and not 0 < self.target_l0 < max(dict_size, 1):
            yield SettingProblem("target_l0", "must be above 0 and below dict_size", f"sae.target_l0={k}")


@dataclass(kw_only=True)
class GatedConfig(PenaltyConfig):
    """Settings of gated SAEs."""

    initial_threshold: float = 2.5


@dataclass(kw_only=True)
class JumpReLUConfig(PenaltyConfig):
    """Settings of JumpReLU. The only schema for which `model.sparsity_coefficients` lists coefficients."""

    bandwidth: float = 0.001  # of the rectangle kernel, in units of the pre-activation

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield the values that are out of range. A threshold that starts at 0 could not be scaled to a target L0."""
        for name in ("bandwidth", "initial_threshold"):
            if not 0 < getattr(self, name) < math.inf:
                yield SettingProblem(name, "must be greater than 0", f"give sae.{name} a positive number")
        inherited = super().find_problems(dict_size, k)
        yield from (found for found in inherited if found.setting != "initial_threshold")


@dataclass(frozen=True)
class Architecture:
    """What is known of an architecture without importing its class."""

    class_name: str  # of the SAE class in sae_sweeps/saes/NAME.py, where NAME is the key in ARCHITECTURES
    schema: type[SAEConfig]
    title: str  # in labels, tables and charts
    color: tuple[str, str]  # in the report, on a light and on a dark background


# `sae=NAME` chooses among these. CONTRIBUTING.md says how to add one.
ARCHITECTURES = {
    "batchtopk": Architecture("BatchTopKSAE", BatchTopKConfig, "BatchTopK", ("#0b66b5", "#63b0f5")),
    "topk": Architecture("TopKSAE", TopKConfig, "TopK", ("#c2500a", "#f59a56")),
    "jumprelu": Architecture("JumpReLUSAE", JumpReLUConfig, "JumpReLU", ("#0a7d57", "#4fcf9f")),
    "matryoshka": Architecture("MatryoshkaSAE", MatryoshkaConfig, "Matryoshka", ("#b01e2e", "#ff8b8b")),
    "relu": Architecture("ReLUSAE", PenaltyConfig, "ReLU", ("#756300", "#d9c84f")),
    "gated": Architecture("GatedSAE", GatedConfig, "Gated", ("#75502f", "#cfa37c")),
}
SAE_SCHEMAS = {name: entry.schema for name, entry in ARCHITECTURES.items()}
TITLES = {name: entry.title for name, entry in ARCHITECTURES.items()}


def architecture_title(name: str) -> str:
    """Return how labels and charts write an architecture; `name` itself if it is not in the table."""
    return TITLES.get(name, name)


def _increases(numbers: list[float]) -> bool:
    """Return whether each number is larger than the one before it."""
    return all(less < more for less, more in itertools.pairwise(numbers))
