"""Settings of successive halving, which ends the points of a sweep early that do worse than others."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class HalvingConfig:
    """Successive halving with `hydra/sweeper=halving`: points that do worse than others end early."""

    enabled: bool = False  # set by hydra/sweeper=halving
    keep: float = 0.5  # fraction of the compared points that continue after each comparison
    # activations at the first comparison, rounded up to whole chunks; later ones are at 1 / keep times as many each.
    # None: an eighth of training.tokens
    first: int | None = None
    # settings that are equal in points that are compared, besides model, hook, text and training.tokens
    within: list[str] = field(default_factory=lambda: ["dict_size", "k", "seed"])
