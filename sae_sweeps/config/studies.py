"""The settings of what is done with trained SAEs: studies, and passing them on."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class StitchConfig:
    """Task `stitch`."""

    threshold: float = 0.7  # decoder cosine from which a latent of the large SAE counts as one of the small SAE's
    thresholds: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # looked at as well
    tokens: int = 32_768  # held-out activations
    ce_tokens: int = 8_192  # of them, for the CE degradation
    positions: int = 20  # of each part of a curve
    ce_positions: int = 8  # of them, for the CE degradation
    seed: int = 0  # of the random order of the control


@dataclass(kw_only=True)
class MetaConfig:
    """Task `meta_sae`."""

    dict_size: int | None = None  # meta-latents; null: a quarter of the latents decomposed
    k: int = 4  # meta-latents per latent, on average
    seed: int = 0
    include_dead: bool = False  # latents that are active nowhere in latents.tokens
    steps: int = 2000
    batch_size: int = 1024  # decoder directions per step
    lr: float = 4e-3
    checkpoint_every: int = 500  # steps


@dataclass(kw_only=True)
class LatentsConfig:
    """Task `latents`, and what `meta_sae` tells of latents and meta-latents."""

    tokens: int = 100_000  # held-out activations that are looked through
    examples: int = 10  # per latent, each from another sequence
    before: int = 12  # tokens of context
    after: int = 6
    promoted: int = 10  # output tokens that a direction raises most


@dataclass(kw_only=True)
class ExportConfig:
    """Task `export`, and what `publish` uploads."""

    folder: str | None = None  # where to; null: export/FORMAT/ in the sweep's folder
    normalized: bool = (
        False  # write SAEs of normalised activations where a format has no normalisation, to be fed those
    )


@dataclass(kw_only=True)
class PublishConfig:
    """Task `publish`."""

    repo: str | None = None  # OWNER/NAME on the hub
    private: bool = True
    dry_run: bool = False  # show what would be uploaded, and upload nothing
