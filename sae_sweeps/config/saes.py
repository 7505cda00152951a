"""The table of SAE architectures, and one dataclass per set of settings.

The table is separate from the classes in `sae_sweeps.saes`, so that a command line is checked without importing torch.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from omegaconf import MISSING

PENALTY_WINDOWS = ("both", "upper")
THRESHOLD_PARAMETERS = ("plain", "log")
# settings of JumpReLU that a coefficient depends on; `model.sparsity_coefficients` lists them with its coefficients
LISTED_SETTINGS = ("penalty_window", "threshold_parameter", "absolute_threshold", "bandwidth")
PREFIXES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # arXiv:2503.17547, section 4.3: 2048, 6144, 14336, 30720 of 65536


class SettingProblem(NamedTuple):
    """A setting whose value cannot work, with the problem and a fix, worded for a ConfigError."""

    setting: str  # name of the setting without "sae."
    problem: str  # what the value must be, to be read after "setting=value: "
    fix: str


@dataclass(kw_only=True)
class SAEConfig:
    """Settings that every architecture has."""

    architecture: str = MISSING
    normalize_input: bool = True  # normalise each activation to mean 0 and standard deviation 1 over its elements

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range or contradicts another setting.

        `dict_size` is the number of latents. `k` is only used to suggest a fix.
        """
        yield from ()


@dataclass(kw_only=True)
class TopKConfig(SAEConfig):
    """TopK SAEs."""

    aux_coefficient: float = 1 / 32  # weight of the auxiliary loss on dead latents; 0: none
    aux_latents: int = 512  # number of dead latents per activation that reconstruct the residual

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range."""
        if not 0 < self.aux_latents < math.inf:
            yield SettingProblem("aux_latents", "must be greater than 0", "give sae.aux_latents a positive number")
        if not 0 <= self.aux_coefficient < math.inf:
            yield SettingProblem("aux_coefficient", "must be at least 0", "sae.aux_coefficient=0 for no auxiliary loss")


@dataclass(kw_only=True)
class BatchTopKConfig(TopKConfig):
    """BatchTopK SAEs."""

    threshold_momentum: float = 0.9  # decay of the inference threshold's running mean, per training batch

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range."""
        yield from super().find_problems(dict_size, k)
        if not 0 <= self.threshold_momentum < 1:
            yield SettingProblem("threshold_momentum", "must be in [0, 1)", "sae.threshold_momentum=0.99")


@dataclass(kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Matryoshka BatchTopK SAEs."""

    aux_coefficient: float = 1.0  # larger than for TopK, because the reconstruction loss is a sum over the prefixes
    # sizes of the prefixes of latents that also reconstruct alone: fractions of dict_size, ascending to 1
    prefixes: list[float] = field(default_factory=lambda: list(PREFIXES))

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range."""
        yield from super().find_problems(dict_size, k)
        shares, fix = [0.0, *self.prefixes], "'sae.prefixes=[0.0625,0.25,1]'"
        if shares[-1] != 1 or not _increases(shares):
            yield SettingProblem("prefixes", "must be increasing fractions of dict_size, the last one 1", fix)
        elif not _increases([round(share * dict_size) for share in shares]):
            problem = f"must each add latents, but two round to the same number of latents with dict_size={dict_size}"
            yield SettingProblem("prefixes", problem, fix)


@dataclass(kw_only=True)
class PenaltyConfig(SAEConfig):
    """SAEs that a penalty makes sparse, such as ReLU."""

    sparsity_coefficient: float | None = None  # coefficient of the penalty on L1, or on L0 for JumpReLU
    # L0 that training aims at; None: k, unless a coefficient is given here or, for JumpReLU, listed by the model
    target_l0: float | None = None
    # JumpReLU: initial threshold, in standard deviations of the untrained pre-activations, unless
    # sae.absolute_threshold is given. ReLU, gated: the initial encoder bias is minus this. Without effect where L0 has
    # a target
    initial_threshold: float = 1.5

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range, and for a target L0 given besides a coefficient."""
        if not 0 <= self.initial_threshold < math.inf:
            yield SettingProblem("initial_threshold", "must be at least 0", "sae.initial_threshold=1.5")
        if self.sparsity_coefficient is not None:
            if not 0 <= self.sparsity_coefficient < math.inf:
                yield SettingProblem("sparsity_coefficient", "must be at least 0", "sae.sparsity_coefficient=0.001")
            if self.target_l0 is not None:
                problem = f"cannot be combined with sae.sparsity_coefficient={self.sparsity_coefficient:g}"
                yield SettingProblem("target_l0", problem, "leave one of the two settings out")
        elif self.target_l0 is not None and not 0 < self.target_l0 < max(dict_size, 1):
            yield SettingProblem("target_l0", f"must be above 0 and below dict_size={dict_size}", f"sae.target_l0={k}")


@dataclass(kw_only=True)
class GatedConfig(PenaltyConfig):
    """Gated SAEs."""

    initial_threshold: float = 2.5


@dataclass(kw_only=True)
class JumpReLUConfig(PenaltyConfig):
    """JumpReLU SAEs. The only schema for which `model.sparsity_coefficients` lists coefficients.

    conf/sae/jumprelu.yaml replaces the defaults of LISTED_SETTINGS where such a coefficient is used.
    """

    bandwidth: float = 0.001  # width of the straight-through estimator's kernel, in units of the pre-activation
    # entries within half a bandwidth of the threshold that count in the penalty's gradient by the threshold: both
    # (above and below it, arXiv:2407.14435), or upper (above it, as in the code of arXiv:2412.06410)
    penalty_window: str = "both"
    # parameter that Adam updates: plain (the threshold), or log (its logarithm, with the gradient by the threshold
    # itself, as in the code of arXiv:2412.06410)
    threshold_parameter: str = "plain"
    # initial threshold of every latent, in units of the pre-activation, in place of sae.initial_threshold, which is in
    # standard deviations; None: sae.initial_threshold. Without effect where L0 has a target
    absolute_threshold: float | None = None

    def find_problems(self, dict_size: int, k: int) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that is out of range, or contradicts `absolute_threshold`.

        Initial thresholds must be greater than 0, because thresholds of 0 have no logarithm, and cannot be scaled to a
        target L0.
        """
        for name in ("bandwidth", "initial_threshold", "absolute_threshold"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                yield SettingProblem(name, "must be greater than 0", f"give sae.{name} a positive number")
        for name, choices in (("penalty_window", PENALTY_WINDOWS), ("threshold_parameter", THRESHOLD_PARAMETERS)):
            if getattr(self, name) not in choices:
                yield SettingProblem(name, f"must be {' or '.join(choices)}", f"sae.{name}={choices[0]}")
        if self.absolute_threshold is not None:
            for name, default in (("target_l0", None), ("initial_threshold", JumpReLUConfig.initial_threshold)):
                if (value := getattr(self, name)) != default:
                    problem = f"cannot be combined with sae.{name}={value:g}"
                    yield SettingProblem("absolute_threshold", problem, "leave one of the two settings out")
        inherited = super().find_problems(dict_size, k)
        yield from (found for found in inherited if found.setting != "initial_threshold")


@dataclass(frozen=True)
class Architecture:
    """The facts about an architecture that are needed without importing torch."""

    class_name: str  # name of the SAE class in sae_sweeps/saes/NAME.py, where NAME is the key in ARCHITECTURES
    schema: type[SAEConfig]
    title: str  # name in labels, tables and charts
    color: tuple[str, str]  # colors in the report, on a light and on a dark background


# `sae=NAME` chooses an entry. CONTRIBUTING.md explains the steps to add an architecture.
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
    """Return the title of an architecture for labels and charts, such as "TopK".

    Returns `name` itself if the architecture is not in the table.
    """
    return TITLES.get(name, name)


def _increases(numbers: list[float]) -> bool:
    """Return whether each number is larger than the previous number."""
    return all(less < more for less, more in itertools.pairwise(numbers))
