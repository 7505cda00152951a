"""The metadata in an SAE's files: where it is from."""

from dataclasses import asdict
from typing import Any

from sae_sweeps.config import Config


def sae_metadata(config: Config) -> dict[str, Any]:
    """Return what SAELens records about an SAE's origin, and how the SAE was trained."""
    return {"sae_sweeps": {"k": config.k, "seed": config.seed, "sae": asdict(config.sae)}, **text_metadata(config)}


def text_metadata(config: Config) -> dict[str, Any]:
    """Return which activations an SAE was trained on: model, hook and text, under SAELens' names."""
    return {
        "model_name": config.model.name,
        "hook_name": config.model.hook,
        "context_size": config.dataset.seq_len,
        "prepend_bos": config.dataset.prepend_bos,
        "dataset_path": config.dataset.name or ", ".join(config.dataset.globs),
    }
