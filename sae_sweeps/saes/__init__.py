"""Sparse autoencoders: a file per architecture that is trained, one class for all that are used, and the linear algebra
that they share."""

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.batchtopk import BatchTopKSAE
from sae_sweeps.saes.gated import GatedSAE
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.jumprelu import JumpReLUSAE
from sae_sweeps.saes.matryoshka import MatryoshkaSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.relu import ReLUSAE
from sae_sweeps.saes.topk import TopKSAE
from sae_sweeps.saes.trainable import Step, TrainableSAE

TRAINABLE: dict[str, type[TrainableSAE]] = {
    cls.architecture: cls for cls in (BatchTopKSAE, TopKSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, GatedSAE)
}

__all__ = [
    "SAE",
    "TRAINABLE",
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
]
