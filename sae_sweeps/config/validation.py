"""The rules that the values of a configuration must keep: what is out of range, and what contradicts itself."""

import math
import re

from sae_sweeps.config.schema import Config, get_setting
from sae_sweeps.config.tasks import EXPORT_TASKS, POINT_TASKS, STUDY_TASKS, SWEEP_TASKS, TASKS
from sae_sweeps.runtime.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16", "auto")  # which is settled before this is asked
FORMATS = ("hub", "json", "parquet", "text")
INITIAL_BIASES = ("zero", "mean")
PRECISIONS = ("float32", "tf32", "bfloat16")
FOLLOW_UPS = (*STUDY_TASKS, "report")  # of these, what can come when the points are through
TRACKING_MODES = ("offline", "online", "off")


def find_problems(config: Config) -> list[ConfigError]:
    """Every value that cannot work, each with its fix; empty if there is none."""
    found: list[ConfigError] = []

    def require(setting: str, holds: bool, problem: str, fix: str) -> None:
        if not holds:
            found.append(ConfigError(setting, get_setting(config, setting), problem, fix))

    def require_positive(*settings: str) -> None:
        for setting in settings:
            holds = 0 < get_setting(config, setting) < math.inf  # false for nan as well
            require(setting, holds, "must be greater than 0", f"give {setting} a positive number")

    def require_one_of(setting: str, choices: tuple[str, ...]) -> None:
        known = get_setting(config, setting) in choices
        require(setting, known, f"must be one of {', '.join(choices)}", f"{setting}={choices[0]}")

    dict_size, k = config.dict_size, config.k
    require_positive("dict_size", "k")
    too_many = 0 < dict_size < k
    require("k", not too_many, f"is larger than dict_size={dict_size}", "lower k or raise dict_size")
    require("seed", config.seed >= 0, "must be at least 0", "seed=0")
    plain = bool(config.name) and config.name not in (".", "..") and "/" not in config.name
    require("name", plain, "must be a plain folder name", "name=my-sweep")
    require_one_of("task.name", POINT_TASKS + SWEEP_TASKS)
    unknown = sorted(set(config.then) - set(FOLLOW_UPS))
    fix = f"then=[report], or any of {', '.join(FOLLOW_UPS)}"
    require("then", not unknown, f"there is no such task to follow: {', '.join(unknown)}", fix)
    for limit in ("limits.points", "limits.disk_gib", "limits.gpu_hours"):
        value = get_setting(config, limit)
        require(limit, value is None or value > 0, "must be greater than 0, or null for no limit", f"{limit}=null")
    require("model.name", bool(config.model.name), "is empty", "model.name=FOLDER, or a name on the hub")
    require_positive("model.batch_sequences", "evaluation.tokens", "activations.cache_gib")
    require_one_of("model.dtype", DTYPES)
    require_one_of("tracking.mode", TRACKING_MODES)
    task = TASKS.get(config.task.name)
    if config.format is not None and task is not None and task.formats:
        require_one_of("format", task.formats)
    require("export.folder", config.export.folder != "", "is empty", "export.folder=FOLDER, or leave it out")
    if config.task.name == "publish":
        repo = re.fullmatch(r"[\w.-]+/[\w.-]+", config.publish.repo or "") is not None
        require("publish.repo", repo, "is not OWNER/NAME of a repository on the hub", "publish.repo=OWNER/NAME")
    require_positive("explorer_mib")

    found += _of_studies(config)

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

    for problem in config.sae.find_problems(dict_size, k):
        require(f"sae.{problem.setting}", False, problem.problem, problem.fix)
    return found


def _of_studies(config: Config) -> list[ConfigError]:
    """What is wrong with the settings of the studies."""
    found: list[ConfigError] = []

    def require(setting: str, holds: bool, problem: str, fix: str) -> None:
        if not holds:
            found.append(ConfigError(setting, get_setting(config, setting), problem, fix))

    def require_at_least(least: int, *settings: str) -> None:
        for setting in settings:
            value = get_setting(config, setting)
            require(setting, value is None or value >= least, f"must be at least {least}", f"{setting}={least}")

    stitch, meta = config.stitch, config.meta
    require("stitch.threshold", 0 < stitch.threshold <= 1, "must be a cosine in (0, 1]", "stitch.threshold=0.7")
    cosines = bool(stitch.thresholds) and all(0 < threshold <= 1 for threshold in stitch.thresholds)
    require("stitch.thresholds", cosines, "must be cosines in (0, 1]", "'stitch.thresholds=[0.5,0.7,0.9]'")
    require_at_least(1, "stitch.tokens", "stitch.ce_tokens", "stitch.positions", "latents.tokens")
    require_at_least(2, "stitch.ce_positions")
    require_at_least(0, "stitch.seed", "meta.seed", "latents.before", "latents.after")
    require_at_least(1, "meta.dict_size", "meta.k", "meta.steps", "meta.batch_size", "meta.checkpoint_every")
    require_at_least(1, "latents.examples", "latents.promoted")
    require("meta.lr", 0 < meta.lr < math.inf, "must be greater than 0", "meta.lr=0.004")
    too_many = meta.dict_size is not None and 0 < meta.dict_size < meta.k
    require("meta.k", not too_many, f"is larger than meta.dict_size={meta.dict_size}", "lower meta.k")
    for tasks, settings in (
        (("stitch",), ("small", "large")),
        (("meta_sae", "latents", "evaluate", *EXPORT_TASKS), ("saved",)),
    ):
        used = config.task.name in tasks
        for setting in settings:
            problem = f"names an SAE for task={' or task='.join(tasks)}, and the task is {config.task.name}"
            require(setting, used or get_setting(config, setting) is None, problem, f"task={tasks[0]}, or leave it out")
    both = config.task.name != "stitch" or (config.small is None) == (config.large is None)
    alone, other = ("small", "large") if config.large is None else ("large", "small")
    require(alone, both, f"is given without {other}", f"give {other}=FOLDER as well")
    return found
