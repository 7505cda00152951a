"""Sweeps of sparse autoencoders on language-model activations. `python launch.py` is the command; this is the library.

    from sae_sweeps import ActivationStream, BatchTopKSAE, train_pack, evaluate

docs/library.md walks through all of it. Names are imported on first access (PEP 562): torch takes over a second to
import, and the command must not wait for it before it checks its arguments.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_sweeps.api import ActivationStream, save_sae, train_pack
    from sae_sweeps.config import DatasetConfig, ModelConfig, TrainingConfig
    from sae_sweeps.evaluation.evaluate import evaluate
    from sae_sweeps.formats.reading import load_sae
    from sae_sweeps.saes import SAE, BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE
    from sae_sweeps.studies.meta_sae import MetaSAE
    from sae_sweeps.studies.pair import stitch
    from sae_sweeps.training.streams import TensorStream

__all__ = [
    "SAE",
    "ActivationStream",
    "BatchTopKSAE",
    "DatasetConfig",
    "GatedSAE",
    "JumpReLUSAE",
    "MatryoshkaSAE",
    "MetaSAE",
    "ModelConfig",
    "ReLUSAE",
    "TensorStream",
    "TopKSAE",
    "TrainingConfig",
    "evaluate",
    "load_sae",
    "save_sae",
    "stitch",
    "train_pack",
]

_MODULES = {
    "config": ("DatasetConfig", "ModelConfig", "TrainingConfig"),
    "evaluation.evaluate": ("evaluate",),
    "formats.reading": ("load_sae",),
    "api": ("ActivationStream", "save_sae", "train_pack"),
    "saes": ("SAE", "BatchTopKSAE", "GatedSAE", "JumpReLUSAE", "MatryoshkaSAE", "ReLUSAE", "TopKSAE"),
    "studies.meta_sae": ("MetaSAE",),
    "studies.pair": ("stitch",),
    "training.streams": ("TensorStream",),
}


def __getattr__(name: str) -> Any:
    """Return the public object `name`, imported on first access, or the installed version as `__version__`.

    Raises: AttributeError for any other name.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("sae-sweeps")
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the sorted names of this package, including public names that are not imported yet."""
    return sorted({*globals(), *__all__, "__version__"})
