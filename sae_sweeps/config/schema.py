"""The configuration: one dataclass per group of conf/, and the names of points.

Hydra composes conf/*.yaml and the command line over these schemas, so an unknown key or a wrong type is refused there;
values out of range are found by rules.py. Nothing here touches a file.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sae_sweeps.config.saes import SAEConfig
from sae_sweeps.config.studies import ExportConfig, LatentsConfig, MetaConfig, PublishConfig, StitchConfig


@dataclass(kw_only=True)
class CoefficientsConfig:
    """JumpReLU penalty coefficients that give a known L0, and the model and hook for which they were found."""

    name: str | None = None
    hook: str | None = None
    values: dict[int, float] = field(default_factory=dict)  # k -> coefficient


@dataclass(kw_only=True)
class ModelConfig:
    name: str = MISSING  # a local folder in Hugging Face format, or a name on the Hugging Face hub
    hook: str = MISSING  # TransformerLens hook, e.g. blocks.8.hook_resid_pre
    dtype: str = "float32"  # auto: bfloat16 where the machine has instructions for it, else float32
    batch_sequences: int = 32  # token sequences per forward pass
    aliases: list[str] = field(default_factory=list)  # what the files of others' SAEs call it besides
    sparsity_coefficients: CoefficientsConfig = field(default_factory=CoefficientsConfig)


@dataclass(kw_only=True)
class DatasetConfig:
    format: str = MISSING
    name: str | None = None  # a data set on the hub, for format hub
    subset: str | None = None
    split: str = "train"
    files: Any = None  # a path or glob, or a list of them, for the other formats
    text_column: str = "text"
    streaming: bool = False
    seq_len: int = 128  # tokens per sequence, the BOS included
    prepend_bos: bool = True
    holdout_every: int = 20  # every 20th document is held out for evaluation
    seed: int = 0  # order of the sequences and of the activations in a chunk

    @property
    def first_position(self) -> int:
        """The first position of a sequence that holds text: BOS is neither trained on nor counted."""
        return 1 if self.prepend_bos else 0

    @property
    def globs(self) -> list[str]:
        """`files` as a list."""
        if self.files is None:
            return []
        return list(self.files) if isinstance(self.files, list) else [self.files]


@dataclass(kw_only=True)
class TrainingConfig:
    tokens: int = MISSING  # activations
    batch_size: int = MISSING  # activations per step
    lr: float = 3e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    warmup_steps: int = 0
    initial_bias: str = "zero"  # of the decoder: zero, or the mean of the first chunk's activations
    decay_fraction: float = 0.0  # the last part of training, over which lr falls linearly to zero
    dead_after_tokens: int = 20_480  # activations without firing after which a latent counts as dead
    precision: str = "float32"  # of the encoder's product: float32, tf32 (CUDA) or bfloat16
    chunk_batches: int = 32  # steps whose activations are shuffled together
    checkpoint_every: int = 1000  # steps
    log_every: int = 100  # steps
    keep_states: bool = True  # of a point that is done; if not, its SAE is what stays

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_size


@dataclass(kw_only=True)
class EvaluationConfig:
    tokens: int = 32_768  # held-out activations


@dataclass(kw_only=True)
class ActivationsConfig:
    cache: str | None = None  # a folder for the language model's activations, to be found there by later sweeps
    cache_gib: float = 50.0  # what the folder may hold


@dataclass(kw_only=True)
class TrackingConfig:
    mode: str = "offline"
    project: str = "sae-sweeps"
    entity: str | None = None
    artifacts: bool = False  # whether the SAEs are uploaded as well, as model artifacts


@dataclass(kw_only=True)
class TaskConfig:
    name: str = MISSING


@dataclass(kw_only=True)
class LimitsConfig:
    """What a command may take on; more is refused before anything is run or submitted. None: no limit."""

    points: int | None = 1000
    disk_gib: float | None = None  # of resumable states and SAEs, of the points that are not done
    gpu_hours: float | None = None


@dataclass(kw_only=True)
class Config:
    name: str = MISSING  # of the sweep: its folder is output_root/name
    output_root: str = "outputs"
    dict_size: int = MISSING  # latents
    k: int = MISSING  # active latents per activation (on average, except for TopK)
    seed: int = 0  # initialisation of the SAE
    device: str = "auto"
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    sae: SAEConfig = field(default_factory=SAEConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    activations: ActivationsConfig = field(default_factory=ActivationsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    stitch: StitchConfig = field(default_factory=StitchConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    then: list[str] = field(default_factory=list)  # tasks for the whole sweep, when its points are through
    format: str | None = None  # of task=report, export and publish; None: the first of its TaskEntry.formats
    explorer_mib: float = 10.0  # that the cards of latents take in a report
    # what studies are of; None: what their sweep has
    small: str | None = None
    large: str | None = None
    saved: str | None = None
    given: list[str] = field(default_factory=list)  # the settings that the command line of a study names


def get_setting(config: Config, setting: str) -> Any:
    """The value of a setting by its full name, e.g. training.lr."""
    return functools.reduce(getattr, setting.split("."), config)
