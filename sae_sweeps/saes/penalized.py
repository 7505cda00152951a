"""Base class of SAEs with a sparsity penalty. The penalty's coefficient is given or follows from a target L0."""

# B activations in a batch, R of them (START at most), D model width, F latents (dict_size)

from abc import abstractmethod

import torch
from torch import Tensor

from sae_sweeps.config.saes import PenaltyConfig, SAEConfig
from sae_sweeps.config.sparsity import apply_precedence
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes.l0_target import L0Target
from sae_sweeps.saes.trainable import TrainableSAE

START = 256  # activations of the first batch on which thresholds or biases are set to the starting L0


class PenalizedSAE(TrainableSAE):
    """An SAE that a penalty on L0 or L1 makes sparse, with a fixed coefficient or one that `L0Target` estimates."""

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int | None = None,
        *,
        sparsity_coefficient: float | None = PenaltyConfig.sparsity_coefficient,
        target_l0: float | None = PenaltyConfig.target_l0,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        """Initialise the weights and, unless a coefficient is given, the L0 controller.

        As in the command, `k` is the target L0, unless `target_l0` or `sparsity_coefficient` is given.
        Raises: ConfigError unless one of the three is given, or if both of the latter two are.
        """
        super().__init__(d_in, dict_size, normalize_input=normalize_input, seed=seed)
        if k is None and target_l0 is None and sparsity_coefficient is None:
            problem = "must be given: the number of active latents per activation, on average"
            raise ConfigError("k", None, problem, "k=32, or a sparsity_coefficient for a penalty without a target")
        self.k = None if k is None else self._require_k(k)
        self._require_options(sparsity_coefficient=sparsity_coefficient, target_l0=target_l0)
        chosen = apply_precedence(sparsity_coefficient, target_l0, None, self.k or 0)
        self._sparsity_coefficient = chosen.get("sparsity_coefficient")
        self.l0_target = L0Target(chosen["target_l0"]) if "target_l0" in chosen else None

    @property
    def sparsity_coefficient(self) -> float | Tensor:
        """Return the coefficient of the penalty; with a target L0, the estimate after the latest batch, ()."""
        if self.l0_target is not None:
            return self.l0_target.coefficient
        assert self._sparsity_coefficient is not None, "an SAE without a target L0 has a coefficient"
        return self._sparsity_coefficient

    @property
    def initial_k(self) -> float | None:
        """Return the target L0, if there is one."""
        return None if self.l0_target is None else self.l0_target.target

    def describe_sparsity(self) -> str:
        """Return what sets the number of active latents, for `repr`: a target L0 or a coefficient."""
        if self.l0_target is None:
            return f"sparsity_coefficient={self._sparsity_coefficient:g}"
        target = self.l0_target.target
        return f"k={self.k}" if target == self.k else f"target_l0={target:g}"

    @abstractmethod
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Set thresholds or biases so that L0 on the pre-activations of R activations is the starting L0.

        The starting L0 is the target L0, or a multiple of the target that the architecture chooses.
        """

    @torch.no_grad()
    def start(self, x_BD: Tensor) -> None:
        """Set thresholds or biases to the starting L0, if there is a target L0 and this is the first step of all."""
        if self.l0_target is not None and self.l0_target.batches == 0:
            self.start_at_target(self.product(self.encoder_input(x_BD[:START])).to_dense())
