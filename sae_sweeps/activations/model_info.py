"""Sizes of a language model from config.json, without loading the weights: quick enough to check settings first."""

import functools
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweeps.activations.architectures import PARALLEL_HOOKS, WIDE_HOOKS, find_other_purpose, list_hooks
from sae_sweeps.activations.hub import require_repository
from sae_sweeps.activations.model_files import explain_refusal
from sae_sweeps.config.commands import format_setting
from sae_sweeps.config.wheel_models import find_fetch_command
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError
from sae_sweeps.runtime.file_faults import find_file_fault
from sae_sweeps.runtime.files import parse_json
from sae_sweeps.runtime.paths import expand_folder


@dataclass
class ModelInfo:
    """Layers, width, vocabulary and longest sequence of a language model, from config.json.

    context: tokens in the longest sequence; None if config.json does not name them
    hooks: names of the hooks of width d_model in each transformer block
    unread: why config.json could not be read, if the sizes are from `PUBLISHED`; None if they are from config.json
    drawn: numbers that are drawn or multiplied for an activation where no language model computes it; 0 where one does
    """

    n_layers: int
    d_model: int
    vocabulary: int
    context: int | None
    hooks: tuple[str, ...] = WIDE_HOOKS
    unread: str | None = None
    drawn: int = 0

    def weights(self, layers: int) -> int:
        """Return the approximate number of weights in `layers` transformer blocks: 12 d_model^2 in each.

        The number of multiply-adds per token is the same. Without a language model it is `drawn`.
        """
        return self.drawn or 12 * self.d_model**2 * layers


# sizes of the models in conf/model, copied from config.json on the hub: for task=plan without access to the hub
PUBLISHED = {
    "gpt2": ModelInfo(n_layers=12, d_model=768, vocabulary=50257, context=1024),
    "google/gemma-2-2b": ModelInfo(n_layers=26, d_model=2304, vocabulary=256000, context=8192),
    "EleutherAI/pythia-70m-deduped": ModelInfo(
        n_layers=6, d_model=512, vocabulary=50304, context=2048, hooks=PARALLEL_HOOKS
    ),
}

# size -> its names in config.json, in the order in which they are looked for
SIZES = {
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "max_seq_len"),
}


def is_local_path(name: str) -> bool:
    """Return whether `name` is the path of a folder rather than a hub name (NAME or OWNER/NAME).

    A path is absolute, starts with . or ~, has more than one slash, or exists.
    """
    return os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1 or os.path.exists(name)


@functools.cache
def read_model_info(name: str, to_plan: bool = False) -> ModelInfo:
    """Return the sizes of the model `name`, from config.json in a local folder, in the hub's local cache or on the hub.

    With `to_plan`, a model in `PUBLISHED` has these sizes if the hub cannot be reached; `unread` then has the reason.
    Raises: ConfigError if there is no such folder, if the hub has no such model or cannot be reached, or if
    config.json does not describe a language model with transformer blocks.
    """
    try:
        return _read_info(name)
    except OutOfReachError as error:
        if to_plan and name in PUBLISHED:
            return replace(PUBLISHED[name], unread=error.problem)
        raise


def _read_info(name: str) -> ModelInfo:
    path = _find_config(name)
    config = _read_config(name, path)
    if (purpose := find_other_purpose(config)) is not None:
        raise ConfigError("model.name", name, f"the model {purpose}", "choose a decoder language model")
    text = _language_part(config)
    values = {key: _first(text, names) for key, names in SIZES.items()}
    if None in (values["n_layers"], values["d_model"], values["vocabulary"]) or "auto_map" in config:
        text = _complete_config(name, path)  # slower: it imports torch
        values = {key: _first(text, names) for key, names in SIZES.items()}
    for key, names in SIZES.items():
        value = values[key]
        if key == "context" and value is None:
            continue
        if type(value) is not int or value < 1:  # a bool is no number here
            message = (
                f"{names[0]} is {json.dumps(value, default=str)}" if value is not None else f"there is no {names[0]}"
            )
            problem = (
                f"the config.json does not describe a transformer: {message}, which must be a positive whole number"
            )
            raise ConfigError("model.name", name, problem, "choose a decoder language model")
    return ModelInfo(**values, hooks=list_hooks(text))


def _find_config(name: str) -> Path:
    """Return the path of a model's config.json. Raises: ConfigError if there is none."""
    if not is_local_path(name):
        return _hub_config(name)
    folder = expand_folder(name, "model.name")
    if folder.is_file():
        fix = format_setting("model.name", str(folder.parent))
        raise ConfigError("model.name", name, "is a file, not a folder", fix)
    if not folder.is_dir():
        fix = find_fetch_command(folder) or "give the path of a Hugging Face model folder"
        raise ConfigError("model.name", name, "there is no such folder", fix)
    if not (folder / "config.json").is_file():
        fix = "give a folder that save_pretrained has written"
        if not name.startswith((".", "~", "/")):
            fix = f"rename this folder if you mean the model {name} on the hub, which it hides; else {fix}"
        raise ConfigError("model.name", name, "the folder has no config.json", fix)
    return folder / "config.json"


def _read_config(name: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in a config.json. Raises: ConfigError if it cannot be read or is no JSON object."""
    if (fault := find_file_fault(path)) is not None:
        raise ConfigError("model.name", name, f"its config.json {fault[0]}", fault[1])
    config = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        problem = f"the config.json does not describe a transformer: it is a {type(config).__name__}, not an object"
        raise ConfigError("model.name", name, problem, "choose a decoder language model")
    return config


def _language_part(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config.json about the language model, which models of several modalities nest."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _complete_config(name: str, path: Path) -> dict[str, Any]:
    """Return the settings of the language model, with the defaults of its class for values that config.json leaves out.

    Raises: ConfigError if transformers does not know the class, or refuses a value.
    """
    from transformers import AutoConfig
    from transformers.utils.logging import set_verbosity_error

    set_verbosity_error()
    try:
        complete = AutoConfig.from_pretrained(path.parent, trust_remote_code=False, local_files_only=True)
        text = complete.get_text_config(decoder=True)
        named = {key: getattr(text, key, None) for names in SIZES.values() for key in names}
        return {**text.to_dict(), **{key: value for key, value in named.items() if value is not None}}
    except Exception as error:  # a config.json may make the class raise anything
        raise explain_refusal(name, error, "the config.json does not describe a transformer") from None


def _first(config: dict[str, Any], names: Sequence[str]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _hub_config(name: str) -> Path:
    """Return the local path of the config.json of a model on the hub, which is fetched if it is not in the cache.

    Raises: ConfigError if the hub has no such model; OutOfReachError if the hub cannot be reached or denies access.
    """
    import huggingface_hub as hub

    require_repository("model.name", name, "model")
    cached = hub.try_to_load_from_cache(name, "config.json")
    try:
        return Path(cached if isinstance(cached, str) else hub.hf_hub_download(name, "config.json"))
    except Exception as error:  # any exception of the client's transport, or of a gated model
        problem = f"has a config.json that cannot be fetched from the hub ({type(error).__name__})"
        fix = "check the network; if the model is gated, accept the terms on the hub and log in with `hf auth login`"
        raise OutOfReachError("model.name", name, problem, fix) from None


def is_same_model(name: str, others: Iterable[str]) -> bool:
    """Return whether `name` and one of `others` name the same model.

    Only the last part of a path or hub name is compared, in lower case, and for a folder in the hub's cache the name
    of the model there.
    """
    return _short_name(name) in map(_short_name, others)


def shared_name(name: str) -> str:
    """Return a model's name without the folders of this machine: its name on the hub, or the last part of a local path.

    `is_same_model` takes the two names for the same model.
    """
    if not is_local_path(name):
        return name
    if cached := re.search(r"models--([^/]+)--([^/]+)/snapshots", name):
        return f"{cached[1]}/{cached[2]}"
    return Path(name).name or name


def _short_name(name: str) -> str:
    if cached := re.search(r"models--[^/]+--([^/]+)/snapshots", name):
        return cached[1].lower()
    return name.rstrip("/").rpartition("/")[2].lower()
