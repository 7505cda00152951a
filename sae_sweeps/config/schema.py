"""The settings: one dataclass per group of conf/, with the meaning, unit and default of each setting.

Hydra composes the files of conf/ and the command line over these dataclasses, and refuses unknown settings and wrong
types. Values out of range are found by validation.py. A file in conf/ holds only what it chooses; all other defaults
stand here. The command line writes None as null. MISSING: no default; a file in conf/ or the caller gives the value.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sae_sweeps.config.saes import SAEConfig
from sae_sweeps.config.studies import ExportConfig, LatentsConfig, MetaConfig, PublishConfig, StitchConfig


@dataclass(kw_only=True)
class CoefficientsConfig:
    """JumpReLU sparsity coefficients with a known L0."""

    name: str | None = None  # the model they were found for
    hook: str | None = None  # the hook they were found for
    values: dict[int, float] = field(default_factory=dict)  # k -> sparsity coefficient that gives an L0 of k


@dataclass(kw_only=True)
class ModelConfig:
    """The language model and the place in it that SAEs are trained on."""

    name: str = MISSING  # folder in Hugging Face format, or name on the Hugging Face hub
    hook: str = MISSING  # TransformerLens hook name, for example blocks.8.hook_resid_pre
    dtype: str = "float32"  # float32, bfloat16, float16, or auto: bfloat16 if the hardware computes in it, else float32
    batch_sequences: int = 32  # token sequences per forward pass
    aliases: list[str] = field(default_factory=list)  # other names of the model in the SAE files of other libraries
    sparsity_coefficients: CoefficientsConfig = field(default_factory=CoefficientsConfig)


@dataclass(kw_only=True)
class DatasetConfig:
    """The text, and how it becomes token sequences."""

    format: str = MISSING  # hub, json (JSON lines), parquet or text (one document per file)
    name: str | None = None  # data set on the hub; only for format hub
    subset: str | None = None  # configuration of the data set on the hub; None: its default
    split: str = "train"  # split of the data set on the hub
    files: Any = None  # path or glob, or a list of them; for all formats but hub
    text_column: str = "text"  # column that holds a document's text
    streaming: bool = False  # read the data set from the hub as needed instead of downloading it first
    seq_len: int = 128  # tokens per sequence, including BOS
    prepend_bos: bool = True  # start each sequence with a BOS token
    holdout_every: int = 20  # of every so many documents, one is held out for evaluation
    seed: int = 0  # order of the sequences, and of the activations within a chunk

    @property
    def first_position(self) -> int:
        """Return the first position of a sequence that counts: BOS is neither trained on nor evaluated."""
        return 1 if self.prepend_bos else 0

    @property
    def globs(self) -> list[str]:
        """Return `files` as a list."""
        if self.files is None:
            return []
        return list(self.files) if isinstance(self.files, list) else [self.files]


@dataclass(kw_only=True)
class TrainingConfig:
    """How SAEs are trained. The optimizer's defaults are the papers' (arXiv:2412.06410, arXiv:2502.04878)."""

    tokens: int = MISSING  # activations to train on
    batch_size: int = MISSING  # activations per step
    lr: float = 3e-4  # learning rate at its peak
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])  # Adam's decay rates of both moments
    warmup_steps: int = 0  # first steps, over which the learning rate rises linearly
    initial_bias: str = "zero"  # of the decoder: zero, or mean (of the first chunk's activations; fewer dead latents)
    decay_fraction: float = 0.0  # last fraction of the steps, over which the learning rate falls linearly to zero
    dead_after_tokens: int = 20_480  # activations without firing after which a latent counts as dead
    precision: str = "float32"  # of the encoder matmul: float32, bfloat16, or tf32 (CUDA only)
    chunk_batches: int = 32  # batches per chunk; activations are shuffled within a chunk
    checkpoint_every: int = 1000  # steps between checkpoints
    log_every: int = 100  # steps between rows of the training curve
    keep_states: bool = True  # keep a finished point's checkpoints; false: keep only its SAE

    @property
    def steps(self) -> int:
        """Return the number of training steps: full batches only."""
        return self.tokens // self.batch_size


@dataclass(kw_only=True)
class EvaluationConfig:
    """What the evaluation of a trained SAE uses."""

    tokens: int = 32_768  # held-out activations


@dataclass(kw_only=True)
class ActivationsConfig:
    """The cache of language-model activations on disk."""

    cache: str | None = None  # folder that keeps activations for later sweeps; None: no cache
    cache_gib: float = 50.0  # size limit of that folder, in GiB


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases."""

    mode: str = "offline"  # online, offline (files for a later task=sync) or off
    project: str = "sae-sweeps"  # W&B project
    entity: str | None = None  # W&B user or team; None: the default of the account
    artifacts: bool = False  # also upload each SAE as a model artifact


@dataclass(kw_only=True)
class TaskConfig:
    """What launch.py does."""

    name: str = MISSING  # a key of tasks.TASKS


@dataclass(kw_only=True)
class LimitsConfig:
    """The most that one command may take; a larger one is refused before anything runs. None: no limit."""

    points: int | None = 1000  # points in the sweep
    disk_gib: float | None = None  # checkpoints and SAEs of the points that are not done, in GiB
    gpu_hours: float | None = None  # estimated hours on a GPU


@dataclass(kw_only=True)
class Config:
    """The configuration of one point, or of one command on a sweep."""

    name: str = MISSING  # of the sweep; the same name again resumes it. Its folder is output_root/name
    output_root: str = "outputs"  # folder of all sweeps
    dict_size: int = MISSING  # latents
    k: int = MISSING  # active latents per activation; an average, except for TopK
    seed: int = 0  # initialisation of the SAE; dataset.seed sets the order of the data
    device: str = "auto"  # auto (CUDA if there is a GPU, else cpu), cpu, cuda or cuda:N
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
    # tasks to run when all points are done: any of stitch, meta_sae, latents, evaluate, report
    then: list[str] = field(default_factory=list)
    # of task=report: html, or md (a Markdown table, printed); of task=export and task=publish: sae_lens,
    # dictionary_learning, sparsify or saebench; None: the first of these
    format: str | None = None
    explorer_mib: float = 10.0  # MiB for the cards of latents in report.html; more shows more SAEs and examples
    # SAEs for studies, export and publish, from here or from others: FOLDER or FORMAT:FOLDER, local or on the hub, with
    # FORMAT sae_lens, gemma_scope, dictionary_learning or sparsify. None: the SAEs of the sweep `name`
    small: str | None = None  # task=stitch: the smaller SAE; None: all neighbouring sizes that agree in all else
    large: str | None = None  # task=stitch: the larger SAE
    saved: str | None = None  # other tasks: the SAE, also written sae=FOLDER; None: all (task=meta_sae: the largest)
    given: list[str] = field(default_factory=list)  # set by launch.py: the settings that a study's command line names


def get_setting(config: Config, setting: str) -> Any:
    """Return the value of a setting by its full name, for example training.lr."""
    return functools.reduce(getattr, setting.split("."), config)
