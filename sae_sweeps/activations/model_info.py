"""What a model's folder says of it, read without loading it: cheap enough to check every setting first."""

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


@dataclass
class ModelInfo:
    """What config.json tells: layers, width, vocabulary, and the longest sequence (None where it does not say).

    `unread` says why it could not be read, where these are the published numbers.
    """

    n_layers: int
    d_model: int
    vocabulary: int
    context: int | None
    unread: str | None = None

    def weights(self, layers: int) -> int:
        """About how many weights so many blocks have, each a multiply-add per token: 12 d^2 in the usual shape."""
        return 12 * self.d_model**2 * layers


# of the models of conf/model, from their config.json on the hub: enough to plan with where that cannot be had
PUBLISHED = {
    "gpt2": ModelInfo(n_layers=12, d_model=768, vocabulary=50257, context=1024),
    "google/gemma-2-2b": ModelInfo(n_layers=26, d_model=2304, vocabulary=256000, context=8192),
    "EleutherAI/pythia-70m-deduped": ModelInfo(n_layers=6, d_model=512, vocabulary=50304, context=2048),
}


def is_local_path(name: str) -> bool:
    """Whether `name` can only mean a folder: hub names are `name` or `owner/name`."""
    return os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1 or os.path.exists(name)


@functools.cache
def read_model_info(name: str, to_plan: bool = False) -> ModelInfo:
    """Facts of the model in a local folder, in the hub's local cache, or on the hub. To plan with, those that are
    published will do where the hub is out of reach; `unread` says so.

    Raises: ConfigError if there is no such folder, if the hub has no such model or cannot be reached, or if its
    config.json is not that of a language model with transformer blocks.
    """
    try:
        return _read_facts(name)
    except OutOfReachError as error:
        if to_plan and name in PUBLISHED:
            return replace(PUBLISHED[name], unread=error.problem)
        raise


def _read_facts(name: str) -> ModelInfo:
    if is_local_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            fix = find_fetch_command(folder) or "give the path of a Hugging Face model folder"
            raise ConfigError("model.name", name, "no such folder", fix)
        path = folder / "config.json"
        if not path.is_file():
            raise ConfigError(
                "model.name", name, "the folder has no config.json", "give a folder saved by save_pretrained"
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
            "model.name", name, "its config.json does not describe a transformer", "choose a decoder language model"
        ) from None


def _first(config: dict[str, Any], *keys: str) -> Any:
    for key in keys:
        if key in config:
            return config[key]
    raise KeyError(keys[0])


def _hub_config(name: str) -> Path:
    """config.json of a model on the hub: from the local cache, or fetched."""
    import huggingface_hub as hub

    require_repository("model.name", name, "model")
    cached = hub.try_to_load_from_cache(name, "config.json")
    try:
        return Path(cached if isinstance(cached, str) else hub.hf_hub_download(name, "config.json"))
    except Exception as error:  # the client passes on whatever its transport raises; a gated model ends here too
        problem = f"its config.json cannot be had ({type(error).__name__})"
        fix = "if it is gated, accept its terms on the hub and log in with `hf auth login`"
        raise OutOfReachError("model.name", name, problem, fix) from None


def is_same_model(name: str, others: Iterable[str]) -> bool:
    """Whether a model's name is among others: a folder is taken to be called what it holds, and owners on the hub are
    left aside."""
    return _plain(name) in map(_plain, others)


def _plain(name: str) -> str:
    if cached := re.search(r"models--[^/]+--([^/]+)/snapshots", name):
        return cached[1].lower()
    return name.rstrip("/").rpartition("/")[2].lower()
