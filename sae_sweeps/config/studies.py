"""The settings of the tasks that use trained SAEs: the studies, export and publish."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class StitchConfig:
    """Task `stitch`."""

    threshold: float = 0.7  # decoder cosine from which a latent of the large SAE counts as known to the small one
    # further cosines for which the same counts are reported
    thresholds: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    tokens: int = 32_768  # held-out activations for the change in MSE and the interpolation
    ce_tokens: int = 8_192  # held-out activations for the CE degradation
    positions: int = 20  # points on each part of an interpolation curve
    ce_positions: int = 8  # points on a curve at which the CE degradation is measured
    seed: int = 0  # random order of the latents in the controls


@dataclass(kw_only=True)
class MetaConfig:
    """Task `meta_sae`."""

    dict_size: int | None = None  # meta-latents; None: a quarter of the number of decomposed latents
    k: int = 4  # active meta-latents per latent, on average
    seed: int = 0  # initialisation, order of the directions, and the shuffled control
    include_dead: bool = False  # also decompose latents that are active nowhere in latents.tokens
    steps: int = 2000  # training steps
    batch_size: int = 1024  # decoder directions per step
    lr: float = 4e-3  # learning rate; falls to zero over the last fifth of the steps
    checkpoint_every: int = 500  # steps between checkpoints


@dataclass(kw_only=True)
class LatentsConfig:
    """Task `latents`, and how `meta_sae` describes latents and meta-latents."""

    tokens: int = 100_000  # held-out activations to search for examples
    examples: int = 10  # strongest activations per latent, each from another sequence
    before: int = 12  # tokens of context before an example
    after: int = 6  # tokens of context after an example
    promoted: int = 10  # output tokens per latent: those with the largest logit-lens value


@dataclass(kw_only=True)
class ExportConfig:
    """Task `export`; `normalized` applies to `publish` as well."""

    folder: str | None = None  # where to write; None: export/FORMAT/ in the sweep's folder
    # for a format without input normalisation: write the SAE for activations that the caller normalises first
    normalized: bool = False


@dataclass(kw_only=True)
class PublishConfig:
    """Task `publish`."""

    repo: str | None = None  # repository on the Hugging Face hub: OWNER/NAME
    private: bool = True  # create the repository as private
    dry_run: bool = False  # list the files without uploading them
