"""The configuration: one dataclass per group of conf/, and the rules its values must keep.

Hydra composes conf/*.yaml and the command line over these schemas, so an unknown key or a wrong type is refused
there; `problems` finds values out of range and values that contradict each other. Nothing here touches a file.
"""

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from sae_sweeps.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent

DTYPES = ("float32", "bfloat16", "float16")
FORMATS = ("hub", "json", "parquet", "text")
INITIAL_BIASES = ("zero", "mean")
PRECISIONS = ("float32", "tf32", "bfloat16")
TASKS = ("train",)
DECIDING = ["dict_size", "k", "seed", "model", "dataset", "sae", "training", "evaluation"]
TRACKING_MODES = ("offline", "online", "off")


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
    dtype: str = "float32"
    batch_sequences: int = 32  # token sequences per forward pass
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
class JumpReLUConfig(SAEConfig):
    sparsity_coefficient: float | None = None  # null: the model's entry for k
    bandwidth: float = 0.001  # of the rectangle kernel, in units of the pre-activation
    initial_threshold: float = 1.5  # in standard deviations of the untrained pre-activations


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


@dataclass(kw_only=True)
class TaskConfig:
    name: str = MISSING


@dataclass(kw_only=True)
class Config:
    name: str = MISSING  # of the sweep: its folder is output_root/name
    output_root: str = "outputs"
    dict_size: int = MISSING  # latents
    k: int = MISSING  # active latents per activation (BatchTopK, JumpReLU: on average)
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


SAE_SCHEMAS: dict[str, type[SAEConfig]] = {
    "batchtopk": BatchTopKConfig,
    "topk": TopKConfig,
    "jumprelu": JumpReLUConfig,
}


def register() -> None:
    """Make the schemas and the resolvers known to Hydra. Called once, before it composes."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for architecture, schema in SAE_SCHEMAS.items():
        store.store(group="schema/sae", name=architecture, node=schema)
    OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)
    OmegaConf.register_new_resolver("point", lambda *, _root_: point_name(_root_), replace=True)


def point_name(cfg: DictConfig) -> str:
    """The folder name of a point: what a person wants to know, and a hash of all settings that decide its result."""
    deciding: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, DECIDING), resolve=True)
    for neutral in ("checkpoint_every", "log_every"):
        deciding["training"].pop(neutral)
    if deciding["training"]["precision"] == "float32":
        deciding["training"].pop("precision")  # as it was before there was a choice
    # of the model's list of coefficients, only the one that is used decides anything
    listed = deciding["model"].pop("sparsity_coefficients")["values"]
    if deciding["sae"].get("sparsity_coefficient", 0) is None:
        deciding["sae"]["sparsity_coefficient"] = listed.get(cfg.k)
    text = json.dumps(deciding, sort_keys=True).replace(str(PROJECT), "")  # the same wherever the project lies
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cfg.sae.architecture}-{cfg.dict_size}-k{cfg.k}-seed{cfg.seed}-{digest}"


def to_config(cfg: DictConfig) -> Config:
    """The composed configuration as dataclasses; `sae` is the schema of its architecture."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)  # Hydra's own part, which the schema does not describe
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config), "conf/config.yaml starts from the schema"
    return config


def problems(config: Config) -> list[ConfigError]:
    """Every value that cannot work, each with its fix; empty if there is none."""
    found: list[ConfigError] = []

    def require(setting: str, holds: bool, problem: str, fix: str) -> None:
        if not holds:
            found.append(ConfigError(setting, value_of(config, setting), problem, fix))

    def require_positive(*settings: str) -> None:
        for setting in settings:
            holds = 0 < value_of(config, setting) < math.inf  # false for nan as well
            require(setting, holds, "must be greater than 0", f"give {setting} a positive number")

    def require_one_of(setting: str, choices: tuple[str, ...]) -> None:
        known = value_of(config, setting) in choices
        require(setting, known, f"must be one of {', '.join(choices)}", f"{setting}={choices[0]}")

    dict_size, k, sae = config.dict_size, config.k, config.sae
    require_positive("dict_size", "k")
    too_many = 0 < dict_size < k
    require("k", not too_many, f"is larger than dict_size={dict_size}", "lower k or raise dict_size")
    require("seed", config.seed >= 0, "must be at least 0", "seed=0")
    plain = bool(config.name) and config.name not in (".", "..") and "/" not in config.name
    require("name", plain, "must be a plain folder name", "name=my-sweep")
    require_one_of("task.name", TASKS)
    require("model.name", bool(config.model.name), "is empty", "model.name=FOLDER, or a name on the hub")
    require_positive("model.batch_sequences", "evaluation.tokens", "activations.cache_gib")
    require_one_of("model.dtype", DTYPES)
    require_one_of("tracking.mode", TRACKING_MODES)

    data = config.dataset
    require_one_of("dataset.format", FORMATS)
    require("dataset.seq_len", data.seq_len >= 3, "must be at least 3 tokens", "dataset.seq_len=128")
    leaves_some = data.holdout_every >= 2
    require("dataset.holdout_every", leaves_some, "would leave no document to train on", "dataset.holdout_every=20")
    if data.format == "hub":
        require("dataset.name", bool(data.name), "is needed for format hub", "dataset.name=NAME")
    else:
        paths = bool(data.globs) and all(isinstance(glob, str) and glob for glob in data.globs)
        require("dataset.files", paths, "must be a path or a glob, or a list of them", "'dataset.files=texts/*.txt'")

    training = config.training
    require_positive("training.tokens", "training.batch_size", "training.lr", "training.dead_after_tokens")
    require_positive("training.chunk_batches", "training.checkpoint_every", "training.log_every")
    require(
        "activations.cache", config.activations.cache != "", "is empty", "activations.cache=FOLDER, or null for none"
    )
    require_one_of("training.initial_bias", INITIAL_BIASES)
    require_one_of("training.precision", PRECISIONS)
    less = 0 < training.tokens < training.batch_size
    fix = "raise it or lower the batch size"
    require("training.tokens", not less, f"is less than one batch of training.batch_size={training.batch_size}", fix)
    betas = len(training.betas) == 2 and all(0 <= beta < 1 for beta in training.betas)
    require("training.betas", betas, "must be two numbers in [0, 1)", "training.betas=[0.9,0.99]")
    require("training.warmup_steps", training.warmup_steps >= 0, "must be at least 0", "training.warmup_steps=0")
    decay = 0 <= training.decay_fraction <= 1
    require("training.decay_fraction", decay, "must be in [0, 1]", "training.decay_fraction=0.2")

    if isinstance(sae, TopKConfig):
        require_positive("sae.aux_latents")
        require("sae.aux_coefficient", 0 <= sae.aux_coefficient < math.inf, "must be at least 0", "use 0 for none")
    if isinstance(sae, BatchTopKConfig):
        momentum = 0 <= sae.threshold_momentum < 1
        require("sae.threshold_momentum", momentum, "must be in [0, 1)", "sae.threshold_momentum=0.99")
    if isinstance(sae, JumpReLUConfig):
        require_positive("sae.bandwidth", "sae.initial_threshold")
        listed = config.model.sparsity_coefficients.values
        if sae.sparsity_coefficient is not None:
            finite = 0 <= sae.sparsity_coefficient < math.inf
            require("sae.sparsity_coefficient", finite, "must be at least 0", "sae.sparsity_coefficient=0.001")
        elif k > 0:
            known = ", ".join(f"k={k}: {value:g}" for k, value in sorted(listed.items())) or "none"
            problem = f"the model lists no JumpReLU coefficient for it (listed: {known})"
            require("k", k in listed, problem, "choose a listed k or set sae.sparsity_coefficient")
    return found


def value_of(config: Config, setting: str) -> Any:
    """The value of a setting by its full name, e.g. training.lr."""
    return functools.reduce(getattr, setting.split("."), config)


def sparsity_coefficient(config: Config) -> tuple[float, str]:
    """The JumpReLU coefficient of a point that `problems` has passed, and a sentence saying where it is from."""
    assert isinstance(config.sae, JumpReLUConfig), "only JumpReLU has a sparsity coefficient"
    if config.sae.sparsity_coefficient is not None:
        value = config.sae.sparsity_coefficient
        return value, f"sae.sparsity_coefficient={value:g}, as given"
    listed = config.model.sparsity_coefficients
    value = listed.values[config.k]
    source = f"sae.sparsity_coefficient={value:g}, listed for k={config.k} by the model's configuration"
    if (listed.name, listed.hook) != (config.model.name, config.model.hook):
        source += f"; it was found for {listed.name} at {listed.hook}, so check the l0 that it gives here"
    return value, source
