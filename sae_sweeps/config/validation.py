"""Checks the values of a configuration: ranges of single settings, and combinations of settings."""

import math
import re

from sae_sweeps.config.checks import Checks
from sae_sweeps.config.conversion import PATHS
from sae_sweeps.config.names import NAME_FIX, WANDB_TAG_LETTERS, find_names_problem, find_project_problem
from sae_sweeps.config.neuronpedia import FORMAT as NEURONPEDIA
from sae_sweeps.config.schema import Config, get_setting
from sae_sweeps.config.studies import parse_changes
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.config.tasks import EXPORT_TASKS, POINT_TASKS, STUDY_TASKS, SWEEP_TASKS, TASKS, WITHOUT_MODEL
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import PATH_FIX, find_path_problem

READERS = ("auto", "transformer_lens", "transformers")
DTYPES = ("float32", "bfloat16", "float16", "auto")  # a composed configuration no longer has "auto"
FORMATS = ("hub", "json", "parquet", "text", SYNTHETIC)
INITIAL_BIASES = ("zero", "mean")
INITIAL_WEIGHTS = ("random", "data")
POSITIONS = ("all", "last")  # of a prompt
PENALTIES = ("l1", "l2")  # of a classifier
BOS_PLACES = ("sequence", "document")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
# tasks that can run when all points are done; steer cannot, as it names latents of an SAE
FOLLOW_UPS = (*(task for task in STUDY_TASKS if task != "steer"), "report")
REMOVABLE = ("failed", "interrupted", "waiting", "pruned")  # states of points that task=remove may remove
TRACKING_MODES = ("offline", "online", "off")


def find_problems(config: Config) -> list[ConfigError]:
    """Return an error with a fix for every value that cannot work; an empty list if the configuration is valid."""
    checks = Checks(config)
    for check_group in (
        _check_sweep,
        _check_paths,
        _check_model,
        _check_tracking,
        _check_outputs,
        _check_studies,
        _check_saved_saes,
        _check_steering,
        _check_probing,
        _check_dataset,
        _check_synthetic,
        _check_training,
        _check_optimizer,
        _check_sae,
    ):
        check_group(checks)
    return checks.problems


def _check_sweep(checks: Checks) -> None:
    config = checks.config
    checks.require_positive("dict_size", "k")
    exceeds = 0 < config.dict_size < config.k
    problem = f"must be at most dict_size={config.dict_size}, the number of latents"
    checks.require("k", not exceeds, problem, "lower k or raise dict_size")
    checks.require("seed", config.seed >= 0, "must be at least 0", "seed=0")
    bad_name = find_names_problem(config.name, config.task.name)
    checks.require("name", bad_name is None, str(bad_name), NAME_FIX)
    checks.require_one_of("task.name", POINT_TASKS + SWEEP_TASKS)
    unknown = sorted(set(config.then) - set(FOLLOW_UPS))
    fix = f"'then=[report]', or any of {', '.join(FOLLOW_UPS)}"
    checks.require("then", not unknown, f"names tasks that cannot run after training: {', '.join(unknown)}", fix)
    for limit in ("limits.points", "limits.disk_gib", "limits.gpu_hours"):
        value = get_setting(config, limit)
        is_limit = value is None or value > 0
        checks.require(limit, is_limit, "must be greater than 0, or null for no limit", f"{limit}=null")


def _check_paths(checks: Checks) -> None:
    """Check that the paths that settings name can be printed, and written in a script, as they are."""
    for setting in PATHS:
        value = get_setting(checks.config, setting)
        paths = [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, str)]
        problem = next(filter(None, map(find_path_problem, paths)), None)
        checks.require(setting, problem is None, str(problem), PATH_FIX)


def _check_model(checks: Checks) -> None:
    name = checks.config.model.name
    problem = "must be a folder or a name on the Hugging Face hub"
    checks.require("model.name", bool(name), problem, "model.name=FOLDER, or a name on the hub")
    checks.require_positive("model.cpu_sequences", "evaluation.tokens", "activations.cache_gib")
    checks.require_at_least(1, "model.batch_sequences")
    checks.require_one_of("model.dtype", DTYPES)
    checks.require_one_of("model.reader", READERS)


def _check_tracking(checks: Checks) -> None:
    tracking = checks.config.tracking
    checks.require_one_of("tracking.mode", TRACKING_MODES)
    if tracking.mode == "off":
        return
    problem = find_project_problem(tracking.project)
    checks.require("tracking.project", problem is None, str(problem), "tracking.project=sae-sweeps")
    is_entity = tracking.entity is None or re.fullmatch(r"[\w.-]+", tracking.entity) is not None
    problem = "must be the name of a W&B user or team, of letters, digits, - and _"
    checks.require("tracking.entity", is_entity, problem, "tracking.entity=TEAM, or null for the account's default")
    are_tags = all(0 < len(tag) <= WANDB_TAG_LETTERS for tag in tracking.tags)
    problem = f"must be a list of tags, of 1 to {WANDB_TAG_LETTERS} characters each"
    checks.require("tracking.tags", are_tags, problem, "'tracking.tags=[first-try]'")


def _check_outputs(checks: Checks) -> None:
    """Check the settings of the tasks that write files for others (report, export, publish) or remove points."""
    config = checks.config
    task = TASKS.get(config.task.name)
    if config.format is not None and task is not None and task.formats:
        checks.require_one_of("format", task.formats)
    problem = "must not be empty"
    checks.require("export.folder", config.export.folder != "", problem, "export.folder=FOLDER, or leave it out")
    if config.task.name == "publish":
        is_repo = re.fullmatch(r"[\w.-]+/[\w.-]+", config.publish.repo or "") is not None
        problem = "must name a repository on the Hugging Face hub: OWNER/NAME"
        checks.require("publish.repo", is_repo, problem, "publish.repo=OWNER/NAME")
    is_neuronpedia = config.task.name == "export" and config.format == NEURONPEDIA
    checks.problems += config.neuronpedia.find_problems(is_neuronpedia)
    checks.require_positive("explorer_mib")
    are_states = bool(config.remove.states) and set(config.remove.states) <= set(REMOVABLE)
    problem = f"must be a list of states of points that are not done: {', '.join(REMOVABLE)}"
    for setting in ("scaling.dict_sizes", "scaling.tokens"):
        are_sizes = all(number > 0 for number in get_setting(config, setting))
        checks.require(setting, are_sizes, "must be whole numbers above 0", f"'{setting}=[12288]'")
    is_time = config.scaling.hours is None or 0 < config.scaling.hours < math.inf
    checks.require("scaling.hours", is_time, "must be greater than 0, or null", "scaling.hours=1")
    checks.require("remove.states", are_states, problem, "'remove.states=[failed]'")


def _check_studies(checks: Checks) -> None:
    stitch, meta = checks.config.stitch, checks.config.meta
    is_cosine = 0 < stitch.threshold <= 1
    checks.require("stitch.threshold", is_cosine, "must be a cosine in (0, 1]", "stitch.threshold=0.7")
    are_cosines = bool(stitch.thresholds) and all(0 < threshold <= 1 for threshold in stitch.thresholds)
    checks.require("stitch.thresholds", are_cosines, "must be cosines in (0, 1]", "'stitch.thresholds=[0.5,0.7,0.9]'")
    checks.require_at_least(1, "stitch.tokens", "stitch.ce_tokens", "stitch.positions", "latents.tokens")
    checks.require_at_least(2, "stitch.ce_positions")
    checks.require_at_least(0, "stitch.seed", "meta.seed", "latents.before", "latents.after")
    checks.require_at_least(1, "meta.dict_size", "meta.k", "meta.steps", "meta.batch_size", "meta.checkpoint_every")
    checks.require_at_least(1, "latents.examples", "latents.promoted")
    checks.require("meta.lr", 0 < meta.lr < math.inf, "must be greater than 0", "meta.lr=0.004")
    exceeds = meta.dict_size is not None and 0 < meta.dict_size < meta.k
    problem = f"must be at most meta.dict_size={meta.dict_size}, the number of meta-latents"
    checks.require("meta.k", not exceeds, problem, "lower meta.k or raise meta.dict_size")
    for found in checks.config.saebench.find_problems():
        checks.require(f"saebench.{found.setting}", False, found.problem, found.fix)


def _check_saved_saes(checks: Checks) -> None:
    """Check that the settings small, large, saved and latents.labels are given only for the tasks that use them."""
    config = checks.config
    for tasks, settings in (
        (("stitch",), ("small", "large")),
        (("meta_sae", "latents", "evaluate", "saebench", "probe", "steer", *EXPORT_TASKS), ("saved",)),
        (("latents", "report", "export"), ("latents.labels",)),
    ):
        is_used = config.task.name in tasks
        problem = f"can be used only with task={' or task='.join(tasks)}, but the task is {config.task.name}"
        for setting in settings:
            is_valid = is_used or get_setting(config, setting) is None
            checks.require(setting, is_valid, problem, f"task={tasks[0]}, or leave it out")
    are_paired = config.task.name != "stitch" or (config.small is None) == (config.large is None)
    present, missing = ("small", "large") if config.large is None else ("large", "small")
    problem = f"needs {missing} as well: task=stitch compares two SAEs"
    checks.require(present, are_paired, problem, f"give {missing}=FOLDER as well")


def _check_steering(checks: Checks) -> None:
    steer = checks.config.steer
    checks.require_one_of("steer.positions", POSITIONS)
    checks.require_at_least(1, "steer.top")
    for setting in ("clamp", "add"):
        problem = "must be a list of LATENT:NUMBER, with finite numbers and each latent once"
        are_changes = _are_changes(getattr(steer, setting))
        checks.require(f"steer.{setting}", are_changes, problem, f"'steer.{setting}=[12:4.0]'")
    for setting in ("remove", "of"):
        are_latents = all(latent >= 0 for latent in getattr(steer, setting))
        checks.require(f"steer.{setting}", are_latents, "must be numbers of latents, from 0", f"'steer.{setting}=[12]'")
    problem = "names latents whose directions change, which takes a meta-SAE"
    checks.require("steer.of", not steer.of or steer.meta is not None, problem, "steer.meta=STUDY, or leave it out")


def _check_probing(checks: Checks) -> None:
    probe = checks.config.probe
    checks.require_one_of("probe.penalty", PENALTIES)
    are_numbers = bool(probe.ks) and all(k >= 1 for k in probe.ks) and len(set(probe.ks)) == len(probe.ks)
    checks.require("probe.ks", are_numbers, "must be different numbers of latents, from 1", "'probe.ks=[1,4,16]'")
    checks.require_at_least(2, "probe.max_tokens")
    checks.require_at_least(116, "probe.rows")
    is_seed = 0 <= probe.seed < 2**32
    checks.require("probe.seed", is_seed, "must be at least 0 and below 2**32", "probe.seed=42")


def _are_changes(changes: list[str]) -> bool:
    """Return whether texts are latents with a number each."""
    try:
        parse_changes(changes)
    except ValueError:
        return False
    return True


def _check_dataset(checks: Checks) -> None:
    dataset = checks.config.dataset
    checks.require_one_of("dataset.format", FORMATS)
    checks.require("dataset.seq_len", dataset.seq_len >= 3, "must be at least 3 tokens", "dataset.seq_len=128")
    checks.require_one_of("dataset.bos", BOS_PLACES)
    has_bos = dataset.prepend_bos or dataset.bos != "document"
    problem = "no document starts with a BOS token, because dataset.prepend_bos=false"
    checks.require("dataset.bos", has_bos, problem, "dataset.prepend_bos=true, or leave dataset.bos out")
    are_tokens = dataset.exclude in ("special", "none", None) or all(map(_is_token, dataset.excluded_tokens))
    problem = "must be special, none, or a list of token ids and tokens"
    checks.require("dataset.exclude", are_tokens, problem, "dataset.exclude=special")
    leaves_some = dataset.holdout_every >= 2
    problem = "must be at least 2, because every document would be held out from training"
    checks.require("dataset.holdout_every", leaves_some, problem, "dataset.holdout_every=20")
    is_wait = 0 <= dataset.retry_seconds < math.inf
    checks.require("dataset.retry_seconds", is_wait, "must be at least 0 seconds", "dataset.retry_seconds=300")
    if dataset.is_synthetic:
        return
    if dataset.format == "hub":
        problem = "must name a data set on the Hugging Face hub, because dataset.format=hub"
        checks.require("dataset.name", bool(dataset.name), problem, "dataset.name=NAME")
    else:
        are_paths = bool(dataset.globs) and all(isinstance(glob, str) and glob for glob in dataset.globs)
        problem = "must be a path or a glob, or a list of paths and globs"
        checks.require("dataset.files", are_paths, problem, "'dataset.files=texts/*.txt'")


def _check_synthetic(checks: Checks) -> None:
    """Check the planted dictionary, and that the tasks after training can do without a language model."""
    config = checks.config
    if not config.dataset.is_synthetic:
        return
    for setting, problem, fix in config.synthetic.find_problems():
        checks.require(f"synthetic.{setting}", False, problem, fix)
    checks.require("dataset.seed", config.dataset.seed >= 0, "must be at least 0", "dataset.seed=0")
    barred = [task for task in config.then if task in STUDY_TASKS and task not in WITHOUT_MODEL]
    fix = f"'then=[report]', or any of {', '.join(WITHOUT_MODEL)}"
    checks.require("then", not barred, f"{', '.join(barred)} needs a language model, and there is none", fix)


def _is_token(value: object) -> bool:
    """Return whether a value can be the id or the text of a token."""
    if isinstance(value, str):
        return value != ""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_training(checks: Checks) -> None:
    training, cache = checks.config.training, checks.config.activations.cache
    checks.require_positive("training.tokens", "training.batch_size", "training.dead_after_tokens")
    rates = [name for name in ("lr", "base_lr") if getattr(training, name) is not None]
    checks.require_positive(*(f"training.{name}" for name in rates))
    checks.require_positive("training.chunk_batches", "training.checkpoint_every", "training.log_every")
    is_factor, setting = 0 < training.dead_threshold_factor <= 1, "training.dead_threshold_factor"
    checks.require(setting, is_factor, "must be above 0 and at most 1", f"{setting}=0.98, or 1 for none")
    fix = "activations.cache=FOLDER, or null for no cache"
    checks.require("activations.cache", cache != "", "must not be empty", fix)
    checks.require_one_of("training.initial_bias", INITIAL_BIASES)
    checks.require_one_of("training.initial_weights", INITIAL_WEIGHTS)
    has_mean = training.initial_weights != "data" or training.initial_bias != "zero"
    problem = "needs training.initial_bias=mean, because the data's directions are those from the mean"
    checks.require("training.initial_weights", has_mean, problem, "training.initial_bias=mean")
    checks.require_one_of("training.precision", PRECISIONS)
    is_short = 0 < training.tokens < training.batch_size
    problem = f"must be at least training.batch_size={training.batch_size}, one batch"
    checks.require("training.tokens", not is_short, problem, "raise training.tokens or lower training.batch_size")


def _check_optimizer(checks: Checks) -> None:
    training = checks.config.training
    are_betas = len(training.betas) == 2 and all(0 <= beta < 1 for beta in training.betas)
    checks.require("training.betas", are_betas, "must be two numbers in [0, 1)", "'training.betas=[0.9,0.99]'")
    checks.require("training.warmup_steps", training.warmup_steps >= 0, "must be at least 0", "training.warmup_steps=0")
    is_fraction = 0 <= training.decay_fraction <= 1
    checks.require("training.decay_fraction", is_fraction, "must be in [0, 1]", "training.decay_fraction=0.2")


def _check_sae(checks: Checks) -> None:
    config = checks.config
    for found in config.sae.find_problems(config.dict_size, config.k):
        checks.require(f"sae.{found.setting}", False, found.problem, found.fix)
