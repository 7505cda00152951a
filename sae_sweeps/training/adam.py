"""Adam's step on all parameters of an SAE: torch's, from gradients in memory, or by kernels, which never store them."""

# F latents, D model width

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import TrainableSAE, Variant, kernels
from sae_sweeps.saes.sparse import ColumnSparse
from sae_sweeps.saes.step import StepGradients

if TYPE_CHECKING:
    from sae_sweeps.saes.kernels.update import Moments, SparseGradients

SLOTS = ("exp_avg", "exp_avg_sq")


class AdamUpdate:
    """Takes Adam's step on an SAE. Decoder rows keep unit norm: they are rescaled after the step, or before it."""

    def __init__(self, sae: TrainableSAE, config: TrainingConfig, variant: Variant) -> None:
        self._sae, self._variant = sae, variant
        self.optimizer = torch.optim.Adam(sae.parameters(), betas=(config.betas[0], config.betas[1]), fused=True)

    def prepare(self, lr: float, number: int) -> None:
        """Set the learning rate of the step that comes next, the `number`-th of all from 1 on."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def take(self, found: StepGradients, skipped: Tensor | None = None) -> None:
        """Take the step."""
        found.set_on(self._sae, has_unit_rows=self._variant.has_unit_rows)
        if not self._variant.has_unit_rows:
            self._sae.normalize_rows()
        self.optimizer.step()
        if self._variant.has_unit_rows:
            self._sae.normalize_rows()


class KernelUpdate(AdamUpdate):
    """Adam's step by Triton kernels, which add up the gradients of W_enc and W_dec in registers."""

    def __init__(self, sae: TrainableSAE, config: TrainingConfig, variant: Variant) -> None:
        super().__init__(sae, config, variant)
        self._rates_2 = torch.zeros(2, device=sae.W_dec.device)
        self._host_rates_2 = torch.zeros(2, pin_memory=sae.W_dec.is_cuda)
        self._none_1 = torch.zeros(1, dtype=torch.int32, device=sae.W_dec.device)

    def prepare(self, lr: float, number: int) -> None:
        """Set the learning rate, and what corrects the running means for their start from 0, of the step to come.

        The step before must have been waited for.
        """
        first, second = self.optimizer.defaults["betas"]
        self._host_rates_2.copy_(torch.tensor([lr / (1 - first**number), (1 - second**number) ** 0.5]))
        self._rates_2.copy_(self._host_rates_2, non_blocking=True)
        for parameter in self._sae.parameters():
            if not self.optimizer.state[parameter]:
                step = torch.zeros((), device=parameter.device)
                self.optimizer.state[parameter] = {
                    "step": step,
                    **{slot: torch.zeros_like(parameter) for slot in SLOTS},
                }

    @torch.no_grad()
    def take(self, found: StepGradients, skipped: Tensor | None = None) -> None:
        """Take the step, unless `skipped`, int32 (1,), is given and not 0: weights then stay as they are."""
        from sae_sweeps.saes.kernels.update import AdamRule, update_vector, update_weights

        skipped = self._none_1 if skipped is None else skipped
        rule = AdamRule(self._rates_2, self.optimizer.defaults["betas"], self.optimizer.defaults["eps"])
        sae = self._sae
        update_weights(
            sae.W_dec.detach(),
            sae.W_enc.detach(),
            (self._moments("W_dec"), self._moments("W_enc")),
            _to_sums(found),
            rule,
            skipped=skipped,
            normalize_first=not self._variant.has_unit_rows,
        )
        for name, gradient in found.vectors.items():
            update_vector(sae.get_parameter(name).detach(), self._moments(name), gradient, rule, skipped=skipped)
        torch._foreach_add_([self.optimizer.state[each]["step"] for each in sae.parameters()], 1.0)

    def _moments(self, name: str) -> "Moments":
        from sae_sweeps.saes.kernels.update import Moments

        return Moments(*(self.optimizer.state[self._sae.get_parameter(name)][slot] for slot in SLOTS))


def _to_sums(found: StepGradients) -> "SparseGradients":
    """Return the gradients as the kernel takes them; those of dense entries as rows to add."""
    from sae_sweeps.saes.kernels.update import SparseGradients

    entries, moved, extra = found.entries, found.fit.entries, None
    if isinstance(entries, ColumnSparse) and isinstance(moved, ColumnSparse):
        if (dead := found.auxiliary) is not None:
            index_F = torch.full_like(entries.start_Fp1[1:], -1)
            index_F[dead.dead_M] = torch.arange(len(dead.dead_M), dtype=index_F.dtype, device=index_F.device)
            extra = (index_F, dead.W_dec_MD, dead.W_enc_MD)
        return SparseGradients(
            entries.start_Fp1,
            moved.row_N,
            entries.value,
            found.fit.grad_RD,
            entries.row_N,
            found.pre,
            found.input_BD,
            extra,
        )
    matrices = found.sum_weights()
    index_F = torch.arange(len(matrices[0]), dtype=torch.int32, device=matrices[0].device)
    none_N, value_N = index_F[:0], matrices[0].new_empty(0)
    start_Fp1 = index_F.new_zeros(len(index_F) + 1)
    return SparseGradients(
        start_Fp1, none_N, value_N, found.fit.grad_RD, none_N, value_N, found.input_BD, (index_F, *matrices)
    )


def make_update(sae: TrainableSAE, config: TrainingConfig, variant: Variant) -> AdamUpdate:
    """Return the update that is the fastest where the SAE is."""
    usable = kernels.can_run(sae.W_dec) and sae.d_in <= kernels.WIDEST and sae.W_dec.dtype == torch.float32
    kind = KernelUpdate if usable else AdamUpdate
    return kind(sae, config, variant)
