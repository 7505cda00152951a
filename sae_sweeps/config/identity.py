"""Selects the settings that a result depends on, and names points by a hash of these settings.

A change here renames points, activation streams and studies, so that the results of existing sweeps are not found.
"""

import copy
import functools
import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config.conversion import to_config
from sae_sweeps.config.saes import SAE_SCHEMAS, JumpReLUConfig
from sae_sweeps.config.schema import Config, DatasetConfig, ModelConfig, TrainingConfig, get_setting
from sae_sweeps.config.sparsity import apply_precedence
from sae_sweeps.config.synthetic import SYNTHETIC, is_synthetic
from sae_sweeps.config.tasks import SWEEP_TASKS, TASKS
from sae_sweeps.config.wheel_models import models_folder
from sae_sweeps.runtime.devices import resolve_dtype, resolve_reader
from sae_sweeps.runtime.places import PROJECT

# groups and top-level settings that the results of a point depend on
RESULT_GROUPS = ["dict_size", "k", "seed", "model", "dataset", "sae", "training", "evaluation"]

EXCLUDE_DEFAULT = DatasetConfig.exclude

# group -> setting -> default. These name a point only where they have another value, so that points from before they
# existed keep their names
UNNAMED_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"reader": ModelConfig.reader},
    "dataset": {"bos": DatasetConfig.bos},
    "training": {
        name: getattr(TrainingConfig, name)
        for name in (
            "dead_counts_batch",
            "aux_residual_gradient",
            "normalize_before_update",
            "initial_weights",
            "dead_threshold_factor",
        )
    },
    "sae": {
        name: getattr(JumpReLUConfig, name) for name in ("penalty_window", "threshold_parameter", "absolute_threshold")
    },
}

# settings that a study takes from the points of the SAEs, unless the study's command line names them
TEXT_SETTINGS = ("dataset", "evaluation", "model.batch_sequences", "model.dtype", "model.reader")


def select_study_settings(config: Config, task: str) -> dict[str, Any]:
    """Return the settings that the results of a study depend on, as full name -> value.

    These are the settings that TASKS lists for `task`, and the text settings that the command line names.
    """
    values, names = asdict(config), (*TASKS[task].settings, *_find_named_text_settings(config))
    names = tuple(name for name in names if name != "dataset.retry_seconds")
    values["latents"] = config.latents.describe()
    return {name: functools.reduce(operator.getitem, name.split("."), values) for name in names}


def apply_command_settings(config: Config, command: Config) -> Config:
    """Return a copy of a point's configuration with the text settings that the command line of a study names.

    command: the configuration of that command
    """
    config = copy.deepcopy(config)
    for setting in _find_named_text_settings(command):
        group, _, name = setting.rpartition(".")
        setattr(get_setting(config, group) if group else config, name, get_setting(command, setting))
    return config


def _find_named_text_settings(command: Config) -> list[str]:
    return [setting for setting in command.given if setting.startswith(TEXT_SETTINGS)]


def point_name(cfg: DictConfig) -> str:
    """Return the folder name of a point: architecture, sizes, seed, and a hash of all settings that change results."""
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [*RESULT_GROUPS, "synthetic"]), resolve=True)
    values["model"]["dtype"] = resolve_dtype(cfg.model.dtype, cfg.device)
    if resolve_reader(cfg.model.reader, cfg.device) == resolve_reader("auto", cfg.device):
        values["model"]["reader"] = "auto"  # the same results
    text = json.dumps(select_result_settings(values), sort_keys=True)
    for place in (PROJECT, models_folder()):  # the name does not depend on where these folders are
        text = text.replace(str(place), "")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cfg.sae.architecture}-{cfg.dict_size}-k{cfg.k}-seed{cfg.seed}-{digest}"


def to_named_config(cfg: DictConfig, overrides: Sequence[str]) -> tuple[str, Config]:
    """Return the folder name of a composed point, and the composed configuration as a `Config`.

    For a task on a whole sweep, `Config.given` lists the settings that the overrides name: a study uses these values
    instead of the points' values.
    """
    config = to_config(cfg)
    if config.task.name in SWEEP_TASKS and config.task.name != "plan":
        config.given = [override.partition("=")[0].lstrip("+") for override in overrides]
    return point_name(cfg), config


def select_result_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the results of a point depend on, nested as in `values`, the whole configuration.

    Only one setting of `sae` gives the sparsity: the setting that `sparsity.apply_precedence` chooses.
    """
    selected = copy.deepcopy({name: values[name] for name in RESULT_GROUPS})
    if is_synthetic(values):
        selected["synthetic"] = dict(values["synthetic"])
    for neutral in ("checkpoint_every", "log_every", "keep_states", "precision"):
        selected["training"].pop(neutral, None)
    if selected["training"].get("lr") is not None:
        selected["training"].pop("base_lr", None)  # without effect
    selected["dataset"].pop("retry_seconds", None)
    selected["dataset"] = _name_text(selected["dataset"])
    selected["model"] = _name_sequences(selected["model"])
    selected["model"].pop("aliases", None)
    listed = selected["model"].pop("sparsity_coefficients")["values"]  # only the coefficient for this k matters
    sae = selected["sae"]
    if "sparsity_coefficient" in sae:
        coefficient, target_l0 = sae.pop("sparsity_coefficient"), sae.pop("target_l0", None)
        if not issubclass(SAE_SCHEMAS[sae["architecture"]], JumpReLUConfig) or is_synthetic(values):
            listed = {}
        sae |= apply_precedence(coefficient, target_l0, listed.get(selected["k"]), selected["k"])
    for group in UNNAMED_DEFAULTS:
        selected[group] = _drop_defaults(group, selected[group])
    if is_synthetic(values):
        selected |= _select_synthetic(selected)
    return selected


def _select_synthetic(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `model` and `dataset` of synthetic activations, without what only a language model or text depends on."""
    dataset = {name: settings["dataset"][name] for name in ("format", "seed")}
    return {"model": dict.fromkeys(("name", "hook"), SYNTHETIC), "dataset": dataset}


def _drop_defaults(group: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group without those of UNNAMED_DEFAULTS that have their defaults."""
    defaults = UNNAMED_DEFAULTS[group]
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def list_unnamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `select_result_settings` leaves out if they have their defaults: full name -> value.

    values: a whole configuration, of which only JumpReLU SAEs have the settings of `sae`
    """
    found = {"dataset.exclude": values["dataset"].get("exclude", EXCLUDE_DEFAULT)}
    for group, defaults in UNNAMED_DEFAULTS.items():
        if group != "sae" or issubclass(SAE_SCHEMAS[values["sae"]["architecture"]], JumpReLUConfig):
            found |= {f"{group}.{name}": values[group].get(name, default) for name, default in defaults.items()}
    return found


def select_shown_settings(config: Config) -> dict[str, Any]:
    """Return the settings of a point for W&B: its sweep, and what it is trained on, with and where.

    Without what only the command needs, such as paths of output and the settings of other tasks, and without lists that
    describe the language model.
    """
    values = asdict(config)
    shown = {name: values[name] for name in ("name", *RESULT_GROUPS, "device")}
    if config.dataset.is_synthetic:
        shown |= {**_select_synthetic(values), "synthetic": values["synthetic"]}
    inner = ("aliases", "sparsity_coefficients", "cpu_sequences")
    return {**shown, "model": {name: value for name, value in shown["model"].items() if name not in inner}}


def select_stream_settings(config: Config) -> dict[str, Any]:
    """Return the settings of the activation stream, by group, as names of studies have them.

    Points with equal ones, and an equal `model.batch_sequences`, can train on one stream.
    """
    model, dataset = asdict(config.model), asdict(config.dataset)
    settings = {"model": _drop_defaults("model", _name_sequences(model)), "dataset": _name_text(dataset)}
    for unused in ("sparsity_coefficients", "aliases"):
        settings["model"].pop(unused)
    settings["dataset"].pop("retry_seconds")
    if config.dataset.is_synthetic:
        settings |= {**_select_synthetic(settings), "synthetic": asdict(config.synthetic)}
    return settings


def _name_sequences(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model's settings with the number of `batch_sequences` on a CPU in place of None.

    That number was the default for every device before, so points keep their names.
    """
    model = dict(model)
    on_cpu = model.pop("cpu_sequences", ModelConfig.cpu_sequences)
    return model if model["batch_sequences"] is not None else {**model, "batch_sequences": on_cpu}


def _name_text(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return a data set's settings with one spelling of `exclude`, a list, and without it and `bos` at their defaults.

    So points from before these settings existed keep their names.
    """
    dataset = _drop_defaults("dataset", dataset)
    exclude = dataset.pop("exclude", EXCLUDE_DEFAULT)
    if exclude == EXCLUDE_DEFAULT:
        return dataset
    return {**dataset, "exclude": DatasetConfig(exclude=exclude).excluded_tokens}
