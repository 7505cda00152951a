"""The configuration: one dataclass per group of conf/, and the names of points.

Hydra composes conf/*.yaml and the command line over these schemas, so an unknown key or a wrong type is refused there;
values out of range are found by rules.py. Nothing here touches a file.
"""

import copy
import functools
import hashlib
import json
import operator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from sae_sweeps.runtime.devices import dtype_here
from sae_sweeps.runtime.provenance import PROJECT
from sae_sweeps.sae_config import SAE_SCHEMAS, JumpReLUConfig, PenaltyConfig, SAEConfig
from sae_sweeps.study_config import ExportConfig, LatentsConfig, MetaConfig, PublishConfig, StitchConfig
from sae_sweeps.wheels import MODELS

POINT_TASKS = ("train",)  # for each point
STUDY_TASKS = {  # of trained SAEs, which take a device; and the settings of each
    "stitch": ("stitch", "small", "large"),
    "meta_sae": ("meta", "latents", "saved"),
    "latents": ("latents", "saved"),
    "evaluate": ("evaluation", "saved"),
}
EXPORT_TASKS = ("export", "publish")  # of trained SAEs, whose files they rewrite
# for a sweep as a whole
SWEEP_TASKS = ("plan", "status", "report", "sync", "wandb_workspace", *EXPORT_TASKS, *STUDY_TASKS)
EXPORTS = ("sae_lens", "dictionary_learning", "sparsify", "saebench")
# the formats that a task has, its default first
FORMATS_OF = {"report": ("html", "md"), **dict.fromkeys(EXPORT_TASKS, EXPORTS)}
DECIDING = ["dict_size", "k", "seed", "model", "dataset", "sae", "training", "evaluation"]


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
    format: str | None = None  # of task=report, export and publish; None: the first of FORMATS_OF
    explorer_mib: float = 10.0  # that the cards of latents take in a report
    # what studies are of; None: what their sweep has
    small: str | None = None
    large: str | None = None
    saved: str | None = None
    given: list[str] = field(default_factory=list)  # the settings that the command line of a study names


# what a study takes from its SAEs' points, or from its command line if that names them
TEXT_SETTINGS = ("dataset", "evaluation", "model.batch_sequences", "model.dtype")


def study_settings(config: Config, task: str) -> dict[str, Any]:
    """What a command says of a study that it has run; nothing of a task that is none."""
    values, names = asdict(config), (*STUDY_TASKS.get(task, ()), *_given_of_text(config))
    return {name: functools.reduce(operator.getitem, name.split("."), values) for name in names}


def value_of(config: Config, setting: str) -> Any:
    """The value of a setting by its full name, e.g. training.lr."""
    return functools.reduce(getattr, setting.split("."), config)


def with_given(config: Config, command: Config) -> Config:
    """A point's configuration, but for the text that is read and for how the model is run what a command line names."""
    config = copy.deepcopy(config)
    for setting in _given_of_text(command):
        group, _, name = setting.rpartition(".")
        setattr(value_of(config, group) if group else config, name, value_of(command, setting))
    return config


def _given_of_text(command: Config) -> list[str]:
    return [setting for setting in command.given if setting.startswith(TEXT_SETTINGS)]


def point_name(cfg: DictConfig) -> str:
    """The folder name of a point: what a person wants to know, and a hash of all settings that decide its result."""
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, DECIDING), resolve=True)
    values["model"]["dtype"] = dtype_here(cfg.model.dtype, cfg.device)
    text = json.dumps(deciding(values), sort_keys=True)
    for place in (PROJECT, MODELS):  # the same wherever these lie
        text = text.replace(str(place), "")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cfg.sae.architecture}-{cfg.dict_size}-k{cfg.k}-seed{cfg.seed}-{digest}"


def deciding(values: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration as a dictionary, the settings that decide a point's result."""
    found = copy.deepcopy({name: values[name] for name in DECIDING})
    for neutral in ("checkpoint_every", "log_every", "keep_states"):
        found["training"].pop(neutral)
    if found["training"]["precision"] == "float32":
        found["training"].pop("precision")  # as it was before there was a choice
    # of the model's list of coefficients, only the one that is used decides anything
    found["model"].pop("aliases", None)
    listed = found["model"].pop("sparsity_coefficients")["values"]
    if "sparsity_coefficient" in found["sae"]:
        if found["sae"]["architecture"] != "jumprelu":
            listed = {}
        given = {name: found["sae"].pop(name, None) for name in ("sparsity_coefficient", "target_l0")}
        found["sae"] |= _sparsity(given["sparsity_coefficient"], given["target_l0"], listed.get(found["k"]), found["k"])
    return found


def _sparsity(coefficient: float | None, target_l0: float | None, listed: float | None, k: int) -> dict[str, float]:
    """Which of two settings decides how sparse it gets, and its value: what is given, then what is listed."""
    if target_l0 is not None:
        return {"target_l0": target_l0}
    coefficient = listed if coefficient is None else coefficient
    return {"target_l0": float(k)} if coefficient is None else {"sparsity_coefficient": coefficient}


def to_config(cfg: DictConfig) -> Config:
    """The composed configuration as dataclasses; `sae` is the schema of its architecture."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)  # Hydra's own part, which the schema does not describe
        cfg.model.dtype = dtype_here(cfg.model.dtype, cfg.device)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config), "conf/config.yaml starts from the schema"
    return config


def from_json(values: dict[str, Any]) -> Config:
    """The configuration that `dataclasses.asdict` took apart and a JSON file kept."""
    coefficients = values["model"]["sparsity_coefficients"]
    of_k = {int(k): value for k, value in coefficients["values"].items()}  # JSON's keys are strings
    model = {**values["model"], "sparsity_coefficients": {**coefficients, "values": of_k}}
    return _build(Config, {**values, "model": model})


def _build(schema: Any, values: dict[str, Any]) -> Any:
    """A dataclass and those in it. What is text stays text, whatever OmegaConf would read in it."""
    given = {}
    for field_ in fields(schema):
        if field_.name in values:
            value = values[field_.name]
            inner = SAE_SCHEMAS[value["architecture"]] if field_.name == "sae" else field_.type
            given[field_.name] = _build(inner, value) if is_dataclass(inner) else copy.copy(value)
    return schema(**given)


def sparsity(config: Config) -> tuple[dict[str, float], str]:
    """What an SAE with a penalty is to be given for a point that `problems` has passed, one of `sparsity_coefficient`
    and `target_l0`, and a sentence saying where it is from."""
    sae, listed = config.sae, config.model.sparsity_coefficients
    assert isinstance(sae, PenaltyConfig), "the others have neither"
    of_k = listed.values.get(config.k) if isinstance(sae, JumpReLUConfig) else None
    chosen = _sparsity(sae.sparsity_coefficient, sae.target_l0, of_k, config.k)
    ((name, value),) = chosen.items()
    source = f"sae.{name}={value:g}, "
    if name == "target_l0":
        chosen_for = f"for k={config.k}: no sae.sparsity_coefficient is given"
        chosen_for += " or listed by the model's configuration" if isinstance(sae, JumpReLUConfig) else ""
        source += chosen_for if sae.target_l0 is None else "as given"
    elif sae.sparsity_coefficient is not None:
        source += "as given"
    else:
        source += f"listed for k={config.k} by the model's configuration"
        if (listed.name, listed.hook) != (config.model.name, config.model.hook):
            source += f"; it was found for {listed.name} at {listed.hook}, so check the l0 that it gives here"
    return chosen, source
