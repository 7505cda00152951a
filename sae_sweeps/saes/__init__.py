"""Sparse autoencoders: one file per architecture for training, one class for inference, and shared sparse algebra."""

import importlib

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.saes.base import SAE, Activations
from sae_sweeps.saes.batchtopk import BatchTopKSAE
from sae_sweeps.saes.gated import GatedSAE
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.jumprelu import JumpReLUSAE
from sae_sweeps.saes.matryoshka import MatryoshkaSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.relu import ReLUSAE
from sae_sweeps.saes.step import Step, Variant
from sae_sweeps.saes.topk import TopKSAE
from sae_sweeps.saes.trainable import TrainableSAE

# imported by the names in the table of architectures, so that a new architecture needs no line here
TRAINABLE: dict[str, type[TrainableSAE]] = {
    name: getattr(importlib.import_module(f"{__name__}.{name}"), entry.class_name)
    for name, entry in ARCHITECTURES.items()
}

__all__ = [
    "SAE",
    "TRAINABLE",
    "Activations",
    "BatchTopKSAE",
    "GatedSAE",
    "InferenceSAE",
    "JumpReLUSAE",
    "MatryoshkaSAE",
    "PenalizedSAE",
    "ReLUSAE",
    "Step",
    "TopKSAE",
    "TrainableSAE",
    "Variant",
]
