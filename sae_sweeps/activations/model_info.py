"""Sizes of a language model from config.json, without loading the weights: quick enough to check settings first."""

import functools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweeps.activations.hub import require_repository
from sae_sweeps.config.wheel_models import find_fetch_command
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError
from sae_sweeps.runtime.paths import expand_folder


@dataclass
class ModelInfo:
    """Layers, width, vocabulary and longest sequence of a language model, from config.json.

    context: tokens in the longest sequence; None if config.json does not name them
    unread: why config.json could not be read, if the sizes are from `PUBLISHED`; None if they are from config.json
    """

    n_layers: int
    d_model: int
    vocabulary: int
    context: int | None
    unread: str | None = None

    def weights(self, layers: int) -> int:
        """Return the approximate number of weights in `layers` transformer blocks: 12 d_model^2 in each.

        The number of multiply-adds per token is the same.
        """
        return 12 * self.d_model**2 * layers


# sizes of the models in conf/model, copied from config.json on the hub: for task=plan without access to the hub
PUBLISHED = {
    "gpt2": ModelInfo(n_layers=12, d_model=768, vocabulary=50257, context=1024),
    "google/gemma-2-2b": ModelInfo(n_layers=26, d_model=2304, vocabulary=256000, context=8192),
    "EleutherAI/pythia-70m-deduped": ModelInfo(n_layers=6, d_model=512, vocabulary=50304, context=2048),
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
    if is_local_path(name):
        folder = expand_folder(name, "model.name")
        if not folder.is_dir():
            fix = find_fetch_command(folder) or "give the path of a Hugging Face model folder"
            raise ConfigError("model.name", name, "there is no such folder", fix)
        path = folder / "config.json"
        if not path.is_file():
            raise ConfigError(
                "model.name", name, "the folder has no config.json", "give a folder that save_pretrained has written"
            )
    else:
        path = _hub_config(name)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("text_config", config)  # models with several modalities nest the language part
        return ModelInfo(
            n_layers=int(_first(config, "num_hidden_layers", "n_layer", "num_layers")),
            d_model=int(_first(config, "hidden_size", "n_embd", "d_model")),
            vocabulary=int(_first(config, "vocab_size")),
            context=config.get("max_position_embeddings", config.get("n_positions")),
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ConfigError(
            "model.name", name, "the config.json does not describe a transformer", "choose a decoder language model"
        ) from None


def _first(config: dict[str, Any], *keys: str) -> Any:
    for key in keys:
        if key in config:
            return config[key]
    raise KeyError(keys[0])


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


def _short_name(name: str) -> str:
    if cached := re.search(r"models--[^/]+--([^/]+)/snapshots", name):
        return cached[1].lower()
    return name.rstrip("/").rpartition("/")[2].lower()
