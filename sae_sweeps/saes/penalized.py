"""Base class of SAEs with a sparsity penalty, whose coefficient is given or follows from a target L0."""

# B activations in a batch, D model width, F latents (dict_size)

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.saes.l0_target import L0Target
from sae_sweeps.saes.trainable import Step, TrainableSAE

START = 256  # activations on which the untrained SAE is set to its starting L0


class PenalizedSAE(TrainableSAE):
    """An SAE that a penalty in its loss makes sparse."""

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = PenaltyConfig.sparsity_coefficient,
        *,
        target_l0: float | None = PenaltyConfig.target_l0,
        **options: Any,
    ) -> None:
        """Initialise the weights. Raises: ValueError unless exactly one of the coefficient and the target is given."""
        super().__init__(d_in, dict_size, **options)
        if (sparsity_coefficient is None) == (target_l0 is None):
            raise ValueError("give one of sparsity_coefficient and target_l0")
        self._sparsity_coefficient = sparsity_coefficient
        self.l0_target = None if target_l0 is None else L0Target(target_l0)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Return the coefficient of the penalty; with a target L0 that of the latest batch, ()."""
        if self.l0_target is not None:
            return self.l0_target.coefficient
        assert self._sparsity_coefficient is not None, "there is no target"
        return self._sparsity_coefficient

    @abstractmethod
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Set thresholds or biases so that training starts from its starting L0 on these pre-activations."""

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        """Compute loss and gradients, as `TrainableSAE.training_step`; the first step sets the starting L0 before."""
        if self.l0_target is not None and self.l0_target.batches == 0:
            self.start_at_target(self.product(self.encoder_input(x_BD[:START])).to_dense())
        return super().training_step(x_BD, dead_F, precision)
