"""The settings of SAEs: one dataclass per architecture, or for several that have the same."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass(kw_only=True)
class SAEConfig:
    architecture: str = MISSING
    normalize_input: bool = True  # each activation minus its mean over d, over its standard deviation


@dataclass(kw_only=True)
class TopKConfig(SAEConfig):
    """Both TopK and BatchTopK: they differ in what the k largest are taken of."""

    aux_coefficient: float = 1 / 32  # weight of the auxiliary loss on dead latents
    aux_latents: int = 512  # dead latents that reconstruct the residual, per activation


@dataclass(kw_only=True)
class BatchTopKConfig(TopKConfig):
    threshold_momentum: float = 0.9  # running mean over training batches of the inference threshold


@dataclass(kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    aux_coefficient: float = 1.0
    prefixes: list[float] = field(default_factory=lambda: [0.03125, 0.09375, 0.21875, 0.46875, 1.0])  # of the latents


@dataclass(kw_only=True)
class PenaltyConfig(SAEConfig):
    """ReLU and gated SAEs, and what JumpReLU has in common with them."""

    sparsity_coefficient: float | None = None  # of the penalty: L1, or L0 for JumpReLU
    target_l0: float | None = None  # null, and no coefficient here or (JumpReLU) listed by the model for k: k
    initial_threshold: float = 1.5  # in standard deviations of the untrained pre-activations


@dataclass(kw_only=True)
class JumpReLUConfig(PenaltyConfig):
    bandwidth: float = 0.001  # of the rectangle kernel, in units of the pre-activation


SAE_SCHEMAS: dict[str, type[SAEConfig]] = {
    "batchtopk": BatchTopKConfig,
    "topk": TopKConfig,
    "jumprelu": JumpReLUConfig,
    "matryoshka": MatryoshkaConfig,
    "relu": PenaltyConfig,
    "gated": PenaltyConfig,
}
