"""Gated: one affine function of an activation decides which latents are active, another how much (arXiv:2404.16014)."""

# B activations in a batch, D model width, F latents (dict_size), N entries

from typing import Any

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import GatedConfig
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.relu import ReLUSAE
from sae_sweeps.saes.sparse import Entries, LatentEntries, RowSparse
from sae_sweeps.saes.trainable import Fit, Step


class GatedSAE(ReLUSAE):
    """gate = (x - b_dec) @ W_enc^T + b_enc; where it is positive, z = relu(exp(r_mag) (x - b_dec) @ W_enc^T + b_mag).

    The loss is mse + sparsity_coefficient * L1 of relu(gate) + the mse of what relu(gate) reconstructs through decoder
    weights and bias that are held fixed (arXiv:2404.16014, equations 5 to 8). b_enc is the paper's b_gate.
    """

    architecture = "gated"
    first_times = 1.0

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        sparsity_coefficient: float | None = None,
        *,
        initial_threshold: float = GatedConfig.initial_threshold,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, sparsity_coefficient, initial_threshold=initial_threshold, **options)
        self.r_mag = nn.Parameter(torch.zeros(dict_size))
        self.b_mag = nn.Parameter(torch.zeros(dict_size))

    @property
    def _gain_and_shift(self) -> tuple[Tensor, Tensor]:
        """z = relu(gain * gate + shift)."""
        gain_F, b_gate_F = self.r_mag.detach().exp(), self.get_parameter("b_enc").detach()
        return gain_F, self.b_mag.detach() - gain_F * b_gate_F

    @torch.no_grad()
    def _with_magnitudes(self, kept: Entries) -> None:
        gain_F, shift_F = self._gain_and_shift
        magnitude = (kept.gather(gain_F) * kept.pre + kept.gather(shift_F)).relu_()
        kept.value = magnitude * (kept.pre > 0)

    def keep(self, product: Product) -> Entries:
        kept = super().keep(product)
        self._with_magnitudes(kept)
        return kept

    def keep_for_inference(self, product: Product) -> RowSparse:
        kept = super().keep_for_inference(product)
        self._with_magnitudes(kept)
        return kept

    def for_inference(self) -> InferenceSAE:
        gain_F, shift_F = self._gain_and_shift
        return self._build_inference_sae(threshold=torch.zeros_like(gain_F), gain=gain_F, shift=shift_F)

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        fit = super().fit(kept, entries, x_BD)
        via_gate = super().fit(kept.with_values(kept.pre), entries, x_BD)
        fit.loss = fit.loss + via_gate.loss
        fit.pre_grad = entries.value_gradients(via_gate.grad_RD, self.W_dec) * (entries.pre > 0)
        return fit

    def sparsity_gradients(
        self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        assert pre_grad is not None, "of the fit above"
        magnitude_grad = value_grad * entries.active
        self.b_mag.grad = entries.latent_sums(magnitude_grad)
        # exp(r_mag) multiplies what an active latent's activation has beside b_mag
        self.r_mag.grad = entries.latent_sums(magnitude_grad * (entries.value - entries.gather(self.b_mag)))
        gate_grad, sparsity_loss = self.with_penalty(entries, pre_grad)
        return gate_grad + magnitude_grad * entries.gather(self.r_mag.exp()), sparsity_loss

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32") -> Step:
        step = super().training_step(x_BD, dead_F, precision)
        # the magnitudes do not contain b_enc, whose gradient is the gate's alone
        b_enc, b_mag = self.get_parameter("b_enc"), self.b_mag
        assert b_enc.grad is not None and b_mag.grad is not None, "of this step"  # noqa: PT018
        b_enc.grad.addcmul_(self.r_mag.exp(), b_mag.grad, value=-1)
        return step
