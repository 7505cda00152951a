"""The metadata in an SAE's files: the settings, model, hook and text of the training."""

from dataclasses import asdict
from typing import Any

from sae_sweeps.config import Config


def sae_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata for cfg.json: k, seed and SAE settings under "sae_sweeps", and model, hook and text."""
    return {"sae_sweeps": {"k": config.k, "seed": config.seed, "sae": asdict(config.sae)}, **text_metadata(config)}


def text_metadata(config: Config) -> dict[str, Any]:
    """Return the model, hook and text that an SAE was trained on, under the keys that SAELens uses in cfg.json."""
    return {
        "model_name": config.model.name,
        "hook_name": config.model.hook,
        "context_size": config.dataset.seq_len,
        "prepend_bos": config.dataset.prepend_bos,
        "dataset_path": config.dataset.name or ", ".join(config.dataset.globs),
    }
