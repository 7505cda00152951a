"""What SAEs with a penalty on active latents share: its coefficient is given, or found on the way to a given L0."""

from typing import Any

from torch import Tensor

from sae_sweeps.saes.sparsity import L0Target
from sae_sweeps.saes.trainable import TrainableSAE


class PenalizedSAE(TrainableSAE):
    """An SAE that gets as sparse as a penalty in its loss makes it."""

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = None,
        *,
        target_l0: float | None = None,
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
