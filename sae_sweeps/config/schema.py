"""The settings: one dataclass per group of conf/, with the meaning, unit and default of each setting.

Hydra composes the files of conf/ and the command line over these dataclasses, and refuses unknown settings and wrong
types. validation.py finds values out of range. A file in conf/ has only the settings for which it chooses a value; all
other defaults are here. The command line writes None as null. MISSING: no default; a file in conf/ or the caller must
give the value.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sae_sweeps.config.halving import HalvingConfig
from sae_sweeps.config.neuronpedia import NeuronpediaConfig
from sae_sweeps.config.saebench import SAEBenchConfig
from sae_sweeps.config.saes import SAEConfig
from sae_sweeps.config.studies import (
    ExportConfig,
    LatentsConfig,
    MetaConfig,
    ProbeConfig,
    PublishConfig,
    RemoveConfig,
    ScalingConfig,
    SteerConfig,
    StitchConfig,
)
from sae_sweeps.config.synthetic import SYNTHETIC, SyntheticConfig
from sae_sweeps.runtime.inputs import check_names

LR_SIZE = 2**14  # latents of an SAE whose learning rate is `training.base_lr`
STEPS_LR = 0.093  # training.base_lr=null is this by the root of the number of steps,
MOST_STEPS_LR = 5.2e-3  # and at most this
GPU_TOKENS = 2**14  # tokens in a forward pass on a GPU, which fewer would not keep busy


@dataclass(kw_only=True)
class CoefficientsConfig:
    """JumpReLU sparsity coefficients of one language model, and the L0 that a trained SAE has with each of them."""

    name: str | None = None  # language model for which the coefficients were found
    hook: str | None = None  # TransformerLens hook at which the coefficients were found
    values: dict[int, float] = field(default_factory=dict)  # k -> sparsity coefficient that gives an L0 of k
    # settings of `sae` with which the coefficients were found. A point with one of the coefficients has them as well,
    # unless its command gives others. None: the default of sae=jumprelu
    penalty_window: str | None = None
    threshold_parameter: str | None = None
    absolute_threshold: float | None = None
    bandwidth: float | None = None


@check_names
@dataclass(kw_only=True)
class ModelConfig:
    """The language model, and the hook whose activations SAEs are trained on."""

    name: str = MISSING  # folder in Hugging Face format, or name on the Hugging Face hub
    # TransformerLens hook with the model's width, in layer L: blocks.L.hook_resid_pre, hook_resid_mid, hook_resid_post,
    # hook_attn_out or hook_mlp_out. Parallel blocks (Pythia, GPT-J, ...) have no hook_resid_mid
    hook: str = MISSING
    dtype: str = "float32"  # float32, bfloat16, float16, or auto: bfloat16 if the hardware computes in it, else float32
    # token sequences per forward pass; None: on a CPU 32, unless the model's file has another number; on a GPU as many
    # as have 16384 tokens. Names of points do not show the difference
    batch_sequences: int | None = None
    cpu_sequences: int = 32  # what `batch_sequences` is on a CPU if it is None; names of points have this number then
    # what computes the activations that SAEs are trained on: transformer_lens; transformers, which is faster and equal
    # but for rounding (a hook at which both differ by more is read with transformer_lens); auto: transformers on a GPU,
    # transformer_lens on a CPU. Evaluation always runs transformer_lens
    reader: str = "auto"
    aliases: list[str] = field(default_factory=list)  # other names of the model in SAE files
    sparsity_coefficients: CoefficientsConfig = field(default_factory=CoefficientsConfig)

    def sequences_per_pass(self, device: str, seq_len: int) -> int:
        """Return how many sequences of `seq_len` tokens a forward pass takes on a type of device, such as "cpu"."""
        if self.batch_sequences is not None:
            return self.batch_sequences
        return self.cpu_sequences if device == "cpu" else max(1, GPU_TOKENS // seq_len)


@check_names
@dataclass(kw_only=True)
class DatasetConfig:
    """The documents, and how they are split into token sequences."""

    # hub, json (JSON lines), parquet or text (one document per file); synthetic: no text, but what `synthetic` says
    format: str = MISSING
    name: str | None = None  # data set on the hub; only for format hub
    subset: str | None = None  # configuration of the data set on the hub; None: its default
    split: str = "train"  # split of the data set on the hub
    files: Any = None  # path or glob, or a list of them, for all formats but hub; a path that exists is never a glob
    text_column: str = "text"  # column with the text of a document; not for format text
    streaming: bool = False  # read the text as needed and in its own order, instead of tokenizing all of it first
    seq_len: int = 128  # tokens per sequence, including BOS
    prepend_bos: bool = True  # start each sequence with a BOS token, which is neither trained on nor counted
    # where prepend_bos puts BOS tokens: sequence, or document: at the start of each document, wherever that falls in a
    # sequence, in place of the end-of-text token after each. Such a BOS counts as `exclude` says: the papers' code has
    # document, with exclude=none
    bos: str = "sequence"
    # tokens whose positions are neither trained on, nor counted, nor replaced, wherever they are: special (BOS, the
    # token between documents, padding and the tokenizer's other special tokens, but not one for unknown text), none
    # (only the BOS of prepend_bos is left out), or a list of ids and tokens, such as [0,Ċ]
    exclude: Any = "special"
    holdout_every: int = 20  # one of this many documents is held out for evaluation; of a single document, its end
    seed: int = 0  # random seed for the order of the sequences and of the activations within a chunk
    # longest wait for a text that the network interrupts, in seconds; 0: no wait. The text is then read on at the same
    # row; after the wait all points are saved and the command fails. Changes no result
    retry_seconds: float = 300.0

    @property
    def is_synthetic(self) -> bool:
        """Return whether activations come from a planted dictionary, without a language model and text."""
        return self.format == SYNTHETIC

    @property
    def first_position(self) -> int:
        """Return the index of the first token of a sequence that is used: BOS is neither trained on nor evaluated."""
        return 1 if self.prepend_bos and not self.has_bos_per_document else 0

    @property
    def has_bos_per_document(self) -> bool:
        """Return whether each document starts with a BOS token, and not each sequence."""
        return self.prepend_bos and self.bos == "document"

    @property
    def excluded_tokens(self) -> list[int | str]:
        """Return the ids and tokens that `exclude` lists; an empty list for special and none."""
        if self.exclude in ("special", "none", None):
            return []
        return list(self.exclude) if isinstance(self.exclude, list) else [self.exclude]

    @property
    def globs(self) -> list[str]:
        """Return the paths and globs in `files` as a list; an empty list for None."""
        if self.files is None:
            return []
        return list(self.files) if isinstance(self.files, list) else [self.files]


@check_names
@dataclass(kw_only=True)
class TrainingConfig:
    """SAE training. The optimizer's defaults are those of arXiv:2412.06410 and arXiv:2502.04878."""

    tokens: int = MISSING  # activations to train on
    batch_size: int = MISSING  # activations per step
    lr: float | None = 3e-4  # learning rate of Adam at its peak; None: the one that base_lr gives the SAE's size
    # without an lr: the learning rate at its peak is base_lr * sqrt(16384 / dict_size), so base_lr is that of 16384
    # latents. The default is that of dictionary_learning and of eai-sparsify's Adam. null: 0.093 / sqrt(steps), at
    # most 5.2e-3, which suits a rate that falls to zero over all steps
    base_lr: float | None = 2e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])  # Adam's decay rates of the first and second moment
    warmup_steps: int = 0  # number of first steps, over which the learning rate rises linearly
    # initial decoder bias: zero, or mean (mean of the first chunk; fewer dead latents). zero draws a warning where the
    # norm of this mean is larger than the spread, the root of the mean of |x - mean|²
    initial_bias: str = "zero"
    # initial weights: random, or data: decoder rows are the directions of activations of the first chunk, and encoder
    # rows the filters that find them, which saves the steps that learn this. data needs initial_bias=mean
    initial_weights: str = "random"
    decay_fraction: float = 0.0  # fraction of the steps at the end, over which the learning rate falls linearly to 0
    dead_after_tokens: int = 20_480  # a latent that has not fired for this many activations is dead
    # JumpReLU: factor on the threshold of a latent that is dead, after each step, until the latent fires again; 1: none
    dead_threshold_factor: float = 1.0
    # whether the activations of dead_after_tokens include the batch of the step, as in the code of arXiv:2412.06410;
    # false: only the batches before it
    dead_counts_batch: bool = False
    # whether the auxiliary loss is also differentiated by the residual, as in the code of arXiv:2412.06410; false: the
    # residual is a constant (arXiv:2406.04093, appendix A.2)
    aux_residual_gradient: bool = False
    # whether decoder rows are scaled to unit norm before an update, as in the code of arXiv:2412.06410, which leaves
    # their norms near 1 in the next step; false: after it
    normalize_before_update: bool = False
    # precision of the encoder's product, which only finds candidates: float32, bfloat16, tf32 (CUDA only), or auto:
    # bfloat16 where the device has instructions for it. It changes the time of a step, never its result
    precision: str = "auto"
    chunk_batches: int = 32  # batches per chunk; activations are shuffled within a chunk
    checkpoint_every: int = 1000  # steps between checkpoints
    log_every: int = 100  # steps between rows of the training curve
    keep_states: bool = True  # keep a finished point's checkpoints; false: keep only its SAE

    @property
    def steps(self) -> int:
        """Return the number of training steps. An incomplete last batch is not trained on."""
        return self.tokens // self.batch_size

    def peak_lr(self, dict_size: int) -> float:
        """Return the learning rate at its peak of an SAE of `dict_size` latents: `lr`, or `base_lr` for that size."""
        if self.lr is not None:
            return self.lr
        base = min(STEPS_LR / self.steps**0.5, MOST_STEPS_LR) if self.base_lr is None else self.base_lr
        return base * (LR_SIZE / dict_size) ** 0.5


@dataclass(kw_only=True)
class EvaluationConfig:
    """The evaluation of a trained SAE."""

    tokens: int = 32_768  # number of held-out activations to evaluate on


@dataclass(kw_only=True)
class ActivationsConfig:
    """The cache of language-model activations on disk."""

    cache: str | None = None  # folder that keeps activations for later sweeps; None: no cache
    cache_gib: float = 50.0  # size limit of the cache folder, in GiB


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases (W&B)."""

    # online (sent during training; an outage delays nothing), offline (files for a later task=sync) or off;
    # tracking=off is short for it
    mode: str = "offline"
    project: str = "sae-sweeps"  # W&B project
    entity: str | None = None  # W&B user or team; None: the default of the account
    artifacts: bool = False  # also upload each SAE as a model artifact
    tags: list[str] = field(default_factory=list)  # tags of every run of the command, of at most 64 characters each
    notes: str | None = None  # a text beside every run of the command


@dataclass(kw_only=True)
class TaskConfig:
    """The task that the command runs, for example train or report."""

    name: str = MISSING  # a key of tasks.TASKS


@dataclass(kw_only=True)
class LimitsConfig:
    """Upper limits for one command, which is refused if it exceeds one of them. None: no limit."""

    points: int | None = 1000  # number of points in the sweep
    disk_gib: float | None = None  # size of the checkpoints and SAEs of the unfinished points, in GiB
    gpu_hours: float | None = None  # estimated GPU time, in hours


@dataclass(kw_only=True)
class Config:
    """All settings of one point (one SAE of a sweep), or of one command on a whole sweep."""

    # name of the sweep; the same name again resumes the sweep in output_root/name. task=report: several, with commas
    name: str = MISSING
    output_root: str = "outputs"  # folder of all sweeps
    dict_size: int = MISSING  # number of latents
    k: int = MISSING  # active latents per activation; an average, except for TopK
    seed: int = 0  # random seed for the initialisation of the SAE; dataset.seed is for the order of the data
    device: str = "auto"  # auto (CUDA if there is a GPU, else cpu), cpu, cuda or cuda:N
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    sae: SAEConfig = field(default_factory=SAEConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    activations: ActivationsConfig = field(default_factory=ActivationsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    stitch: StitchConfig = field(default_factory=StitchConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    steer: SteerConfig = field(default_factory=SteerConfig)
    saebench: SAEBenchConfig = field(default_factory=SAEBenchConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    neuronpedia: NeuronpediaConfig = field(default_factory=NeuronpediaConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    remove: RemoveConfig = field(default_factory=RemoveConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    # tasks to run when all points are done, studies before the report: stitch, join, meta_sae, meta_sizes, latents,
    # evaluate, saebench, probe and report
    then: list[str] = field(default_factory=list)
    # combinations of values that a sweep (-m) leaves out: a list of {setting: value, or list of values}. A point that
    # has one of the values of every setting of an entry is left out. Names of points do not show it
    leave_out: list[dict[str, Any]] = field(default_factory=list)
    # metric of results.json, or a list of metrics, such as nmse or [nmse,l0], that the sweeper gets of each finished
    # point. Sweepers that propose points from results (hydra/sweeper=optuna) need it; hydra/sweeper=halving compares
    # points by it, by nmse_at_k without one. Names of points do not show it
    objective: Any = None
    # output format. task=report: html, or md (a Markdown table, printed); task=export and task=publish: sae_lens,
    # dictionary_learning, sparsify or saebench, and task=export neuronpedia; None: html or sae_lens
    format: str | None = None
    explorer_mib: float = 10.0  # size limit of the latents' examples in report.html, in MiB
    # the SAE of a task on SAEs, of this project or another library: FOLDER or FORMAT:FOLDER, local or on the hub;
    # FORMAT: sae_lens, gemma_scope, dictionary_learning or sparsify. sae=FOLDER is short for it. None: all SAEs of the
    # sweep (task=meta_sae: the largest of each architecture and k). Not for task=stitch
    saved: str | None = None
    # task=stitch: the smaller SAE, as `saved`; None: all pairs of neighbouring sizes in the sweep, else equal settings
    small: str | None = None
    large: str | None = None  # task=stitch: the larger SAE
    given: list[str] = field(default_factory=list)  # set by the program: the settings that a study's command line names


def get_setting(config: Config, setting: str) -> Any:
    """Return the value of the setting with a full name, for example training.lr."""
    return functools.reduce(getattr, setting.split("."), config)
