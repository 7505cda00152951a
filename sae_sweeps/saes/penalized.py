"""Base class of SAEs with a sparsity penalty. The penalty's coefficient is given or follows from a target L0."""

# B activations in a batch, R of them (START at most), D model width, F latents (dict_size)

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.saes.l0_target import L0Target
from sae_sweeps.saes.trainable import Step, TrainableSAE

START = 256  # activations of the first batch on which thresholds or biases are set to the starting L0


class PenalizedSAE(TrainableSAE):
    """An SAE that a penalty on L0 or L1 makes sparse, with a fixed coefficient or one that `L0Target` estimates."""

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = PenaltyConfig.sparsity_coefficient,
        *,
        target_l0: float | None = PenaltyConfig.target_l0,
        **options: Any,
    ) -> None:
        """Initialise the weights and, with `target_l0`, the L0 controller.

        Raises: ValueError unless exactly one of `sparsity_coefficient` and `target_l0` is given.
        """
        super().__init__(d_in, dict_size, **options)
        if (sparsity_coefficient is None) == (target_l0 is None):
            raise ValueError(
                "exactly one of sparsity_coefficient and target_l0 must be given, "
                f"but they are {sparsity_coefficient} and {target_l0}"
            )
        self._sparsity_coefficient = sparsity_coefficient
        self.l0_target = None if target_l0 is None else L0Target(target_l0)

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Return the coefficient of the penalty; with a target L0, the estimate after the latest batch, ()."""
        if self.l0_target is not None:
            return self.l0_target.coefficient
        assert self._sparsity_coefficient is not None, "an SAE without a target L0 has a coefficient"
        return self._sparsity_coefficient

    @abstractmethod
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Set thresholds or biases so that L0 on the pre-activations of R activations is the starting L0.

        The starting L0 is the target L0, or a multiple of the target that the architecture chooses.
        """

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        """Compute loss and gradients as `TrainableSAE.training_step` does.

        With a target L0, the first step sets thresholds or biases to the starting L0 before.
        """
        if self.l0_target is not None and self.l0_target.batches == 0:
            self.start_at_target(self.product(self.encoder_input(x_BD[:START])).to_dense())
        return super().training_step(x_BD, dead_F, precision)
