"""L0Target, a controller that trains an SAE to a target L0 in place of a tuned sparsity coefficient."""

# R activations, F latents, M = R x F pre-activations

import torch
from torch import Tensor, nn

MEMORY = 0.95  # decay of the running means, which average about 20 batches
SHARE = 0.2  # share of a batch's deviation from the target that the next step corrects
LARGEST = 0.05  # largest change of the thresholds' logarithms in one step
LEAST_FALL = 0.1  # least fall of L0 assumed, in shares of the target, as log thresholds rise by 1; limits a step


class L0Target(nn.Module):
    """Controller that keeps L0, the mean number of active latents, at `target` while thresholds are trained.

    L0 = target is a constraint on the minimum of the error, not a term added to it (arXiv:2208.04425). Two things
    change after each batch. All thresholds are multiplied by one factor, which meets the constraint: the L0 of the next
    batch responds to the factor at once. The coefficient of the L0 penalty is the constraint's Lagrange multiplier,
    estimated from the batches: the value at which the factor would change error and penalty by opposite amounts. So the
    loss decides which latents are active more often than others, but not the mean number of active latents.

    Controlling the coefficient alone works badly. The coefficient acts through the gradients of the thresholds, which
    come from the few pre-activations near a threshold, and which Adam divides by the size of gradients over the last
    hundred steps.

    ReLU and gated SAEs have biases in place of thresholds, all moved by one shift, and a penalty on L1 in place of L0;
    "factor" then means the exponential of the shift, in the unit that the SAE chooses.

    All state is in buffers of shape (): `batches` counts batches, `l0` is the L0 of the latest batch, `coefficient` is
    the multiplier, and the others are running means of the arguments of `update`.
    """

    batches: Tensor
    l0: Tensor
    coefficient: Tensor
    error_rise: Tensor
    penalty_fall: Tensor
    l0_fall: Tensor

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        for name in ("l0", "coefficient", "error_rise", "penalty_fall", "l0_fall"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def find_starting_level(self, pre_RF: Tensor, scale_F: Tensor, times: float = 1.0) -> Tensor:
        """Find the factor, (), at which thresholds of factor * `scale_F` give an L0 of `times` * target.

        L0 is counted on the pre-activations `pre_RF` (R, F). `scale_F` (F,) is positive.
        """
        share_M = (pre_RF / scale_F).flatten()
        count = max(1, min(round(times * self.target * len(pre_RF)), len(share_M)))
        return share_M.topk(count, sorted=False).values.min()

    @torch.no_grad()
    def update(self, l0: Tensor, error_rise: Tensor, l0_fall: Tensor, penalty_fall: Tensor | None = None) -> None:
        """Update the penalty coefficient and the running means from a batch.

        `error_rise` is the derivative of the error by the factor's logarithm; `l0_fall` and `penalty_fall` are the
        negated derivatives of L0 and of the penalty per unit coefficient (None for a penalty on L0: `l0_fall`). All
        have shape (). The coefficient is the running mean of `error_rise` over the running mean of `penalty_fall`, and
        0 where a larger factor would also lower the error.
        """
        self.batches += 1
        self.l0.copy_(l0)
        self.error_rise.lerp_(error_rise, 1 - MEMORY)  # means start from 0, which cancels in `ratio`
        self.l0_fall.lerp_(l0_fall, 1 - MEMORY)
        self.penalty_fall.lerp_(l0_fall if penalty_fall is None else penalty_fall, 1 - MEMORY)
        ratio = self.error_rise / self.penalty_fall
        self.coefficient.copy_(torch.where(self.penalty_fall > 0, ratio, 0.0).clamp_(min=0))

    @torch.no_grad()
    def scale_penalty(self, strength: float) -> Tensor:
        """Compute the share of the penalty coefficient to apply, (), smaller the further the latest L0 is below target.

        The share is 1 - strength * (1 - l0 / target), clamped to [0, 1].
        """
        return (1 - strength * (1 - self.l0 / self.target)).clamp_(0, 1)

    @torch.no_grad()
    def compute_factor(self) -> Tensor:
        """Compute the factor, (), by which all thresholds are multiplied after the latest batch.

        The factor takes the share SHARE of Newton's step towards the target, in the thresholds' logarithms, and changes
        these by at most LARGEST.
        """
        # the running mean starts from 0; the divisor corrects for that
        fall = self.l0_fall / (1 - MEMORY**self.batches)
        change = SHARE * (self.l0 - self.target) / fall.clamp(min=LEAST_FALL * self.target)
        return change.clamp(-LARGEST, LARGEST).exp()
