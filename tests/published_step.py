"""A slow, obvious reference: the training steps of the code of arXiv:2412.06410, on dense matrices with autograd.

What differs from the steps of `tests/reference.py`:

- Decoder rows are scaled to unit norm before the optimizer's update, not after it.
- The auxiliary loss is differentiated by the residual as well.
- A latent is dead if it has been silent in `dead_after` batches, the batch of the step included.
- JumpReLU's penalty counts the activations behind the threshold. So its gradient has only the upper half of the
  kernel's window. The parameter is the threshold's logarithm, its gradient that by the threshold.
"""

# B activations in a batch, D model width, F latents

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.saes import TrainableSAE


class StepWithKernel(torch.autograd.Function):
    """value > exp(log_threshold), with the rectangle kernel as the gradient by the logarithm, without its factor."""

    @staticmethod
    def forward(ctx, value_BF, log_threshold_F, bandwidth):
        ctx.save_for_backward(value_BF, log_threshold_F)
        ctx.bandwidth = bandwidth
        return (value_BF > log_threshold_F.exp()).to(value_BF.dtype)

    @staticmethod
    def backward(ctx, grad_BF):
        value_BF, log_threshold_F = ctx.saved_tensors
        is_near_BF = ((value_BF - log_threshold_F.exp()) / ctx.bandwidth).abs() < 0.5
        return None, -(grad_BF * is_near_BF).sum(0) / ctx.bandwidth, None


@dataclass
class PublishedStep:
    """Trains copies of an SAE's weights; call it with each batch of raw activations (B, D)."""

    sae: TrainableSAE  # its weights at the start, its k and its options
    lr: float
    dead_after: int = 5  # batches
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        self.p = {name: value.detach().clone().requires_grad_() for name, value in self.sae.named_parameters()}
        self.optimizer = torch.optim.Adam(self.p.values(), lr=self.lr, betas=self.betas)
        self.silent_batches_F = torch.zeros(self.sae.dict_size)
        self.dead = 0  # number of dead latents in the latest step

    def __call__(self, x_BD: Tensor) -> tuple[float, float]:
        """Take a step. Returns loss and L0 of the batch."""
        x_BD = x_BD - x_BD.mean(1, keepdim=True)
        x_BD = x_BD / (x_BD.std(1, keepdim=True) + 1e-5)
        loss, l0 = self.jumprelu_loss(x_BD) if self.sae.architecture == "jumprelu" else self.topk_loss(x_BD)
        loss.backward()
        with torch.no_grad():
            W_dec = self.p["W_dec"]
            unit_FD = W_dec / W_dec.norm(dim=1, keepdim=True)
            W_dec.grad -= (W_dec.grad * unit_FD).sum(1, keepdim=True) * unit_FD
            W_dec.copy_(unit_FD)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), l0.item()

    def jumprelu_loss(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return mse + coefficient * L0, and L0."""
        pre_BF = torch.relu(x_BD @ self.p["W_enc"].T + self.p["b_enc"])
        log_threshold_F, bandwidth = self.p["log_threshold"], self.sae.bandwidth
        active_BF = StepWithKernel.apply(pre_BF, log_threshold_F, bandwidth)
        # the value is pre * active, and its derivative by the threshold that of threshold * active
        acts_BF = pre_BF * active_BF.detach() + log_threshold_F.detach().exp() * (active_BF - active_BF.detach())
        error_BD = acts_BF @ self.p["W_dec"] + self.p["b_dec"] - x_BD
        l0 = StepWithKernel.apply(acts_BF.detach(), log_threshold_F, bandwidth).sum(1).mean()
        return error_BD.square().mean() + self.sae.sparsity_coefficient * l0, l0

    def topk_loss(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return mse + auxiliary loss, and L0, of a TopK or BatchTopK SAE."""
        pre_BF = torch.relu((x_BD - self.p["b_dec"]) @ self.p["W_enc"].T)
        if self.sae.architecture == "topk":
            acts_BF = keep_largest(pre_BF, self.sae.k)
        else:
            acts_BF = keep_largest(pre_BF.flatten()[None], self.sae.k * len(x_BD)).view_as(pre_BF)
        residual_BD = x_BD - (acts_BF @ self.p["W_dec"] + self.p["b_dec"])
        fired_F = acts_BF.detach().sum(0) > 0
        self.silent_batches_F = torch.where(fired_F, 0.0, self.silent_batches_F + 1)
        dead_F = self.silent_batches_F >= self.dead_after
        self.dead = int(dead_F.sum())
        loss = residual_BD.square().mean()
        if self.dead > 0:
            dead_BM = keep_largest(pre_BF[:, dead_F], min(self.sae.aux_latents, self.dead))
            aux_error_BD = dead_BM @ self.p["W_dec"][dead_F] - residual_BD
            loss = loss + self.sae.aux_coefficient * aux_error_BD.square().mean()
        return loss, (acts_BF.detach() > 0).float().sum(1).mean()


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Return a matrix with the `count` largest values of each row, and 0 elsewhere."""
    top = values.topk(count, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values)
