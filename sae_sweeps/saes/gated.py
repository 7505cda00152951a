"""Gated SAEs: one affine function decides which latents are active, another how strongly (arXiv:2404.16014)."""

# B activations in a batch, D model width, F latents (dict_size), N entries

from typing import Any

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import GatedConfig
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.relu import ReLUSAE
from sae_sweeps.saes.sparse import Entries, LatentEntries, RowSparse
from sae_sweeps.saes.trainable import EntryGradients, Fit


class GatedSAE(ReLUSAE):
    """gate = (x - b_dec) @ W_enc^T + b_enc; where it is positive, z = relu(exp(r_mag) (x - b_dec) @ W_enc^T + b_mag).

    The loss is mse + sparsity_coefficient * L1 of relu(gate) + the mse of what relu(gate) reconstructs through decoder
    weights and bias that are held constant (arXiv:2404.16014, equations 5 to 8). b_enc is the paper's b_gate.
    """

    architecture = "gated"
    starting_l0_ratio = 1.0

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
        """Return gain and shift, each (F,), such that z = relu(gain * gate + shift)."""
        gain_F, b_gate_F = self.r_mag.detach().exp(), self.get_parameter("b_enc").detach()
        return gain_F, self.b_mag.detach() - gain_F * b_gate_F

    @torch.no_grad()
    def _set_magnitudes(self, kept: Entries) -> None:
        """Set the activations of the kept entries, whose pre-activations are the gate's."""
        gain_F, shift_F = self._gain_and_shift
        magnitude = (kept.gather(gain_F) * kept.pre + kept.gather(shift_F)).relu_()
        kept.value = magnitude * (kept.pre > 0)

    def keep(self, product: Product) -> Entries:
        """Select the entries of positive gates; every entry where those are many."""
        kept = super().keep(product)
        self._set_magnitudes(kept)
        return kept

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the entries of positive gates."""
        kept = super().keep_for_inference(product)
        self._set_magnitudes(kept)
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE of this gate and these magnitudes."""
        gain_F, shift_F = self._gain_and_shift
        return self._build_inference_sae(threshold=torch.zeros_like(gain_F), gain=gain_F, shift=shift_F)

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        """Compute the error of the reconstruction plus that of the gate's own reconstruction."""
        fit = super().fit(kept, entries, x_BD)
        via_gate = super().fit(kept.with_values(kept.pre), entries, x_BD)
        fit.loss = fit.loss + via_gate.loss
        fit.pre_grad = entries.value_gradients(via_gate.grad_RD, self.W_dec) * (entries.pre > 0)
        return fit

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the coefficient and the unit of the shift that follows, if there is a target.

        A shift moves the gate, so that only the gate's own reconstruction counts.
        """
        assert pre_grad is not None, "`fit` gives it"
        if self.l0_target is not None:
            self._observe_shift(entries, pre_grad)

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients by the gate's pre-activations and by the magnitudes' parameters, and the penalty."""
        assert pre_grad is not None, "`fit` gives it"
        magnitude_grad = value_grad * entries.active
        b_mag_grad_F = entries.latent_sums(magnitude_grad)
        # exp(r_mag) multiplies an active latent's activation less b_mag
        r_mag_grad_F = entries.latent_sums(magnitude_grad * (entries.value - entries.gather(self.b_mag)))
        gate_grad, penalty = self.add_penalty(entries, pre_grad)
        pre = gate_grad + magnitude_grad * entries.gather(self.r_mag.exp())
        return EntryGradients(pre, penalty, {"b_mag": b_mag_grad_F, "r_mag": r_mag_grad_F})

    def bias_gradient(self, pre_grad_F: Tensor, gradients: EntryGradients) -> Tensor:
        """Compute the gradient of b_enc, which is the gate's alone: the magnitudes do not contain b_enc."""
        return pre_grad_F.addcmul(self.r_mag.exp(), gradients.parameters["b_mag"], value=-1)
