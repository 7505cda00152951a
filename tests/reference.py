"""A slow, obvious reference: every architecture's loss on dense matrices, differentiated by autograd."""

# B activations in a batch, D model width, F latents

import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import SAE, BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE, Variant
from sae_sweeps.saes.trainable import USUAL
from sae_sweeps.training.trainer import Trainer


class StepWithKernel(torch.autograd.Function):
    """pre > threshold, with the rectangle kernel of arXiv:2407.14435 as its gradient by the threshold."""

    @staticmethod
    def forward(ctx, pre_BF, threshold_F, bandwidth):
        ctx.save_for_backward(pre_BF, threshold_F)
        ctx.bandwidth = bandwidth
        return (pre_BF > threshold_F).to(pre_BF.dtype)

    @staticmethod
    def backward(ctx, grad_BF):
        pre_BF, threshold_F = ctx.saved_tensors
        # entries that relu set to 0 never count as near
        near_BF = ((pre_BF - threshold_F).abs() < ctx.bandwidth / 2) & (pre_BF > 0)
        return None, (grad_BF * near_BF / -ctx.bandwidth).sum(0), None


def top_mask(values: Tensor, count: int) -> Tensor:
    mask = torch.zeros_like(values, dtype=torch.bool)
    mask.view(-1)[values.reshape(-1).topk(count).indices] = True
    return mask


def thresholds(p: dict[str, Tensor]) -> Tensor:
    """Return the thresholds, whose derivative by a logarithm is that by the threshold."""
    if "threshold" in p:
        return p["threshold"]
    log_threshold_F = p["log_threshold"]
    return log_threshold_F.detach().exp() + (log_threshold_F - log_threshold_F.detach())


def jumprelu_error(
    sae: JumpReLUSAE, p: dict[str, Tensor], threshold_F: Tensor, x_BD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean squared error, L0, and L0 as the penalty is differentiated, with the parameters `p`."""
    pre_BF = torch.relu((x_BD - sae.input_center) @ p["W_enc"].T + p["b_enc"])
    # z = pre * H(pre - threshold): with the value held fixed, d z / d threshold is threshold * d H / d threshold
    active_BF = StepWithKernel.apply(pre_BF, threshold_F, sae.bandwidth)
    z_BF = pre_BF * active_BF.detach() + threshold_F.detach() * (active_BF - active_BF.detach())
    l0 = penalized_l0 = active_BF.sum(1).mean()
    if sae.penalty_window == "upper":  # the kernel sees the activations, which are 0 below the threshold
        penalized_l0 = StepWithKernel.apply(z_BF.detach(), threshold_F, sae.bandwidth).sum(1).mean()
    return (z_BF @ p["W_dec"] + p["b_dec"] - x_BD).square().mean(), l0, penalized_l0


def derivatives_by_threshold_factor(sae: JumpReLUSAE, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return L0, the derivative of the error by a factor on all thresholds, and the negated ones of L0 and penalty."""
    p = {name: value.detach().clone() for name, value in sae.named_parameters()}
    factor = torch.ones((), dtype=x_BD.dtype, requires_grad=True)
    mse, *l0s = jumprelu_error(sae, p, thresholds(p) * factor, x_BD)
    (error_rise,) = torch.autograd.grad(mse, factor, retain_graph=True)
    falls = [-torch.autograd.grad(l0, factor, retain_graph=True)[0] for l0 in l0s]
    return l0s[0].detach(), error_rise, falls[0], falls[1]


def dense_step(sae: SAE, x_BD: Tensor, dead_F: Tensor, variant: Variant = USUAL) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of `sae.training_step` and the gradient of every parameter, W_dec's without its radial part."""
    p = {name: value.detach().clone().requires_grad_() for name, value in sae.named_parameters()}
    if isinstance(sae, JumpReLUSAE):
        mse, _, penalized_l0 = jumprelu_error(sae, p, thresholds(p), x_BD)
        loss = mse + sae.sparsity_coefficient * penalized_l0
    elif isinstance(sae, ReLUSAE):
        product_BF = (x_BD - p["b_dec"]) @ p["W_enc"].T
        gate_BF = z_BF = torch.relu(product_BF + p["b_enc"])
        if isinstance(sae, GatedSAE):
            z_BF = (gate_BF > 0) * torch.relu(p["r_mag"].exp() * product_BF + p["b_mag"])
        error_BD = z_BF @ p["W_dec"] + p["b_dec"] - x_BD
        loss = error_BD.square().mean() + sae.sparsity_coefficient * gate_BF.sum(1).mean()
        if isinstance(sae, GatedSAE):
            via_gate_BD = gate_BF @ p["W_dec"].detach() + p["b_dec"].detach()
            loss = loss + (via_gate_BD - x_BD).square().mean()
    else:
        assert isinstance(sae, TopKSAE)
        pre_BF = torch.relu((x_BD - p["b_dec"]) @ p["W_enc"].T)
        k = min(sae.k, sae.dict_size)
        if isinstance(sae, BatchTopKSAE):
            mask_BF = top_mask(pre_BF, k * len(x_BD))
        else:
            mask_BF = torch.stack([top_mask(row_F, k) for row_F in pre_BF])
        error_BD = (pre_BF * mask_BF) @ p["W_dec"] + p["b_dec"] - x_BD
        loss = error_BD.square().mean()
        if isinstance(sae, MatryoshkaSAE):
            for size in sae.sizes[:-1]:
                prefix_BD = (pre_BF * mask_BF)[:, :size] @ p["W_dec"][:size] + p["b_dec"]
                loss = loss + (prefix_BD - x_BD).square().mean()
        if variant.counts_batch:
            dead_F = dead_F & ~((pre_BF * mask_BF) != 0).any(0)
        if dead_F.any() and sae.aux_coefficient > 0:
            dead_pre_BF = pre_BF * dead_F
            count = min(sae.aux_latents, int(dead_F.sum()))
            aux_mask_BF = torch.stack([top_mask(torch.where(dead_F, row_F, -1.0), count) for row_F in pre_BF])
            residual_BD = -error_BD if variant.has_residual_gradient else -error_BD.detach()
            aux_error_BD = (dead_pre_BF * aux_mask_BF) @ p["W_dec"] - residual_BD
            loss = loss + sae.aux_coefficient * aux_error_BD.square().mean()
    loss.backward()
    gradients = {name: value.grad for name, value in p.items()}
    rows_FD = p["W_dec"].detach()
    if not variant.has_unit_rows:
        rows_FD = rows_FD / rows_FD.norm(dim=1, keepdim=True)
    gradients["W_dec"] = gradients["W_dec"] - (gradients["W_dec"] * rows_FD).sum(1, keepdim=True) * rows_FD
    return loss.detach(), gradients


def train_densely(sae: SAE, config: TrainingConfig, stream) -> SAE:
    """Train `sae` to the end as `Trainer` does, with dense steps and PyTorch's plain Adam."""
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr, betas=(config.betas[0], config.betas[1]))
    idle_F = torch.zeros(sae.dict_size)
    schedule = Trainer(sae, config)  # for its learning rates
    for number in range(config.steps):
        chunk, batch = divmod(number, config.chunk_batches)
        if batch == 0:
            chunk_AD = sae.normalize(stream.chunk(chunk)).x_BD
        if number == 0 and config.initial_bias == "mean":
            sae.center(chunk_AD.mean(0))
            if config.initial_weights == "data":  # tests/saes/test_initial.py has their definition
                sae.start_from(chunk_AD)
        x_BD = chunk_AD[batch * config.batch_size : (batch + 1) * config.batch_size]
        if isinstance(sae, JumpReLUSAE) and sae.l0_target is not None:
            if number == 0:
                sae.start_at_target(sae.product(sae.encoder_input(x_BD[:256])).to_dense())
            sae.l0_target.update(*derivatives_by_threshold_factor(sae, x_BD))
        _, gradients = dense_step(sae, x_BD, idle_F >= config.dead_after_tokens)
        entries = sae.keep(sae.product(sae.encoder_input(x_BD)))
        with torch.no_grad():
            sae.update_statistics(entries)  # BatchTopK's threshold, which has no gradient
            fired_F = (entries.to_dense() != 0).any(0)
        idle_F = torch.where(fired_F, 0.0, idle_F + len(x_BD))
        for name, parameter in sae.named_parameters():
            parameter.grad = gradients[name]
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(number + 1)
        optimizer.step()
        sae.normalize_rows()
        sae.after_update()
        if isinstance(sae, JumpReLUSAE) and config.dead_threshold_factor < 1:
            for latent in (idle_F >= config.dead_after_tokens).nonzero().flatten().tolist():
                with torch.no_grad():
                    sae.threshold[latent] *= config.dead_threshold_factor
    return sae


def nmse(sae: SAE, x_BD: Tensor) -> float:
    """Return the mean over activations of |x - x_hat|^2 / |x - mean(x)|^2."""
    error_B = (x_BD - sae(x_BD)).square().sum(1)
    return (error_B / (x_BD - x_BD.mean(1, keepdim=True)).square().sum(1)).mean().item()
