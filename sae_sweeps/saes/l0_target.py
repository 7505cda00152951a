"""A number of active latents that training comes to, in place of a coefficient that has to be found by trying."""

# R activations, F latents

import torch
from torch import Tensor, nn

MEMORY = 0.95  # of the running means of what batches tell, some 20 of them
SHARE = 0.2  # of a batch's deviation from the target, that the next step takes back
LARGEST = 0.05  # change of the thresholds' logarithms in one step
LEAST_FALL = 0.1  # of L0, in shares of the target, as the logarithms rise by 1: nearly that of latents far above theirs


class L0Target(nn.Module):
    """Keeps L0, the mean number of active latents, at `target` while thresholds are trained.

    L0 = target is a constraint on the error's minimum, not a term weighed against it (arXiv:2208.04425). Two things
    change after each batch. One factor on all thresholds meets the constraint: a batch's L0 responds to it at once. The
    coefficient of the L0 penalty is the constraint's multiplier, estimated in the batches: that at which the factor
    would change error and penalty by opposite amounts. So the loss teaches thresholds which latents are to be active
    more than others, and nothing about how many are.

    A coefficient alone, however controlled, steers badly: it acts through the gradients of thresholds, which come from
    the few activations near them and which Adam divides by those of a hundred steps before.

    ReLU and gated SAEs have biases in place of thresholds, which one shift for all moves, and an L1 penalty in place of
    that on L0; "factor" then means the exponential of the shift, in the unit that they say.

    Its buffers are all of its state, each of shape (); `coefficient` is the multiplier, `l0` that of the latest batch.
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
    def first_level(self, pre_RF: Tensor, scale_F: Tensor, times: float = 1.0) -> Tensor:
        """The multiple of scale_F, all above 0, at which thresholds give these pre-activations so many times the target
        as L0, ()."""
        share_M = (pre_RF / scale_F).flatten()
        count = max(1, min(round(times * self.target * len(pre_RF)), len(share_M)))
        return share_M.topk(count, sorted=False).values.min()

    @torch.no_grad()
    def observe(self, l0: Tensor, error_rise: Tensor, l0_fall: Tensor, penalty_fall: Tensor | None = None) -> None:
        """Learn from a batch: its L0, and the derivatives by the factor's logarithm of its error and, negated, of its
        L0 and of its penalty where that is another, all ().

        The coefficient is the ratio of their running means, and 0 where a larger factor would lower the error too.
        """
        self.batches += 1
        self.l0.copy_(l0)
        self.error_rise.lerp_(error_rise, 1 - MEMORY)  # from 0, as the other: that is corrected for where it matters
        self.l0_fall.lerp_(l0_fall, 1 - MEMORY)
        self.penalty_fall.lerp_(l0_fall if penalty_fall is None else penalty_fall, 1 - MEMORY)
        ratio = self.error_rise / self.penalty_fall
        self.coefficient.copy_(torch.where(self.penalty_fall > 0, ratio, 0.0).clamp_(min=0))

    @torch.no_grad()
    def relief(self, strength: float) -> Tensor:
        """What is left of a coefficient, (): 1, less `strength` times the share of the target that L0 is short of."""
        return (1 - strength * (1 - self.l0 / self.target)).clamp_(0, 1)

    @torch.no_grad()
    def factor(self) -> Tensor:
        """What to multiply all thresholds by after the latest batch, (): a part of Newton's step to the target."""
        fall = self.l0_fall / (1 - MEMORY**self.batches)
        change = SHARE * (self.l0 - self.target) / fall.clamp(min=LEAST_FALL * self.target)
        return change.clamp(-LARGEST, LARGEST).exp()
