"""Gated SAEs: one affine function decides which latents are active, another how strongly (arXiv:2404.16014)."""

# B activations in a batch, D model width, F latents (dict_size), N entries

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import GatedConfig, SAEConfig
from sae_sweeps.runtime.inputs import check_names
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.relu import ReLUSAE
from sae_sweeps.saes.sparse import Entries, LatentEntries, RowSparse
from sae_sweeps.saes.step import EntryGradients, Fit


class GatedSAE(ReLUSAE):
    """gate = (x - b_dec) @ W_enc^T + b_enc; where gate > 0, z = relu(exp(r_mag) (x - b_dec) @ W_enc^T + b_mag).

    The loss is the mse of the reconstruction from z + sparsity_coefficient * L1 of relu(gate) + the mse of a second
    reconstruction, from relu(gate), with decoder weights and bias held constant (arXiv:2404.16014, equations 5 to 8).
    b_enc is the paper's b_gate.
    """

    architecture = "gated"
    starting_l0_ratio = 1.0

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int | None = None,
        *,
        sparsity_coefficient: float | None = GatedConfig.sparsity_coefficient,
        target_l0: float | None = GatedConfig.target_l0,
        initial_threshold: float = GatedConfig.initial_threshold,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(
            d_in,
            dict_size,
            k,
            sparsity_coefficient=sparsity_coefficient,
            target_l0=target_l0,
            initial_threshold=initial_threshold,
            normalize_input=normalize_input,
            seed=seed,
        )
        self.r_mag = nn.Parameter(torch.zeros(dict_size))
        self.b_mag = nn.Parameter(torch.zeros(dict_size))

    @property
    def _gain_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return gain and shift, each (F,), such that z = relu(gain * gate + shift) where gate > 0."""
        gain_F, b_gate_F = self.r_mag.detach().exp(), self.get_parameter("b_enc").detach()
        return gain_F, self.b_mag.detach() - gain_F * b_gate_F

    @torch.no_grad()
    def _set_magnitudes(self, kept: Entries) -> None:
        """Set the activations (`value`) of the kept entries from the values of the gate (`pre`)."""
        gain_F, shift_F = self._gain_and_shift
        magnitude = (kept.gather(gain_F) * kept.pre + kept.gather(shift_F)).relu_()
        kept.value = magnitude * (kept.pre > 0)

    def keep(self, product: Product) -> Entries:
        """Select the entries with a positive gate and compute the magnitudes.

        Returns every entry, `Dense`, if more than the share `dense_from` of the gates are positive.
        """
        kept = super().keep(product)
        self._set_magnitudes(kept)
        return kept

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the entries with a positive gate and compute the magnitudes."""
        kept = super().keep_for_inference(product)
        self._set_magnitudes(kept)
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights, gate thresholds of 0, and gain and shift of the magnitudes."""
        gain_F, shift_F = self._gain_and_shift
        return self._build_inference_sae(threshold=torch.zeros_like(gain_F), gain=gain_F, shift=shift_F)

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        """Compute the mse of the reconstruction plus the mse of the reconstruction from relu(gate).

        `pre_grad` of the result is the gradient of the second mse by the gate.
        """
        fit = super().fit(kept, entries, x_BD)
        via_gate = super().fit(kept.with_values(kept.pre), entries, x_BD)
        fit.loss = fit.loss + via_gate.loss
        fit.pre_grad = entries.value_gradients(via_gate.grad_RD, self.W_dec) * (entries.pre > 0)
        return fit

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the penalty coefficient and the unit of the next bias shift from this batch, if there is a target L0.

        A shift of b_enc moves only the gate, so the effect on the error follows from `pre_grad`, the gradient of the
        mse of the reconstruction from relu(gate).
        """
        assert pre_grad is not None, "`fit` sets pre_grad"
        if self.l0_target is not None:
            self._observe_shift(entries, pre_grad)

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients by the kept pre-activations, r_mag and b_mag, and the L1 penalty on relu(gate).

        `value_grad` and `pre_grad` are the gradients of the two reconstruction errors by z and by the gate.
        """
        assert pre_grad is not None, "`fit` sets pre_grad"
        magnitude_grad = value_grad * entries.active
        b_mag_grad_F = entries.latent_sums(magnitude_grad)
        # for an active latent, the derivative of z by r_mag is exp(r_mag) times the product, which is z - b_mag
        r_mag_grad_F = entries.latent_sums(magnitude_grad * (entries.value - entries.gather(self.b_mag)))
        gate_grad, penalty = self.add_penalty(entries, pre_grad)
        pre = gate_grad + magnitude_grad * entries.gather(self.r_mag.exp())
        return EntryGradients(pre, penalty, {"b_mag": b_mag_grad_F, "r_mag": r_mag_grad_F})

    def bias_gradient(self, pre_grad_F: Tensor, gradients: EntryGradients) -> Tensor:
        """Compute the gradient of b_enc, (F,). It comes only from the gate: the magnitudes do not depend on b_enc.

        `pre_grad_F` sums the gradients through gate and magnitudes, so the part of the magnitudes is subtracted.
        """
        return pre_grad_F.addcmul(self.r_mag.exp(), gradients.parameters["b_mag"], value=-1)
