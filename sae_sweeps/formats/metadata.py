"""The metadata in an SAE's files: the settings, model, hook and text of the training."""

from dataclasses import asdict
from typing import Any

from sae_sweeps.activations.model_info import shared_name
from sae_sweeps.config import Config
from sae_sweeps.config.differences import shorten_path


def sae_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata for cfg.json: k, seed and SAE settings under "sae_sweeps", and model, hook and text."""
    return {"sae_sweeps": {"k": config.k, "seed": config.seed, "sae": asdict(config.sae)}, **text_metadata(config)}


def text_metadata(config: Config) -> dict[str, Any]:
    """Return the model, hook and text that an SAE was trained on, under the keys that SAELens uses in cfg.json.

    Of a path only the end is given, as cfg.json is passed on; the point's results.json has the whole path.
    """
    texts = config.dataset.globs if config.dataset.name is None else [config.dataset.name]
    return {
        "model_name": shared_name(config.model.name),
        "hook_name": config.model.hook,
        "context_size": config.dataset.seq_len,
        "prepend_bos": config.dataset.prepend_bos,
        "dataset_path": ", ".join(map(shorten_path, texts)),
    }
