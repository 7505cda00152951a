"""The settings that decide a result, and the names made of them."""

import copy
import functools
import hashlib
import json
import operator
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config.conversion import to_config
from sae_sweeps.config.saes import SAE_SCHEMAS, JumpReLUConfig
from sae_sweeps.config.schema import Config, get_setting
from sae_sweeps.config.sparsity import pick_sparsity
from sae_sweeps.config.tasks import SWEEP_TASKS, TASKS
from sae_sweeps.config.wheel_models import MODELS
from sae_sweeps.runtime.devices import resolve_dtype
from sae_sweeps.runtime.provenance import PROJECT

RESULT_SETTINGS = ["dict_size", "k", "seed", "model", "dataset", "sae", "training", "evaluation"]


# what a study takes from its SAEs' points, or from its command line if that names them
TEXT_SETTINGS = ("dataset", "evaluation", "model.batch_sequences", "model.dtype")


def study_settings(config: Config, task: str) -> dict[str, Any]:
    """Return the settings of a command that a study's results depend on; those of the text for any other task."""
    values, names = asdict(config), (*TASKS[task].settings, *_given_of_text(config))
    return {name: functools.reduce(operator.getitem, name.split("."), values) for name in names}


def apply_command_settings(config: Config, command: Config) -> Config:
    """A point's configuration, but for the text that is read and for how the model is run what a command line names."""
    config = copy.deepcopy(config)
    for setting in _given_of_text(command):
        group, _, name = setting.rpartition(".")
        setattr(get_setting(config, group) if group else config, name, get_setting(command, setting))
    return config


def _given_of_text(command: Config) -> list[str]:
    return [setting for setting in command.given if setting.startswith(TEXT_SETTINGS)]


def point_name(cfg: DictConfig) -> str:
    """The folder name of a point: what a person wants to know, and a hash of all settings that decide its result."""
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, RESULT_SETTINGS), resolve=True)
    values["model"]["dtype"] = resolve_dtype(cfg.model.dtype, cfg.device)
    text = json.dumps(result_settings(values), sort_keys=True)
    for place in (PROJECT, MODELS):  # the same wherever these lie
        text = text.replace(str(place), "")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cfg.sae.architecture}-{cfg.dict_size}-k{cfg.k}-seed{cfg.seed}-{digest}"


def named_config(cfg: DictConfig, overrides: Sequence[str]) -> tuple[str, Config]:
    """Return the name and the configuration of a composed point.

    For a task on a whole sweep, `given` lists the settings that the overrides name: those are the command's own.
    """
    config = to_config(cfg)
    if config.task.name in SWEEP_TASKS and config.task.name != "plan":
        config.given = [word.partition("=")[0].lstrip("+") for word in overrides]
    return point_name(cfg), config


def result_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration as a dictionary, the settings that decide a point's result."""
    found = copy.deepcopy({name: values[name] for name in RESULT_SETTINGS})
    for neutral in ("checkpoint_every", "log_every", "keep_states"):
        found["training"].pop(neutral)
    if found["training"]["precision"] == "float32":
        found["training"].pop("precision")  # as it was before there was a choice
    # of the model's list of coefficients, only the one that is used decides anything
    found["model"].pop("aliases", None)
    listed = found["model"].pop("sparsity_coefficients")["values"]
    if "sparsity_coefficient" in found["sae"]:
        if not issubclass(SAE_SCHEMAS[found["sae"]["architecture"]], JumpReLUConfig):
            listed = {}
        given = {name: found["sae"].pop(name, None) for name in ("sparsity_coefficient", "target_l0")}
        found["sae"] |= pick_sparsity(
            given["sparsity_coefficient"], given["target_l0"], listed.get(found["k"]), found["k"]
        )
    return found


def stream_settings(config: Config) -> dict[str, Any]:
    """The settings that determine the language model and its text: points that agree in them can share both."""
    settings: dict[str, Any] = {"model": asdict(config.model), "dataset": asdict(config.dataset)}
    for of_saes in ("sparsity_coefficients", "aliases"):
        settings["model"].pop(of_saes)
    return settings
