"""Sparse autoencoders: a file per architecture that is trained, one class for all that are used, and the linear algebra
that they share."""

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.batchtopk import BatchTopKSAE
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.jumprelu import JumpReLUSAE
from sae_sweeps.saes.topk import TopKSAE
from sae_sweeps.saes.trainable import Step, TrainableSAE

TRAINABLE: dict[str, type[TrainableSAE]] = {cls.architecture: cls for cls in (BatchTopKSAE, TopKSAE, JumpReLUSAE)}

__all__ = ["SAE", "TRAINABLE", "BatchTopKSAE", "InferenceSAE", "JumpReLUSAE", "Step", "TopKSAE", "TrainableSAE"]
