"""Sparse autoencoders: one file per architecture, and the linear algebra they share."""

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.batchtopk import BatchTopKSAE
from sae_sweeps.saes.jumprelu import JumpReLUSAE
from sae_sweeps.saes.topk import TopKSAE

__all__ = ["SAE", "BatchTopKSAE", "JumpReLUSAE", "TopKSAE"]
