"""What SAEs with a penalty on active latents share: its coefficient is given, or found on the way to a given L0."""

# B activations in a batch, D model width, F latents (dict_size)

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.saes.l0_target import L0Target
from sae_sweeps.saes.trainable import Step, TrainableSAE

START = 256  # activations on which the untrained SAE is given its L0


class PenalizedSAE(TrainableSAE):
    """An SAE that gets as sparse as a penalty in its loss makes it."""

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = PenaltyConfig.sparsity_coefficient,
        *,
        target_l0: float | None = PenaltyConfig.target_l0,
        **options: Any,
    ) -> None:
        """One of `sparsity_coefficient` and `target_l0` says how sparse it gets. Raises: ValueError if both do."""
        super().__init__(d_in, dict_size, **options)
        if (sparsity_coefficient is None) == (target_l0 is None):
            raise ValueError("one of sparsity_coefficient and target_l0 is to be given")
        self._sparsity_coefficient = sparsity_coefficient
        self.l0_target = None if target_l0 is None else L0Target(target_l0)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Of the penalty; with a target, that of the latest batch, ()."""
        if self.l0_target is not None:
            return self.l0_target.coefficient
        assert self._sparsity_coefficient is not None, "the other is given"
        return self._sparsity_coefficient

    @abstractmethod
    def meet_target(self, pre_RF: Tensor) -> None:
        """Change thresholds or biases so that L0 is its target, or so far above it as training is to begin, on
        activations with these pre-activations."""

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        if self.l0_target is not None and self.l0_target.batches == 0:
            self.meet_target(self.product(self.encoder_input(x_BD[:START])).whole())
        return super().training_step(x_BD, dead_F, precision)
